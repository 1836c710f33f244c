//! Files and folders that are whole or not there.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Write},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use indicatif::ProgressBar;
use sha2::{Digest, Sha256};

use crate::paths;

/// Held while something is prepared: of several commands at once, one does the work and the others wait.
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn acquire() -> Result<Self> {
        let path = paths::target().join(".xtask.lock");
        fs::create_dir_all(paths::target()).with_context(|| format!("cannot make {}", paths::target().display()))?;
        let file = File::create(&path).with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                eprintln!("waiting for another cargo xtask to finish preparing …");
                file.lock().with_context(|| format!("cannot lock {}", path.display()))?;
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock {}", path.display()));
            }
        }
        Ok(Self { _file: file })
    }
}

/// A folder to build something in, beside its final place. Removed when dropped, unless published.
pub struct Staging {
    path: PathBuf,
}

impl Staging {
    /// An empty folder in the parent of `destination`. What an interrupted run left there is removed: hold the [`Lock`].
    pub fn beside(destination: &Path) -> Result<Self> {
        let parent = destination.parent().context("a destination inside a folder")?;
        let name = destination.file_name().context("a destination with a name")?.to_string_lossy();
        let path = parent.join(format!(".{name}.part"));
        remove(&path)?;
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the folder into its place, in one step as far as anybody can see. What stood there is removed.
    pub fn publish(self, destination: &Path) -> Result<()> {
        remove(destination)?;
        fs::rename(&self.path, destination)
            .with_context(|| format!("cannot rename {} to {}", self.path.display(), destination.display()))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // Already gone if published; a leftover is replaced by the next run and never taken for whole.
        let _ = remove(&self.path);
    }
}

/// Removes a file, link or folder if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Err(_) => return Ok(()),
        Ok(found) if found.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    removed.with_context(|| format!("cannot remove {}", path.display()))
}

/// Writes a file beside its place, checks size and hash, and renames it into place.
pub fn write_checked(from: &mut dyn Read, to: &Path, bytes: u64, sha256: &str, bar: &ProgressBar) -> Result<()> {
    let parent = to.parent().context("a file inside a folder")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
    let staging = Staging::beside(to)?;
    let part = staging.path().join("file");
    let mut file = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let mut hash = Sha256::new();
    let written =
        copy_hashed(from, &mut file, &mut hash, bar).with_context(|| format!("cannot write {}", part.display()))?;
    file.sync_all()?;
    let found = hex(&hash.finalize());
    if written != bytes || found != sha256 {
        bail!("{}: got {written} bytes with sha256 {found}, wanted {bytes} bytes with {sha256}", to.display());
    }
    fs::rename(&part, to).with_context(|| format!("cannot rename {} to {}", part.display(), to.display()))
}

fn copy_hashed(from: &mut dyn Read, to: &mut dyn Write, hash: &mut Sha256, bar: &ProgressBar) -> Result<u64> {
    let mut buffer = vec![0; 1 << 20];
    let mut total = 0;
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(total);
        }
        hash.update(&buffer[..n]);
        to.write_all(&buffer[..n])?;
        total += n as u64;
        bar.inc(n as u64);
    }
}

/// The hash of a file, in hexadecimal.
pub fn sha256_file(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    copy_hashed(&mut file, &mut std::io::sink(), &mut hash, &ProgressBar::hidden())?;
    Ok(hex(&hash.finalize()))
}

/// The hash of a folder: of every file's relative path and contents, in the order of the paths.
pub fn sha256_tree(folder: &Path) -> Result<String> {
    let mut files = vec![];
    walk(folder, &mut |path| files.push(path.to_path_buf()))?;
    files.sort();
    let mut hash = Sha256::new();
    for path in files {
        let relative = path.strip_prefix(folder).expect("walk stays inside");
        hash.update(relative.to_string_lossy().replace('\\', "/"));
        hash.update([0]);
        hash.update(sha256_file(&path)?);
        hash.update([0]);
    }
    Ok(hex(&hash.finalize()))
}

/// Copies a folder's files.
pub fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let mut files = vec![];
    walk(from, &mut |path| files.push(path.to_path_buf()))?;
    for path in files {
        let destination = to.join(path.strip_prefix(from).expect("walk stays inside"));
        fs::create_dir_all(destination.parent().expect("a file inside a folder"))?;
        fs::copy(&path, &destination)
            .with_context(|| format!("cannot copy {} to {}", path.display(), destination.display()))?;
    }
    Ok(())
}

/// The bytes of all files in a folder; 0 if it isn't there.
pub fn tree_bytes(folder: &Path) -> u64 {
    let mut total = 0;
    // A file may be renamed away while we look: what is missed now is seen next time.
    let _ = walk(folder, &mut |path| total += path.metadata().map_or(0, |found| found.len()));
    total
}

fn walk(folder: &Path, each: &mut dyn FnMut(&Path)) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() { walk(&entry.path(), each)? } else { each(&entry.path()) }
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        remove(&dir).unwrap();
        fs::create_dir_all(&dir).unwrap();
        dir
    }

    #[test]
    fn only_whole_files_reach_their_place() {
        let dir = scratch("write-checked");
        let cases: [(&str, &[u8], u64, &str, bool); 4] = [
            ("whole", b"abc", 3, ABC, true),
            ("cut short", b"ab", 3, ABC, false),
            ("too long", b"abcd", 3, ABC, false),
            ("damaged", b"abd", 3, ABC, false),
        ];
        for (name, mut contents, bytes, sha256, good) in cases {
            let to = dir.join(name);
            let result = write_checked(&mut contents, &to, bytes, sha256, &ProgressBar::hidden());
            assert_eq!((result.is_ok(), to.exists()), (good, good), "{name}");
        }
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 1, "nothing is left lying about");
        remove(&dir).unwrap();
    }

    #[test]
    fn an_abandoned_staging_folder_leaves_nothing() {
        let dir = scratch("staging");
        let place = dir.join("place");
        let staging = Staging::beside(&place).unwrap();
        fs::write(staging.path().join("half"), "done").unwrap();
        drop(staging);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);

        let staging = Staging::beside(&place).unwrap();
        fs::write(staging.path().join("all"), "done").unwrap();
        staging.publish(&place).unwrap();
        assert_eq!(fs::read_to_string(place.join("all")).unwrap(), "done");
        remove(&dir).unwrap();
    }

    #[test]
    fn a_tree_hash_sees_names_and_contents() {
        let dir = scratch("tree");
        fs::create_dir(dir.join("a")).unwrap();
        fs::write(dir.join("a/x"), "1").unwrap();
        let first = sha256_tree(&dir).unwrap();
        assert_eq!(sha256_tree(&dir).unwrap(), first);
        fs::rename(dir.join("a/x"), dir.join("a/y")).unwrap();
        let renamed = sha256_tree(&dir).unwrap();
        assert_ne!(renamed, first);
        fs::write(dir.join("a/y"), "2").unwrap();
        assert_ne!(sha256_tree(&dir).unwrap(), renamed);
        remove(&dir).unwrap();
    }
}
