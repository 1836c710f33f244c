//! Files and folders: names, rights, locks, and the one way a file comes into being.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{config::SsdError, format::Encoded};
use crate::BlockHash;

/// A block's file.
const BLOCK: &str = "kv";
/// A block's file while it is being written.
const TEMPORARY: &str = "tmp";
/// Held by the tier that has the folder open.
pub(super) const LOCK: &str = "lock";

/// A model's folder, locked.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    /// Unlocks when it is closed, however the process ends.
    _lock: File,
}

/// A file in a model's folder.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) path: PathBuf,
    pub(super) size: u64,
    /// When it was last used, in nanoseconds since 1970.
    pub(super) used: u64,
}

impl Folder {
    /// Makes and locks `dir/fingerprint`.
    pub(super) fn open(dir: &Path, fingerprint: &str) -> Result<Self, SsdError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if !(1..=128).contains(&fingerprint.len()) || !fingerprint.chars().all(allowed) {
            return Err(SsdError::Fingerprint(fingerprint.into()));
        }
        let path = dir.join(fingerprint);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SsdError::Folder { path, source }
        };
        make_folder(&path).map_err(failed(&path))?;
        let lock = owners_file().open(path.join(LOCK)).map_err(failed(&path))?;
        match try_lock(&lock) {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SsdError::InUse { path }),
            Err(TryLockError::Error(source)) => return Err(SsdError::Folder { path, source }),
        }
        // An old lock file may be writable in a folder that isn't any more.
        let probe = path.join("probe").with_extension(TEMPORARY);
        owners_file().open(&probe).and_then(|_| fs::remove_file(&probe)).map_err(failed(&path))?;
        Ok(Self { path, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Where the block's file is or would be.
    pub(super) fn file(&self, hash: BlockHash) -> PathBuf {
        let name = hash.to_string();
        let mut path = self.path.join(&name[..2]);
        path.push(name);
        path.with_extension(BLOCK)
    }

    /// Writes the block's file, in place of an old one; all of it or, after an error, nothing.
    pub(super) fn save(&self, hash: BlockHash, content: &Encoded<'_>) -> io::Result<()> {
        let path = self.file(hash);
        let temporary = path.with_extension(TEMPORARY);
        write_all(&temporary, content).and_then(|()| fs::rename(&temporary, &path)).inspect_err(|_| {
            // It may not even exist; if it stays, the next start deletes it.
            let _ = fs::remove_file(&temporary);
        })
    }

    /// Writes down that the block was used now.
    pub(super) fn mark_used(&self, hash: BlockHash) -> io::Result<()> {
        OpenOptions::new().append(true).open(self.file(hash))?.set_modified(SystemTime::now())
    }
}

fn write_all(path: &Path, content: &Encoded<'_>) -> io::Result<()> {
    let mut file = match owners_file().truncate(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make_folder(path.parent().unwrap_or(path))?;
            owners_file().truncate(true).open(path)?
        }
        file => file?,
    };
    file.write_all(&content.header)?;
    content.payloads.iter().try_for_each(|payload| file.write_all(payload))
}

/// Deletes a file; one that isn't there counts as deleted.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// The hash that a block's file is named by; `None` for other files.
pub(super) fn hash_of(path: &Path) -> Option<BlockHash> {
    let name = path.file_stem()?.to_str()?;
    if path.extension()? != BLOCK || name.len() != 32 || name.bytes().any(|c| c.is_ascii_uppercase()) {
        return None;
    }
    u128::from_str_radix(name, 16).ok().map(|number| BlockHash(number.to_be_bytes()))
}

/// Files of blocks, and of blocks never finished, in a model's folder.
pub(super) fn list(folder: &Path) -> io::Result<Vec<Listed>> {
    let mut files = vec![];
    for fan in fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()? {
        let two_digits = fan.file_name().len() == 2;
        if !two_digits || !fan.file_type()?.is_dir() {
            continue;
        }
        for file in fs::read_dir(fan.path())? {
            let path = file?.path();
            let ours = path.extension().is_some_and(|extension| extension == BLOCK || extension == TEMPORARY);
            // Another tier may be deleting them just now.
            let Some(about) = path.symlink_metadata().ok().filter(|about| ours && about.is_file()) else { continue };
            files.push(Listed { path, size: about.len(), used: about.modified().map_or(0, nanos) });
        }
    }
    Ok(files)
}

/// Whether a tier has the folder open; if not, nobody can open it until the answer is dropped.
pub(super) fn lock_unused(folder: &Path) -> Option<File> {
    // Not made if it isn't there: then it is no folder of ours.
    let lock = OpenOptions::new().write(true).open(folder.join(LOCK)).ok()?;
    lock.try_lock().is_ok().then_some(lock)
}

/// Locks, and waits a moment for those that only look: see [`lock_unused`].
fn try_lock(lock: &File) -> Result<(), TryLockError> {
    for _ in 0..10 {
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(Duration::from_millis(10)),
            answer => return answer,
        }
    }
    lock.try_lock()
}

/// Nanoseconds since 1970.
pub(super) fn nanos(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// Makes a folder, and those above it, for its owner alone.
fn make_folder(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

/// Opens for writing, and makes files for their owner alone.
fn owners_file() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
