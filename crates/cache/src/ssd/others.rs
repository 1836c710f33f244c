//! Files of other models in the same folder: they count, and go by age like ours.

use std::{collections::VecDeque, fs, io, path::Path};

use super::folder::{self, Folder, Listed};

/// What other models left, as found at the start.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// Oldest first.
    files: VecDeque<Listed>,
    bytes: u64,
}

impl Others {
    /// Lists the folders beside `ours`, except those that a tier has open.
    pub(super) fn find(ours: &Folder) -> io::Result<Self> {
        let mut files = vec![];
        for model in fs::read_dir(ours.path().parent().unwrap_or(ours.path()))? {
            let path = model?.path();
            if path != ours.path() && path.is_dir() && folder::lock_unused(&path).is_some() {
                // What cannot be listed cannot be deleted either.
                files.extend(folder::list(&path).unwrap_or_default());
            }
        }
        files.sort_by_key(|file| file.used);
        Ok(Self { bytes: files.iter().map(|file| file.size).sum(), files: files.into() })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest file was used.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.files.front().map(|file| file.used)
    }

    /// Lets go of the oldest file: deletes it, unless a tier has opened its model's folder since. True if it did.
    pub(super) fn evict(&mut self) -> io::Result<bool> {
        let Some(file) = self.files.pop_front() else { return Ok(false) };
        self.bytes -= file.size;
        let model = file.path.parent().and_then(Path::parent);
        match model.and_then(folder::lock_unused) {
            Some(_unused) => folder::remove(&file.path).map(|()| true),
            None => Ok(false),
        }
    }
}
