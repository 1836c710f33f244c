//! One face for every kind of checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config;
use crate::directory::ModelDirectory;
use crate::error::{Error, Result};
use crate::gguf::GgufModel;
use crate::sentence::SentenceModel;
use crate::tensor::{TensorData, TensorSpec};
use crate::tokenizer::{SpecialTokens, TextFiles, TokenizerSource};

/// An opened model: a folder of safetensors or one GGUF file, its weights mapped into memory.
///
/// Opening reads the small files and every header, checks that all tensors lie inside their files, and touches no
/// weight. All methods take `&self`: threads may read tensors side by side.
///
/// ```no_run
/// use vllm_checkpoint::{Checkpoint, TensorData};
///
/// let model = Checkpoint::open("SmolLM2-135M-Instruct.Q4_1.gguf".as_ref())?;
/// assert_eq!(model.architecture()?, "LlamaForCausalLM");
/// match model.tensor("model.layers.0.self_attn.q_proj.weight")? {
///     TensorData::Quantized(q) => println!("{} bits, groups of {}, {:?}", q.bits, q.group_size, q.shape),
///     TensorData::Dense(t) => println!("{} {:?}", t.dtype, t.shape),
/// }
/// # Ok::<(), vllm_checkpoint::Error>(())
/// ```
#[derive(Debug)]
pub struct Checkpoint(Source);

#[derive(Debug)]
enum Source {
    Directory { weights: Box<ModelDirectory>, text: Box<TextFiles> },
    Gguf(Box<GgufModel>),
}

impl Checkpoint {
    /// Opens a model folder (Hugging Face's or MLX's layout) or a `.gguf` file. A folder without config.json that
    /// holds a single `.gguf` counts as that file.
    ///
    /// # Errors
    /// When something is missing, truncated, inconsistent or not supported; the message names the file.
    pub fn open(path: &Path) -> Result<Self> {
        let metadata = std::fs::metadata(path).map_err(|e| Error::io(path, e))?;
        if metadata.is_file() {
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                return Err(Error::not_a_model(path, "weights alone; give the folder that holds config.json as well"));
            }
            return Ok(Self(Source::Gguf(Box::new(GgufModel::open(path)?))));
        }
        if !path.join("config.json").exists()
            && let Some(gguf) = only_gguf(path)?
        {
            return Self::open(&gguf);
        }
        let weights = Box::new(ModelDirectory::open(path)?);
        Ok(Self(Source::Directory { weights, text: Box::new(TextFiles::open(path)?) }))
    }

    /// The folder or file that is open.
    pub fn path(&self) -> &Path {
        match &self.0 {
            Source::Directory { weights, .. } => weights.path(),
            Source::Gguf(gguf) => gguf.path(),
        }
    }

    /// Whether this is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        matches!(self.0, Source::Gguf(_))
    }

    /// The files that hold weights, shards in order.
    pub fn weight_files(&self) -> Vec<&Path> {
        match &self.0 {
            Source::Directory { weights, .. } => weights.weight_files().collect(),
            Source::Gguf(gguf) => vec![gguf.path()],
        }
    }

    /// `config.json`, with Hugging Face's keys. Made from the metadata for GGUF: the keys the model families read, and
    /// MLX's `quantization`.
    pub fn config(&self) -> &Value {
        match &self.0 {
            Source::Directory { weights, .. } => weights.config(),
            Source::Gguf(gguf) => gguf.config(),
        }
    }

    /// `config.architectures[0]`, such as `LlamaForCausalLM`.
    ///
    /// # Errors
    /// When config.json does not say.
    pub fn architecture(&self) -> Result<&str> {
        match &self.0 {
            Source::Directory { weights, .. } => config::architecture(weights.config(), &weights.config_path()),
            Source::Gguf(gguf) => config::architecture(gguf.config(), gguf.path()),
        }
    }

    /// `generation_config.json`; made from the metadata for GGUF.
    pub fn generation_config(&self) -> Option<&Value> {
        match &self.0 {
            Source::Directory { text, .. } => text.generation_config(),
            Source::Gguf(gguf) => Some(gguf.generation_config()),
        }
    }

    /// Another JSON object beside `config.json`, such as `preprocessor_config.json`; `None` where there is no such file,
    /// or for GGUF.
    ///
    /// # Errors
    /// When the file can't be read, or holds anything but an object.
    pub fn side_file(&self, name: &str) -> Result<Option<Value>> {
        match &self.0 {
            Source::Directory { weights, .. } => config::read_object_if_present(&weights.path().join(name)),
            Source::Gguf(_) => Ok(None),
        }
    }

    /// Every weight's name in Hugging Face's style, sorted. The scales and biases of a quantized weight belong to it and
    /// are not listed.
    pub fn tensor_names(&self) -> impl Iterator<Item = &str> {
        let names = match &self.0 {
            Source::Directory { weights, .. } => weights.names(),
            Source::Gguf(gguf) => gguf.names(),
        };
        names.iter().map(String::as_str)
    }

    /// Shape and storage of a tensor, from the headers alone.
    ///
    /// # Errors
    /// [`Error::MissingTensor`], with the nearest names.
    pub fn spec(&self, name: &str) -> Result<TensorSpec> {
        match &self.0 {
            Source::Directory { weights, .. } => weights.spec(name),
            Source::Gguf(gguf) => gguf.spec(name),
        }
    }

    /// One weight. Borrowed from the mapped file where the file holds it in the wanted form, which safetensors always
    /// do; GGUF's quantized blocks are rearranged into new memory, on several threads when large.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] with the nearest names; [`Error::Malformed`] when the parts of a quantized weight do not
    /// fit together.
    pub fn tensor(&self, name: &str) -> Result<TensorData<'_>> {
        match &self.0 {
            Source::Directory { weights, .. } => weights.tensor(name),
            Source::Gguf(gguf) => gguf.tensor(name),
        }
    }

    /// Advises the system that this tensor's part of the file will not be read again soon, so that the pages stop
    /// counting as the process's memory. For callers that have copied it. Reading it again still works.
    pub fn release(&self, name: &str) {
        match &self.0 {
            Source::Directory { weights, .. } => weights.release(name),
            Source::Gguf(gguf) => gguf.release(name),
        }
    }

    /// Where the tokenizer is.
    ///
    /// # Errors
    /// When there is none, or when the vocabulary in a GGUF file is damaged.
    pub fn tokenizer(&self) -> Result<TokenizerSource> {
        match &self.0 {
            Source::Directory { text, .. } => text.tokenizer(),
            Source::Gguf(gguf) => gguf.vocab().map(|vocab| TokenizerSource::Gguf(Box::new(vocab))),
        }
    }

    /// Every chat template by name; most models have only `default`, some a `tool_use` beside it.
    ///
    /// # Errors
    /// When a template file cannot be read.
    pub fn chat_templates(&self) -> Result<BTreeMap<String, String>> {
        match &self.0 {
            Source::Directory { text, .. } => text.chat_templates(),
            Source::Gguf(gguf) => gguf.chat_templates(),
        }
    }

    /// The chat template to use when nobody asks for another: the one named `default`, or the only one.
    ///
    /// # Errors
    /// As [`chat_templates`](Self::chat_templates).
    pub fn chat_template(&self) -> Result<Option<String>> {
        let mut templates = self.chat_templates()?;
        let default = templates.remove("default");
        Ok(default.or_else(|| if templates.len() == 1 { templates.pop_first().map(|(_, t)| t) } else { None }))
    }

    /// How an embedding model pools, as sentence-transformers' `modules.json` has it; `None` for any other model.
    ///
    /// # Errors
    /// When the files are malformed, or ask for what is not supported.
    pub fn sentence_model(&self) -> Result<Option<SentenceModel>> {
        match &self.0 {
            Source::Directory { text, .. } => text.sentence_model(),
            Source::Gguf(_) => Ok(None),
        }
    }

    /// Longest text for an encoder, in tokens, as far as the files beside `config.json` limit it.
    ///
    /// # Errors
    /// When a file is malformed.
    pub fn max_input_tokens(&self) -> Result<Option<usize>> {
        match &self.0 {
            Source::Directory { text, .. } => text.max_input_tokens(),
            Source::Gguf(_) => Ok(None),
        }
    }

    /// The tokens with roles, as far as the files name them.
    pub fn special_tokens(&self) -> SpecialTokens {
        match &self.0 {
            Source::Directory { weights, text } => text.special_tokens(weights.config()),
            Source::Gguf(gguf) => gguf.special_tokens(),
        }
    }
}

/// The GGUF file of a folder that holds no other.
fn only_gguf(path: &Path) -> Result<Option<PathBuf>> {
    let entries = std::fs::read_dir(path).map_err(|e| Error::io(path, e))?;
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|e| e.path()).filter(|p| p.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    if files.len() > 1 {
        let names: Vec<_> = files.iter().filter_map(|f| f.file_name()).map(|n| n.to_string_lossy()).collect();
        return Err(Error::not_a_model(
            path,
            format!("holds several GGUF files, give one of them: {}", names.join(", ")),
        ));
    }
    Ok(files.pop())
}
