//! The cache on disk: `models--org--name/{blobs,refs,snapshots}`, shared with Python's `huggingface_hub`.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use hf_hub::{Cache, CacheRepo, Repo, RepoType};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::client::{Source, Transfer};
use super::plan::{self, RemoteFile};
use super::{HubError, Reference};

/// Attempts in a row that bring no byte before a download gives up.
const ATTEMPTS: u32 = 5;

/// The part of the cache that belongs to one repository.
pub(super) struct RepoCache {
    cache: CacheRepo,
    root: PathBuf,
    /// `models--org--name`.
    folder: String,
    repo: String,
}

/// A commit's files: links to blobs.
#[derive(Debug)]
pub(super) struct Snapshot(PathBuf);

impl Snapshot {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// The index of shards, if it is here and sound; a damaged one is reported when the folder is opened.
    pub(super) fn index(&self) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.0.join(plan::INDEX)).ok()?).ok()
    }
}

impl RepoCache {
    pub(super) fn new(root: PathBuf, reference: &Reference) -> Self {
        let repo = Repo::with_revision(reference.repo.clone(), RepoType::Model, reference.revision.clone());
        Self {
            folder: repo.folder_name(),
            cache: Cache::new(root.clone()).repo(repo),
            root,
            repo: reference.repo.clone(),
        }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// The snapshot that a revision stands for, if it is here.
    pub(super) fn snapshot_of(&self, revision: &str) -> Option<Snapshot> {
        let pointer = self.root.join(&self.folder).join("refs").join(revision);
        let commit =
            fs::read_to_string(pointer).map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        let snapshot = self.snapshot(&commit);
        (!commit.contains(['/', '.']) && snapshot.path().is_dir()).then_some(snapshot)
    }

    pub(super) fn snapshot(&self, commit: &str) -> Snapshot {
        Snapshot(self.cache.pointer_path(commit))
    }

    /// Records that `revision` is `commit` now.
    pub(super) fn point(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        self.cache.create_ref(commit).map_err(HubError::cache(&self.root))
    }

    /// Bytes of `file` that are on disk, finished or not.
    pub(super) fn present(&self, file: &RemoteFile, snapshot: &Snapshot) -> u64 {
        if snapshot.path().join(&file.name).exists() || self.has_blob(file) {
            return file.size;
        }
        fs::metadata(self.part(file)).map_or(0, |part| part.len().min(file.size))
    }

    /// Sees to it that `file` is in `snapshot`. `progress` hears of bytes on disk, and of transfers that broke off.
    pub(super) fn fetch(
        &self,
        file: &RemoteFile,
        snapshot: &Snapshot,
        source: Source<'_>,
        progress: &mut dyn FnMut(u64, Option<&str>),
    ) -> Result<(), HubError> {
        let link = snapshot.path().join(&file.name);
        if link.exists() {
            return Ok(());
        }
        if !self.has_blob(file) {
            let _lock = self.lock(file)?;
            // Another process may have brought it while we waited.
            if !self.has_blob(file) {
                self.download(file, source, progress)?;
            }
        }
        self.link(file, &link)
    }

    fn blob(&self, file: &RemoteFile) -> PathBuf {
        self.cache.blob_path(&file.etag)
    }

    fn part(&self, file: &RemoteFile) -> PathBuf {
        self.cache.blob_path(&format!("{}.incomplete", file.etag))
    }

    fn has_blob(&self, file: &RemoteFile) -> bool {
        fs::metadata(self.blob(file)).is_ok_and(|blob| blob.len() == file.size)
    }

    /// One process at a time fetches a blob; the others wait here. The lock goes with the process.
    fn lock(&self, file: &RemoteFile) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", file.etag));
        let error = || HubError::cache(&path);
        create_parent(&path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(error())?;
        lock.lock().map_err(error())?;
        Ok(lock)
    }

    fn download(
        &self,
        file: &RemoteFile,
        source: Source<'_>,
        progress: &mut dyn FnMut(u64, Option<&str>),
    ) -> Result<(), HubError> {
        let path = self.part(file);
        let error = || HubError::cache(&path);
        create_parent(&path)?;
        let mut part = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(error())?;
        let mut done = part.metadata().map_err(error())?.len();
        if done > file.size {
            // Not a beginning of this file.
            part.set_len(0).map_err(error())?;
            done = 0;
        }
        progress(done, None);
        let mut attempts = 0;
        while done < file.size {
            let before = done;
            match self.transfer(file, source, &mut part, &mut done, progress) {
                Ok(()) => {}
                Err(HubError::Network { url, what }) => {
                    attempts = if done > before { 1 } else { attempts + 1 };
                    if attempts >= ATTEMPTS {
                        return Err(HubError::Network { url, what });
                    }
                    progress(done, Some(&what));
                    std::thread::sleep(Duration::from_millis(200 << attempts));
                }
                Err(other) => return Err(other),
            }
        }
        self.verify(file, &mut part, &path)?;
        part.sync_all().map_err(error())?;
        let blob = self.blob(file);
        fs::rename(&path, &blob).map_err(HubError::cache(&blob))
    }

    /// Appends to `part` what one request brings, from `done` on.
    fn transfer(
        &self,
        file: &RemoteFile,
        source: Source<'_>,
        part: &mut File,
        done: &mut u64,
        progress: &mut dyn FnMut(u64, Option<&str>),
    ) -> Result<(), HubError> {
        let path = self.part(file);
        let error = || HubError::cache(&path);
        let Transfer { start, mut body, url } = source.get(&file.name, *done)?;
        if start != *done {
            // The server sends the whole file, whatever was asked for.
            part.set_len(0).map_err(error())?;
            *done = 0;
        }
        let broke_off = |what: String| HubError::Network { url: url.clone(), what };
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = body.read(&mut buffer).map_err(|e| broke_off(format!("the transfer broke off: {e}")))?;
            if n == 0 {
                break;
            }
            if *done + n as u64 > file.size {
                part.set_len(0).map_err(error())?;
                return Err(self.corrupt(file, format!("more than the announced {} bytes arrived", file.size)));
            }
            part.write_all(&buffer[..n]).map_err(error())?;
            *done += n as u64;
            progress(*done, None);
        }
        if *done < file.size {
            return Err(broke_off(format!("the transfer ended at {done} of {} bytes", file.size)));
        }
        Ok(())
    }

    /// Compares the checksum, where the hub gave one. A file that differs is thrown away.
    fn verify(&self, file: &RemoteFile, part: &mut File, path: &Path) -> Result<(), HubError> {
        let Some(wanted) = &file.sha256 else { return Ok(()) };
        let error = || HubError::cache(path);
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; 1 << 20];
        part.seek(SeekFrom::Start(0)).map_err(error())?;
        loop {
            match part.read(&mut buffer).map_err(error())? {
                0 => break,
                n => hasher.update(&buffer[..n]),
            }
        }
        let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        if found != *wanted {
            fs::remove_file(path).map_err(error())?;
            return Err(self.corrupt(file, format!("SHA-256 is {found}, the hub announced {wanted}")));
        }
        Ok(())
    }

    fn corrupt(&self, file: &RemoteFile, what: String) -> HubError {
        HubError::Corrupt { repo: self.repo.clone(), file: file.name.clone(), what }
    }

    /// Puts the file into the snapshot: a relative link, so that the cache can be moved.
    fn link(&self, file: &RemoteFile, link: &Path) -> Result<(), HubError> {
        create_parent(link)?;
        let blob = self.blob(file);
        // A link whose blob was deleted is in the way.
        if link.symlink_metadata().is_ok() && !link.exists() {
            fs::remove_file(link).map_err(HubError::cache(link))?;
        }
        #[cfg(unix)]
        let made = {
            let up = "../".repeat(2 + file.name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{}", file.etag), link)
        };
        #[cfg(not(unix))]
        let made = fs::copy(&blob, link).map(drop);
        match made {
            // Another process was faster.
            Err(_) if link.exists() => Ok(()),
            made => made.map_err(HubError::cache(&blob)),
        }
    }
}

fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::cache(parent))
}
