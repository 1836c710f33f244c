//! What the cache holds, and taking it out again.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use super::{HubError, HubOptions, Reference};
use crate::error::Result;

/// Folders of models in the cache begin with this; others are of data sets.
const PREFIX: &str = "models--";

/// A model in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CachedModel {
    /// `org/name`.
    pub repo: String,
    /// Branches, tags and commits that are here, in whole or in part.
    pub revisions: Vec<String>,
    /// Bytes on disk, each file once however many revisions have it.
    pub bytes: u64,
    /// Bytes of downloads that broke off.
    pub unfinished: u64,
    /// When a file of it was last written.
    pub modified: Option<SystemTime>,
}

/// All models of the cache, by name.
///
/// # Errors
/// [`HubError`] if the cache can't be read; one that isn't there holds nothing.
pub fn list(options: &HubOptions) -> Result<Vec<CachedModel>> {
    let root = options.cache_dir()?;
    let entries = match fs::read_dir(&root) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(HubError::cache(&root))?,
    };
    let mut models = Vec::new();
    for entry in entries.flatten() {
        if let Some(repo) = entry.file_name().to_str().and_then(repo_of_folder) {
            models.push(inspect(repo, &entry.path()));
        }
    }
    models.sort_by(|a, b| a.repo.cmp(&b.repo));
    Ok(models)
}

/// Takes a model, `org/name`, out of the cache with all its revisions; returns what it was.
///
/// # Errors
/// [`HubError::NotCached`] if it isn't there; [`HubError`] if its files can't be removed.
pub fn remove(model: &str, options: &HubOptions) -> Result<CachedModel> {
    let reference = Reference::parse(model, None)?;
    let root = options.cache_dir()?;
    let folder = root.join(format!("{PREFIX}{}", reference.repo.replace('/', "--")));
    if !folder.is_dir() {
        return Err(HubError::NotCached { repo: reference.repo, cache: root }.into());
    }
    let found = inspect(reference.repo, &folder);
    // In one step, so that nobody finds half of it.
    let doomed = root.join(format!(".removing-{}-{}", std::process::id(), folder_name(&folder)));
    fs::rename(&folder, &doomed).map_err(HubError::cache(&folder))?;
    fs::remove_dir_all(&doomed).map_err(HubError::cache(&doomed))?;
    let _ = fs::remove_dir_all(root.join(".locks").join(folder_name(&folder)));
    Ok(found)
}

fn folder_name(folder: &Path) -> String {
    folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// `models--org--name` → `org/name`. A name may hold two dashes of its own; an owner's may not.
fn repo_of_folder(folder: &str) -> Option<String> {
    let (owner, name) = folder.strip_prefix(PREFIX)?.split_once("--")?;
    Some(format!("{owner}/{name}"))
}

fn inspect(repo: String, folder: &Path) -> CachedModel {
    let mut model = CachedModel { repo, revisions: Vec::new(), bytes: 0, unfinished: 0, modified: None };
    for path in files(&folder.join("blobs")) {
        let Ok(metadata) = fs::metadata(&path) else { continue };
        model.bytes += metadata.len();
        if path.extension().is_some_and(|extension| extension == "incomplete") {
            model.unfinished += metadata.len();
        }
        model.modified = model.modified.max(metadata.modified().ok());
    }
    let mut pointed = Vec::new();
    let refs = folder.join("refs");
    for path in files(&refs) {
        if let Ok(name) = path.strip_prefix(&refs) {
            model.revisions.push(name.to_string_lossy().into_owned());
            pointed.extend(fs::read_to_string(&path).map(|commit| commit.trim().to_owned()));
        }
    }
    let snapshots = fs::read_dir(folder.join("snapshots")).into_iter().flatten().flatten();
    let commits = snapshots.map(|entry| entry.file_name().to_string_lossy().into_owned());
    model.revisions.extend(commits.filter(|commit| !pointed.contains(commit)));
    model.revisions.sort();
    model
}

/// The files below a folder: a branch's name may hold slashes.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(_) => found.push(entry.path()),
            Err(_) => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, path: &str, content: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    #[test]
    fn models_are_listed_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let options = HubOptions { cache: Some(dir.path().join("hub")), ..HubOptions::default() };
        assert_eq!(list(&options).unwrap(), []);

        let root = dir.path().join("hub");
        write(&root, "models--org--a--b/blobs/1", "12345");
        write(&root, "models--org--a--b/blobs/2.incomplete", "123");
        write(&root, "models--org--a--b/refs/main", "c1\n");
        write(&root, "models--org--a--b/refs/pr/1", "c2");
        write(&root, "models--org--a--b/snapshots/c1/config.json", "");
        write(&root, "models--org--a--b/snapshots/c3/config.json", "");
        write(&root, "datasets--org--d/blobs/1", "x");
        write(&root, ".locks/models--org--a--b/1.lock", "");
        let models = list(&options).unwrap();
        let [model] = models.as_slice() else { panic!("{models:?}") };
        assert_eq!((model.repo.as_str(), model.bytes, model.unfinished), ("org/a--b", 8, 3));
        assert_eq!(model.revisions, ["c3", "main", "pr/1"]);

        assert!(remove("org/none", &options).unwrap_err().to_string().contains("org/none"));
        assert!(remove("../escape", &options).is_err());
        assert_eq!(remove("org/a--b", &options).unwrap().bytes, 8);
        assert_eq!(list(&options).unwrap(), []);
        let left: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
