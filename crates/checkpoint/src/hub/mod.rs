//! Models by name: `org/name` on a Hugging Face hub → a path in the standard cache.
//!
//! The cache is the one that Python's `huggingface_hub` and the `hf` command use, in the same layout, so that either
//! finds what the other fetched. The layout and the hub's addresses come from the `hf-hub` crate; the transfers are ours,
//! because 0.5's (the newest with a blocking client; 1.0 is async and needs its own storage protocol) asks for a range
//! past the end when a finished part is left over, appends a whole file when a server ignores the range, fetches blobs
//! that are there already, compares no sizes or checksums, and waits for ever on a silent connection.
//!
//! One request lists a repository's files with their sizes and hashes; what the cache has is not asked for again.

mod cache;
mod client;
mod inventory;
mod options;
mod plan;
mod reference;

use std::path::{Path, PathBuf};

use self::cache::RepoCache;
use self::client::{Client, Source};
pub use self::inventory::{CachedModel, list, remove};
pub use self::options::HubOptions;
use self::plan::{Listing, Wanted};
use self::reference::Reference;
use crate::error::Result;

/// What a download tells about itself while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress<'a> {
    /// The files are known; sent once, before the first byte.
    Plan {
        /// Files the model needs.
        files: usize,
        /// Their size together.
        bytes: u64,
        /// How much of that is on disk already.
        present: u64,
    },
    /// Some more of a file has arrived.
    Bytes {
        /// Name in the repository.
        file: &'a str,
        /// Bytes of this file on disk.
        done: u64,
        /// Its whole size.
        size: u64,
        /// Bytes on disk of all files of the plan.
        overall: u64,
    },
    /// A transfer broke off and will go on from where it stopped.
    Retry {
        /// Name in the repository.
        file: &'a str,
        /// What happened.
        why: &'a str,
    },
    /// The hub cannot be reached; the cached model is used as it is.
    Unreachable {
        /// What happened.
        why: &'a str,
    },
}

/// Why a model could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// Neither a path that exists nor the name of a model.
    #[error("{model}: no such file or folder, and not a model on the hub (those are named org/name)")]
    NotAName {
        /// What was given.
        model: String,
    },
    /// A model to be removed isn't there.
    #[error("{repo} is not in the cache at {}", .cache.display())]
    NotCached {
        /// `org/name`.
        repo: String,
        /// The cache.
        cache: PathBuf,
    },
    /// The hub does not know the repository or revision, or hides it.
    #[error(
        "{repo}: no such folder here, and the hub has no such model at revision {revision} (if it is private, set HF_TOKEN)"
    )]
    NotFound {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit.
        revision: String,
    },
    /// The hub wants to know who asks.
    #[error(
        "{repo}: the hub asks for a token (gated, private, or no such model): accept the model's terms on its page and set HF_TOKEN"
    )]
    NeedsToken {
        /// `org/name`.
        repo: String,
    },
    /// The hub knows who asks, and refuses.
    #[error(
        "{repo}: the hub refuses access with this HF_TOKEN: accept the model's terms on its page, or use another token"
    )]
    Forbidden {
        /// `org/name`.
        repo: String,
    },
    /// The hub answered with an error.
    #[error("{url}: the hub answered {status}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status code.
        status: u16,
    },
    /// The hub could not be reached, or broke off.
    #[error("{url}: {what}")]
    Network {
        /// What was asked for.
        url: String,
        /// What happened.
        what: String,
    },
    /// The hub's answer made no sense.
    #[error("{url}: {what}; is HF_ENDPOINT a Hugging Face hub?")]
    Answer {
        /// What was asked for.
        url: String,
        /// What is wrong with the answer.
        what: String,
    },
    /// The repository does not hold what is needed.
    #[error("{repo}: {what}")]
    Contents {
        /// `org/name`.
        repo: String,
        /// What is missing or ambiguous.
        what: String,
    },
    /// Offline, and the cache lacks something.
    #[error("{repo}: offline (HF_HUB_OFFLINE), and the cache at {} lacks {missing}; run once online", cache.display())]
    Offline {
        /// `org/name`.
        repo: String,
        /// Root of the cache.
        cache: PathBuf,
        /// What is missing.
        missing: String,
    },
    /// A downloaded file is not what the hub announced.
    #[error("{repo}/{file}: {what}; the download was discarded, try again")]
    Corrupt {
        /// `org/name`.
        repo: String,
        /// Name in the repository.
        file: String,
        /// What differs.
        what: String,
    },
    /// The cache folder could not be written.
    #[error("{}: {source}", path.display())]
    Cache {
        /// File or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
}

impl HubError {
    fn cache(path: &Path) -> impl FnOnce(std::io::Error) -> Self + '_ {
        move |source| Self::Cache { path: path.to_owned(), source }
    }
}

/// Finds a model: a path that exists is itself; anything else must be a hub id, fetched into the cache as needed.
///
/// Ids are `org/name`, with `@revision` for a branch, tag or commit, and `:file.gguf` (or part of its name, such as
/// `:Q4_K_M`) for one GGUF file of a repository: `org/name@v1:Q4_K_M`. Without a file, the safetensors model is fetched,
/// else the only GGUF file. The answer is a folder, or a `.gguf` file.
///
/// An interrupted download goes on where it stopped, in the same call and in a later one. When the hub cannot be
/// reached and the cache has the whole model, the cache is used.
///
/// ```no_run
/// use vllm_checkpoint::hub::{self, HubOptions, Progress};
///
/// let path = hub::resolve("mlx-community/Qwen3-0.6B-4bit", &HubOptions::from_env(), &mut |progress| {
///     if let Progress::Bytes { file, done, size, .. } = progress {
///         eprint!("\r{file}: {done} of {size} bytes");
///     }
/// })?;
/// # Ok::<(), vllm_checkpoint::Error>(())
/// ```
///
/// # Errors
/// [`HubError`], inside [`Error::Hub`](crate::Error::Hub).
pub fn resolve(model: &str, options: &HubOptions, progress: &mut dyn FnMut(Progress<'_>)) -> Result<PathBuf> {
    if Path::new(model).exists() {
        return Ok(PathBuf::from(model));
    }
    let reference = Reference::parse(model, options.revision.as_deref())?;
    let cache = RepoCache::new(options.cache_dir()?, &reference);
    if options.offline {
        return Ok(cached(&cache, &reference)?);
    }
    // A commit never changes: if it is here, there is nothing to ask.
    if reference.is_commit()
        && let Ok(path) = cached(&cache, &reference)
    {
        return Ok(path);
    }
    match fetch(&reference, &cache, options, progress) {
        Err(HubError::Network { url, what }) => {
            let path = cached(&cache, &reference).map_err(|_| HubError::Network { url, what: what.clone() })?;
            progress(Progress::Unreachable { why: &what });
            Ok(path)
        }
        other => Ok(other?),
    }
}

/// The model as the cache has it.
fn cached(cache: &RepoCache, reference: &Reference) -> Result<PathBuf, HubError> {
    let lacks =
        |missing: String| HubError::Offline { repo: reference.repo.clone(), cache: cache.root().to_owned(), missing };
    let snapshot = cache.snapshot_of(&reference.revision).ok_or_else(|| lacks("this model".to_owned()))?;
    let listing = Listing::of_snapshot(&snapshot)?;
    let wanted = Wanted::choose(reference, &listing, snapshot.index()).map_err(|e| match e {
        HubError::Contents { what, .. } => lacks(format!("the weights ({what})")),
        other => other,
    })?;
    match wanted.files.iter().find(|file| !snapshot.path().join(file).exists()) {
        Some(missing) => Err(lacks(missing.clone())),
        None => Ok(wanted.path(&snapshot)),
    }
}

fn fetch(
    reference: &Reference,
    cache: &RepoCache,
    options: &HubOptions,
    progress: &mut dyn FnMut(Progress<'_>),
) -> Result<PathBuf, HubError> {
    let client = Client::new(reference, options)?;
    let listing = client.list()?;
    let snapshot = cache.snapshot(&listing.commit);
    // The index says which shards there are, so it comes before the plan.
    let source = Source { client: &client, commit: &listing.commit };
    if let Some(index) = listing.files.iter().find(|file| file.name == plan::INDEX) {
        cache.fetch(index, &snapshot, source, &mut |_, _| ())?;
    }
    let wanted = Wanted::choose(reference, &listing, snapshot.index())?;
    let files: Vec<_> = listing.files.iter().filter(|file| wanted.files.contains(&file.name)).collect();
    let bytes = files.iter().map(|file| file.size).sum();
    let mut overall = files.iter().map(|file| cache.present(file, &snapshot)).sum();
    progress(Progress::Plan { files: files.len(), bytes, present: overall });
    for file in files {
        let mut on_disk = cache.present(file, &snapshot);
        cache.fetch(file, &snapshot, source, &mut |done, why| {
            overall = overall - on_disk + done;
            on_disk = done;
            progress(match why {
                Some(why) => Progress::Retry { file: &file.name, why },
                None => Progress::Bytes { file: &file.name, done, size: file.size, overall },
            });
        })?;
    }
    cache.point(&reference.revision, &listing.commit)?;
    Ok(wanted.path(&snapshot))
}
