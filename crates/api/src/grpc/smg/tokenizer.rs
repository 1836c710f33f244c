//! `GetTokenizer`: the files that a gateway needs to tokenise and template as this server does, as one zip.
//!
//! Which files those are is a fact of the protocol. They stand in its order, with one and the same time, so that servers of one
//! model send the same bytes. A GGUF file has its tokenizer, template and settings inside: they are written out as the files
//! that a folder would have.

use std::{
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;
use vllm_checkpoint::{Checkpoint, SpecialToken};
use vllm_grpc_proto::smg::common::GetTokenizerChunk;
use vllm_text::Tokenizer;
use zip::{CompressionMethod, DateTime, ZipWriter, write::SimpleFileOptions};

use super::Served;

/// Bytes of a chunk.
const CHUNK: usize = 64 << 10;

/// Names of files that are sent where there are such, in this order.
const NAMES: [&str; 13] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "tiktoken.model",
    "chat_template.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
];

/// After these, all files with such names, in alphabetical order.
const EXTENSIONS: [&str; 3] = ["tiktoken", "jinja", "model"];

/// A file's name and what is in it.
type Entry = (String, Vec<u8>);

/// A zip, and what it is known by.
#[derive(Debug)]
pub(super) struct Bundle {
    bytes: Vec<u8>,
    /// SHA-256 of the bytes, in hexadecimal digits.
    sha256: String,
}

impl Bundle {
    /// Reads and packs the files of the model at `path`. Blocks; for a vocabulary of many megabytes, a second or so.
    ///
    /// # Errors
    /// If they can't be read, or there are none.
    pub fn pack(path: &Path, tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let entries = if checkpoint.is_gguf() { written(&checkpoint, tokenizer)? } else { found(checkpoint.path())? };
        anyhow::ensure!(!entries.is_empty(), "{} has no files of a tokenizer", path.display());
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Deflated)
            .last_modified_time(DateTime::default())
            .unix_permissions(0o644);
        let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
        for (name, content) in entries {
            zip.start_file(name, options)?;
            zip.write_all(&content)?;
        }
        let bytes = zip.finish()?.into_inner();
        let sha256 = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self { bytes, sha256 })
    }

    /// The messages that it is sent as; the last one has its digest.
    pub fn chunks(self: Arc<Self>) -> impl Iterator<Item = GetTokenizerChunk> + Send + use<> {
        let count = self.bytes.len().div_ceil(CHUNK);
        (0..count).map(move |index| {
            let data = self.bytes.chunks(CHUNK).nth(index).unwrap_or_default().to_vec();
            let sha256 = if index + 1 == count { self.sha256.clone() } else { String::new() };
            GetTokenizerChunk { data, sha256 }
        })
    }
}

/// The bundle that was last asked for: all gateways of a fleet want the same.
#[derive(Debug, Default)]
pub(super) struct Bundles(Mutex<Option<(PathBuf, u64, Arc<Bundle>)>>);

impl Bundles {
    /// The bundle of that model.
    ///
    /// # Errors
    /// As [`Bundle::pack`], and if the model has no files.
    pub async fn of(&self, served: Served) -> anyhow::Result<Arc<Bundle>> {
        let path = served.path().map(Path::to_owned).context("it was not read from files")?;
        let created = served.created();
        // Whoever comes while it is packed waits for it instead of packing another.
        let mut last = self.0.lock().await;
        if let Some((of, at, bundle)) = &*last
            && (of, *at) == (&path, created)
        {
            return Ok(Arc::clone(bundle));
        }
        let from = path.clone();
        let packed = tokio::task::spawn_blocking(move || Bundle::pack(&from, served.tokenizer())).await??;
        tracing::info!(path = %path.display(), bytes = packed.bytes.len(), sha256 = packed.sha256, "tokenizer packed");
        let bundle = Arc::new(packed);
        *last = Some((path, created, Arc::clone(&bundle)));
        Ok(bundle)
    }
}

/// The files of a folder.
fn found(folder: &Path) -> anyhow::Result<Vec<Entry>> {
    let mut names: Vec<String> = NAMES.map(str::to_owned).into();
    let entries = std::fs::read_dir(folder)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut others: Vec<String> = entries.collect();
    others.sort();
    for extension in EXTENSIONS {
        let such = others.iter().filter(|name| Path::new(name).extension().is_some_and(|it| it == extension));
        let new: Vec<String> = such.filter(|name| !names.contains(name)).cloned().collect();
        names.extend(new);
    }
    let read = |name: String| {
        let path = folder.join(&name);
        path.is_file().then(|| Ok((name, std::fs::read(path)?)))
    };
    names.into_iter().filter_map(read).collect()
}

/// What is inside a GGUF file, as files.
fn written(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> anyhow::Result<Vec<Entry>> {
    let special = checkpoint.special_tokens();
    let mut settings = Map::new();
    settings.insert("tokenizer_class".into(), "PreTrainedTokenizerFast".into());
    let roles = [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("pad_token", special.pad),
        ("unk_token", special.unk),
    ];
    for (role, token) in roles {
        let text = token.and_then(|SpecialToken { text, id }| text.or_else(|| tokenizer.id_to_token(id?)));
        settings.extend(text.map(|text| (role.to_owned(), Value::from(text))));
    }
    let mut templates = checkpoint.chat_templates()?;
    let template = match templates.len() {
        1 => templates.pop_first().map(|(_, template)| Value::from(template)),
        0 => None,
        _ => {
            let named = templates.into_iter().map(|(name, template)| json!({ "name": name, "template": template }));
            Some(named.collect())
        }
    };
    settings.extend(template.map(|template| ("chat_template".to_owned(), template)));
    let mut entries = vec![
        ("tokenizer.json".to_owned(), tokenizer.to_json()?.into_bytes()),
        ("tokenizer_config.json".to_owned(), serde_json::to_vec(&settings)?),
        ("config.json".to_owned(), serde_json::to_vec(checkpoint.config())?),
    ];
    if let Some(config) = checkpoint.generation_config() {
        entries.push(("generation_config.json".to_owned(), serde_json::to_vec(config)?));
    }
    Ok(entries)
}
