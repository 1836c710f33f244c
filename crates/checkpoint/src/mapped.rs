//! Files mapped into memory, read-only.

use std::any::Any;
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// A read-only file in memory. Pages come from disk when they are first touched.
#[derive(Debug)]
pub(crate) struct MappedFile {
    path: PathBuf,
    map: Arc<Mmap>,
}

impl MappedFile {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let io = |e| Error::io(path, e);
        let file = File::open(path).map_err(io)?;
        let metadata = file.metadata().map_err(io)?;
        if !metadata.is_file() {
            return Err(Error::not_a_model(path, "not a regular file"));
        }
        if metadata.len() == 0 {
            return Err(Error::malformed(path, "the file is empty"));
        }
        // SAFETY: the mapping is read-only and every reader treats its bytes as plain data that may hold anything.
        // What stays unchecked is another process that truncates the file while we run; weights are written once
        // (the hub cache renames finished files into place), and every engine that maps weights accepts the same.
        let map = unsafe { Mmap::map(&file) }.map_err(io)?;
        Ok(Self { path: path.to_owned(), map: Arc::new(map) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// Keeps the mapping alive for as long as it is held.
    pub(crate) fn owner(&self) -> Arc<dyn Any + Send + Sync> {
        self.map.clone()
    }

    /// Tells the system that `range` will not be needed soon, so that its pages stop counting as ours. Reading it again
    /// is allowed and brings it back from the file.
    pub(crate) fn release(&self, range: Range<usize>) {
        #[cfg(unix)]
        {
            // Only pages that lie wholly inside: a neighbour's bytes may still be in use. 64 KiB is a multiple of every
            // page size we run on (4, 16 and 64 KiB), and the mapping starts on a page.
            const PAGE: usize = 64 << 10;
            let start = range.start.next_multiple_of(PAGE);
            let end = range.end / PAGE * PAGE;
            if start >= end {
                return;
            }
            // SAFETY: dropping clean pages of a shared read-only file mapping cannot lose data; a later read faults
            // them in again with the file's contents.
            let advised =
                unsafe { self.map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, end - start) };
            // Advice only: where the system refuses it, memory is freed later and nothing else changes.
            drop(advised);
        }
        #[cfg(not(unix))]
        let _ = range;
    }
}
