//! Which files of a repository make up the model.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::cache::Snapshot;
use super::reference::is_plain_path;
use super::{HubError, Reference};
use crate::directory::index_shards;

/// The file that says which shard holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Extra chat templates live here. Of other folders only the settings of sentence-transformers' modules are wanted.
const TEMPLATES: &str = "additional_chat_templates/";

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) name: String,
    pub(super) size: u64,
    /// Name of its blob in the cache: a git hash, or the SHA-256 of a large file.
    pub(super) etag: String,
    /// Lowercase hex, where the hub gives it.
    pub(super) sha256: Option<String>,
}

/// A repository at one commit.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

impl Listing {
    /// Reads the hub's answer. Files whose names lead out of the repository are left out: nobody needs those.
    pub(super) fn from_answer(answer: &Value) -> Result<Self, String> {
        let is_hash = |s: &str| !s.is_empty() && s.len() <= 128 && s.chars().all(|c| c.is_ascii_alphanumeric());
        let commit = answer["sha"].as_str().filter(|sha| is_hash(sha)).ok_or("has no commit hash (`sha`)")?;
        let siblings = answer["siblings"].as_array().ok_or("has no list of files (`siblings`)")?;
        let mut files = Vec::new();
        for file in siblings {
            let Some(name) = file["rfilename"].as_str().filter(|name| is_plain_path(name)) else { continue };
            let sha256 = file["lfs"]["sha256"].as_str().map(str::to_ascii_lowercase);
            let etag = sha256.as_deref().or(file["blobId"].as_str());
            let size = file["size"].as_u64().or(file["lfs"]["size"].as_u64());
            let (Some(etag), Some(size)) = (etag.filter(|etag| is_hash(etag)), size) else {
                return Err(format!("has no size and hash for {name}"));
            };
            files.push(RemoteFile { name: name.to_owned(), size, etag: etag.to_owned(), sha256 });
        }
        Ok(Self { commit: commit.to_owned(), files })
    }

    /// What a snapshot in the cache holds.
    pub(super) fn of_snapshot(snapshot: &Snapshot) -> Result<Self, HubError> {
        let mut files = Vec::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(folder) = folders.pop() {
            let path = snapshot.path().join(&folder);
            for entry in std::fs::read_dir(&path).map_err(HubError::cache(&path))?.flatten() {
                let inside = folder.join(entry.file_name());
                if entry.path().is_dir() {
                    folders.push(inside);
                } else if let Some(name) = inside.to_str().filter(|_| entry.path().exists()) {
                    // A link whose blob is gone does not exist.
                    files.push(RemoteFile { name: name.to_owned(), size: 0, etag: String::new(), sha256: None });
                }
            }
        }
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Self { commit: String::new(), files })
    }
}

/// The files to have, and which of them to hand out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) files: BTreeSet<String>,
    /// The GGUF file; `None`: the whole folder is the model.
    gguf: Option<String>,
}

impl Wanted {
    /// Chooses among the files of `listing`; `index` is the content of its [`INDEX`], where it has one.
    pub(super) fn choose(reference: &Reference, listing: &Listing, index: Option<Value>) -> Result<Self, HubError> {
        let fail = |what: String| HubError::Contents { repo: reference.repo.clone(), what };
        let names = || listing.files.iter().map(|file| file.name.as_str());
        let ggufs: Vec<&str> = names().filter(|name| name.ends_with(".gguf")).collect();
        let only = |gguf: &str| Self { files: BTreeSet::from([gguf.to_owned()]), gguf: Some(gguf.to_owned()) };

        if let Some(file) = &reference.file {
            if ggufs.contains(&file.as_str()) {
                return Ok(only(file));
            }
            let lower = file.to_ascii_lowercase();
            let matching: Vec<&str> =
                ggufs.iter().copied().filter(|name| name.to_ascii_lowercase().contains(&lower)).collect();
            return match matching[..] {
                [one] => Ok(only(one)),
                [] => Err(fail(format!("no GGUF file matches {file}; there are: {}", list(&ggufs)))),
                _ => Err(fail(format!("{file} matches several GGUF files: {}", list(&matching)))),
            };
        }

        let weights = weights(names(), index).map_err(fail)?;
        if weights.is_empty() {
            return match ggufs[..] {
                [one] => Ok(only(one)),
                [] => Err(fail("holds neither *.safetensors nor *.gguf".to_owned())),
                _ => {
                    let repo = &reference.repo;
                    Err(fail(format!("holds several GGUF files, name one as {repo}:FILE: {}", list(&ggufs))))
                }
            };
        }
        let mut files: BTreeSet<String> = names().filter(|name| is_small_file(name)).map(str::to_owned).collect();
        files.extend(weights);
        files.extend(names().filter(|name| is_voice(name)).map(str::to_owned));
        Ok(Self { files, gguf: None })
    }

    /// The model's path.
    pub(super) fn path(&self, snapshot: &Snapshot) -> PathBuf {
        match &self.gguf {
            Some(file) => snapshot.path().join(file),
            None => snapshot.path().to_owned(),
        }
    }
}

/// The safetensors files to have, by the rule that opening a folder follows.
fn weights<'a>(names: impl Iterator<Item = &'a str>, index: Option<Value>) -> Result<BTreeSet<String>, String> {
    if let Some(index) = index {
        let shards = index_shards(&index).ok_or_else(|| format!("its {INDEX} names no files"))?;
        return Ok(shards.into_iter().map(str::to_owned).collect());
    }
    let all: BTreeSet<String> =
        names.filter(|name| name.ends_with(".safetensors") && !name.contains('/')).map(str::to_owned).collect();
    let model: BTreeSet<String> = all.iter().filter(|name| name.starts_with("model")).cloned().collect();
    Ok(if model.is_empty() { all } else { model })
}

/// Configuration, tokenizer, templates.
fn is_small_file(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    match name.strip_prefix(TEMPLATES) {
        Some(template) => extension == Some("jinja") && !template.contains('/'),
        None if is_module_config(name) => true,
        None => {
            !name.contains('/') && (matches!(extension, Some("json" | "jinja" | "txt")) || name == "tokenizer.model")
        }
    }
}

/// `voices/af_heart.safetensors`, of a model that speaks.
fn is_voice(name: &str) -> bool {
    name.strip_prefix("voices/").is_some_and(|voice| voice.ends_with(".safetensors") && !voice.contains('/'))
}

/// `1_Pooling/config.json` and the like.
fn is_module_config(name: &str) -> bool {
    let module = name.strip_suffix("/config.json").filter(|module| !module.contains('/'));
    module
        .and_then(|module| module.split_once('_'))
        .is_some_and(|(place, _)| !place.is_empty() && place.chars().all(|c| c.is_ascii_digit()))
}

fn list(names: &[&str]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn choose(reference: &str, files: &[&str], index: Option<Value>) -> Result<Vec<String>, String> {
        let file = |name: &&str| RemoteFile { name: (*name).to_owned(), size: 1, etag: "e".into(), sha256: None };
        let listing = Listing { commit: "c".into(), files: files.iter().map(file).collect() };
        let reference = Reference::parse(reference, None).unwrap();
        let wanted = Wanted::choose(&reference, &listing, index).map_err(|e| e.to_string())?;
        Ok(wanted.files.into_iter().collect())
    }

    #[test]
    fn only_what_a_model_needs_is_chosen() {
        let whole = [
            "README.md",
            "config.json",
            "tokenizer.model",
            "chat_template.jinja",
            "merges.txt",
            "model.safetensors",
            "consolidated.safetensors",
            "pytorch_model.bin",
            "onnx/config.json",
            "1_Pooling/config.json",
            "additional_chat_templates/tool_use.jinja",
            "x.gguf",
        ];
        let small = [
            "1_Pooling/config.json",
            "additional_chat_templates/tool_use.jinja",
            "chat_template.jinja",
            "config.json",
            "merges.txt",
        ];
        let folder = [&small[..], &["model.safetensors", "tokenizer.model"]].concat();
        assert_eq!(choose("o/n", &whole, None).unwrap(), folder, "one file of weights");
        let index = json!({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}});
        let sharded = [&small[..], &["model-1.safetensors", "model-2.safetensors", "tokenizer.model"]].concat();
        assert_eq!(choose("o/n", &whole, Some(index)).unwrap(), sharded, "the index decides");
        let old = choose("o/n", &["config.json", "weights.00.safetensors"], None).unwrap();
        assert_eq!(old, ["config.json", "weights.00.safetensors"], "another name");
        let voices =
            ["config.json", "kokoro.safetensors", "voices/a.safetensors", "voices/a.pt", "voices/x/b.safetensors"];
        let spoken = choose("o/n", &voices, None).unwrap();
        assert_eq!(spoken, ["config.json", "kokoro.safetensors", "voices/a.safetensors"], "a model that speaks");
        assert_eq!(choose("o/n:x.gguf", &whole, None).unwrap(), ["x.gguf"], "a GGUF file that was asked for");
        assert_eq!(choose("o/n", &["README.md", "only.gguf"], None).unwrap(), ["only.gguf"], "nothing else there");
    }

    #[test]
    fn a_gguf_file_is_found_by_part_of_its_name() {
        let files = ["m-Q4_K_M.gguf", "m-Q4_K_S.gguf", "m-Q8_0.gguf"];
        assert_eq!(choose("o/n:q4_k_m", &files, None).unwrap(), ["m-Q4_K_M.gguf"]);
        for (reference, wanted) in [
            ("o/n:Q4_K", "Q4_K matches several GGUF files: m-Q4_K_M.gguf, m-Q4_K_S.gguf"),
            ("o/n:Q2_K", "no GGUF file matches Q2_K; there are: m-Q4_K_M.gguf, m-Q4_K_S.gguf, m-Q8_0.gguf"),
            ("o/n", "holds several GGUF files, name one as o/n:FILE: m-Q4_K_M.gguf"),
        ] {
            let error = choose(reference, &files, None).unwrap_err();
            assert!(error.contains(wanted), "{reference}: {error}");
        }
        assert!(choose("o/n", &["README.md"], None).unwrap_err().contains("neither *.safetensors nor *.gguf"));
    }

    #[test]
    fn an_index_cannot_lead_out_of_the_folder() {
        for shard in ["../x.safetensors", "/etc/passwd", "..", ""] {
            let index = json!({"weight_map": {"a": shard}});
            assert!(choose("o/n", &["config.json"], Some(index)).is_err(), "{shard:?}");
        }
    }

    #[test]
    fn answers_are_checked() {
        let good = json!({"sha": "abc", "siblings": [
            {"rfilename": "a.json", "size": 3, "blobId": "b1"},
            {"rfilename": "../../evil", "size": 3, "blobId": "b2"},
            {"rfilename": "w.safetensors", "size": 9, "blobId": "b3", "lfs": {"sha256": "AB12", "size": 9}},
        ]});
        let names: Vec<_> = Listing::from_answer(&good).unwrap().files.into_iter().map(|f| (f.name, f.etag)).collect();
        assert_eq!(names, [("a.json".into(), "b1".into()), ("w.safetensors".into(), "ab12".to_owned())]);
        for (answer, wanted) in [
            (json!({}), "no commit hash"),
            (json!({"sha": "../x", "siblings": []}), "no commit hash"),
            (json!({"sha": "abc"}), "no list of files"),
            (json!({"sha": "abc", "siblings": [{"rfilename": "a"}]}), "no size and hash for a"),
            (json!({"sha": "abc", "siblings": [{"rfilename": "a", "size": 1, "blobId": "../b"}]}), "no size and hash"),
        ] {
            let error = Listing::from_answer(&answer).unwrap_err();
            assert!(error.contains(wanted), "{answer}: {error}");
        }
    }
}
