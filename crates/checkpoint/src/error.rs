//! What can be wrong with a model's files, told in one line that names the file.

use std::path::{Path, PathBuf};

use crate::hub::HubError;

/// Shorthand for this crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a checkpoint could not be opened or read.
///
/// Every message is one line, names the file, and says what would have been right.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to open, map or read a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is there but does not hold what its kind of file must hold: truncated, wrong magic, bad JSON, …
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
    /// The path is not a model folder nor a GGUF file.
    #[error("{}: {what}", path.display())]
    NotAModel {
        /// The path that was given.
        path: PathBuf,
        /// What is missing.
        what: String,
    },
    /// The file is sound but uses something this crate does not read.
    #[error("{}: {what}", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What it uses, and what is supported instead.
        what: String,
    },
    /// A tensor was asked for that the checkpoint does not have.
    #[error("{}: no tensor `{name}`{}", path.display(), did_you_mean(nearest))]
    MissingTensor {
        /// The model folder or file.
        path: PathBuf,
        /// The name that was asked for.
        name: String,
        /// The most similar names that are there, best first.
        nearest: Vec<String>,
    },
    /// A model could not be fetched from the hub.
    #[error(transparent)]
    Hub(#[from] HubError),
}

impl Error {
    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Self::Io { path: path.to_owned(), source }
    }

    pub(crate) fn malformed(path: &Path, what: impl Into<String>) -> Self {
        Self::Malformed { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn not_a_model(path: &Path, what: impl Into<String>) -> Self {
        Self::NotAModel { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn unsupported(path: &Path, what: impl Into<String>) -> Self {
        Self::Unsupported { path: path.to_owned(), what: what.into() }
    }

    /// `MissingTensor` with the names of `known` that look most like `name`.
    pub(crate) fn missing<'a>(path: &Path, name: &str, known: impl Iterator<Item = &'a str>) -> Self {
        let mut ranked: Vec<(usize, &str)> = known.map(|k| (edit_distance(name, k), k)).collect();
        ranked.sort_unstable();
        let nearest = ranked.iter().take(3).map(|(_, k)| (*k).to_owned()).collect();
        Self::MissingTensor { path: path.to_owned(), name: name.to_owned(), nearest }
    }
}

fn did_you_mean(nearest: &[String]) -> String {
    if nearest.is_empty() {
        return String::new();
    }
    format!("; the nearest names are {}", nearest.join(", "))
}

/// Levenshtein distance over bytes; tensor names are ASCII.
fn edit_distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replace = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_changes() {
        for (a, b, wanted) in [("", "abc", 3), ("abc", "abc", 0), ("kitten", "sitting", 3), ("q_proj", "k_proj", 1)] {
            assert_eq!(edit_distance(a, b), wanted, "{a} → {b}");
        }
    }

    #[test]
    fn a_missing_tensor_is_told_with_the_nearest_names() {
        let known = ["model.layers.0.self_attn.q_proj.weight", "model.norm.weight", "lm_head.weight", "x"];
        let error = Error::missing(Path::new("m"), "model.layers.0.self_attn.k_proj.weight", known.into_iter());
        let text = error.to_string();
        assert!(text.starts_with("m: no tensor `model.layers.0.self_attn.k_proj.weight`; the nearest names are model.layers.0.self_attn.q_proj.weight, "), "{text}");
        assert_eq!(text.lines().count(), 1);
    }
}
