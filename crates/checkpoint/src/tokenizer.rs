//! Where a checkpoint keeps its tokenizer, special tokens and chat templates.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

use crate::config::read_object_if_present;
use crate::error::{Error, Result};
use crate::sentence::{self, SentenceModel};

/// Where the tokenizer is.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizerSource {
    /// A `tokenizer.json` of Hugging Face's `tokenizers`.
    Json(PathBuf),
    /// The vocabulary inside a GGUF file.
    Gguf(Box<GgufVocab>),
}

/// What a token of a [`GgufVocab`] is; the numbers are the file's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenType {
    /// 1, and anything not listed: ordinary text.
    Normal,
    /// 2: stands for what the vocabulary cannot say.
    Unknown,
    /// 3: a control token such as `<|im_start|>`; special.
    Control,
    /// 4: added by the model's maker; matched whole, shown as text.
    UserDefined,
    /// 5: a reserved row.
    Unused,
    /// 6: one raw byte, written `<0x0A>`.
    Byte,
}

/// A tokenizer as GGUF stores it. Which pre-tokenizer `pre` names is for the text layer to know.
#[derive(Debug, Clone, PartialEq)]
pub struct GgufVocab {
    /// `gpt2` (byte-level BPE), `llama` (SentencePiece with scores), …
    pub model: String,
    /// Name of the pre-tokenizer, such as `smollm`, `qwen2`, `llama-bpe`.
    pub pre: Option<String>,
    /// Token texts by id; byte-level ones in GPT-2's printable alphabet, as in the file.
    pub tokens: Vec<String>,
    /// SentencePiece log-probabilities by id; empty when the file has none.
    pub scores: Vec<f32>,
    /// By id; empty when the file has none.
    pub token_types: Vec<TokenType>,
    /// BPE merges, best first: two tokens separated by one space. Empty for SentencePiece models.
    pub merges: Vec<String>,
    /// Begin of text.
    pub bos_id: Option<u32>,
    /// End of text or of a turn.
    pub eos_id: Option<u32>,
    /// Unknown text.
    pub unk_id: Option<u32>,
    /// Padding.
    pub pad_id: Option<u32>,
    /// Whether an encoded text starts with `bos`; `None` leaves it to the model's convention.
    pub add_bos: Option<bool>,
    /// Whether an encoded text ends with `eos`.
    pub add_eos: Option<bool>,
    /// Whether SentencePiece text gets a leading space.
    pub add_space_prefix: Option<bool>,
}

/// A token with a role; either half may be unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialToken {
    /// Its text, such as `<|im_end|>`.
    pub text: Option<String>,
    /// Its id.
    pub id: Option<u32>,
}

/// The tokens with roles that a checkpoint's files name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begin of text.
    pub bos: Option<SpecialToken>,
    /// End of text, as the tokenizer's own settings name it.
    pub eos: Option<SpecialToken>,
    /// Padding.
    pub pad: Option<SpecialToken>,
    /// Unknown text.
    pub unk: Option<SpecialToken>,
    /// Every token that ends generation: those of `generation_config.json`, `config.json` and the tokenizer together,
    /// in this order, without repeats.
    pub eos_ids: Vec<u32>,
    /// Whether the files ask for `bos` before every text; `None` where they don't say.
    pub add_bos: Option<bool>,
    /// Whether the files ask for `eos` after every text.
    pub add_eos: Option<bool>,
}

/// The small text-side files of a model folder.
#[derive(Debug)]
pub(crate) struct TextFiles {
    path: PathBuf,
    tokenizer_config: Value,
    special_tokens_map: Value,
    generation_config: Option<Value>,
}

impl TextFiles {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let optional = |name: &str| read_object_if_present(&path.join(name));
        Ok(Self {
            path: path.to_owned(),
            tokenizer_config: optional("tokenizer_config.json")?.unwrap_or_default(),
            special_tokens_map: optional("special_tokens_map.json")?.unwrap_or_default(),
            generation_config: optional("generation_config.json")?,
        })
    }

    pub(crate) fn generation_config(&self) -> Option<&Value> {
        self.generation_config.as_ref()
    }

    pub(crate) fn sentence_model(&self) -> Result<Option<SentenceModel>> {
        sentence::read(&self.path)
    }

    pub(crate) fn max_input_tokens(&self) -> Result<Option<usize>> {
        sentence::max_input_tokens(&self.path, &self.tokenizer_config)
    }

    pub(crate) fn tokenizer(&self) -> Result<TokenizerSource> {
        let json = self.path.join("tokenizer.json");
        if json.is_file() {
            return Ok(TokenizerSource::Json(json));
        }
        let hint = if self.path.join("tokenizer.model").is_file() {
            "; tokenizer.model alone is not supported, save the tokenizer in its fast form"
        } else {
            ""
        };
        Err(Error::not_a_model(&self.path, format!("no tokenizer.json{hint}")))
    }

    /// Chat templates by name. A `.jinja` file wins over the same template in JSON, as in transformers.
    pub(crate) fn chat_templates(&self) -> Result<BTreeMap<String, String>> {
        let mut templates = BTreeMap::new();
        let multimodal = read_object_if_present(&self.path.join("chat_template.json"))?.unwrap_or_default();
        for source in [&multimodal["chat_template"], &self.tokenizer_config["chat_template"]] {
            match source {
                Value::String(template) => drop(templates.insert("default".to_owned(), template.clone())),
                Value::Array(named) => {
                    for entry in named {
                        if let (Some(name), Some(template)) = (entry["name"].as_str(), entry["template"].as_str()) {
                            templates.insert(name.to_owned(), template.to_owned());
                        }
                    }
                }
                _ => {}
            }
        }
        let mut files = vec![("default".to_owned(), self.path.join("chat_template.jinja"))];
        if let Ok(folder) = std::fs::read_dir(self.path.join("additional_chat_templates")) {
            files.extend(folder.flatten().map(|e| e.path()).filter_map(|file| {
                let name = file.file_stem()?.to_str()?.to_owned();
                (file.extension()? == "jinja").then_some((name, file))
            }));
        }
        for (name, file) in files {
            match std::fs::read_to_string(&file) {
                Ok(template) => drop(templates.insert(name, template)),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                Err(e) => return Err(Error::io(&file, e)),
            }
        }
        Ok(templates)
    }

    pub(crate) fn special_tokens(&self, config: &Value) -> SpecialTokens {
        let added = AddedTokens::new(&self.tokenizer_config, &self.path.join("tokenizer.json"));
        let generation = self.generation_config.as_ref().unwrap_or(&Value::Null);
        let role = |name: &str| {
            let key = format!("{name}_token");
            let text = token_text(&self.tokenizer_config[&key]).or_else(|| token_text(&self.special_tokens_map[&key]));
            let id = match &text {
                Some(text) => added.id(text),
                None => ids(&config[format!("{name}_token_id")]).next(),
            };
            (text.is_some() || id.is_some()).then(|| SpecialToken { text: text.or_else(|| added.text(id?)), id })
        };
        let eos = role("eos");
        let mut eos_ids = Vec::new();
        let named = [&generation["eos_token_id"], &config["eos_token_id"], &config["text_config"]["eos_token_id"]];
        for id in named.into_iter().flat_map(ids).chain(eos.as_ref().and_then(|eos| eos.id)) {
            if !eos_ids.contains(&id) {
                eos_ids.push(id);
            }
        }
        SpecialTokens {
            bos: role("bos"),
            eos,
            pad: role("pad"),
            unk: role("unk"),
            eos_ids,
            add_bos: self.tokenizer_config["add_bos_token"].as_bool(),
            add_eos: self.tokenizer_config["add_eos_token"].as_bool(),
        }
    }
}

/// `2` or `[2, 3]`.
fn ids(value: &Value) -> impl Iterator<Item = u32> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok())
}

/// `"<s>"` or `{"content": "<s>", …}`.
fn token_text(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}

/// Ids of the added tokens: from tokenizer_config.json where it lists them, else from tokenizer.json.
struct AddedTokens(Vec<AddedToken>);

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

impl AddedTokens {
    fn new(tokenizer_config: &Value, tokenizer_json: &Path) -> Self {
        /// Only this list is kept; the rest of a file of many megabytes is skipped over.
        #[derive(Deserialize)]
        struct TokenizerJson {
            #[serde(default)]
            added_tokens: Vec<AddedToken>,
        }
        if let Some(listed) = tokenizer_config["added_tokens_decoder"].as_object() {
            let token =
                |(id, token): (&String, &Value)| Some(AddedToken { id: id.parse().ok()?, content: token_text(token)? });
            return Self(listed.iter().filter_map(token).collect());
        }
        // A damaged tokenizer.json is reported by whoever loads it; here it only means that ids stay unknown.
        let text = std::fs::read(tokenizer_json).unwrap_or_default();
        Self(serde_json::from_slice::<TokenizerJson>(&text).map_or_else(|_| Vec::new(), |json| json.added_tokens))
    }

    fn id(&self, text: &str) -> Option<u32> {
        self.0.iter().find(|token| token.content == text).map(|token| token.id)
    }

    fn text(&self, id: u32) -> Option<String> {
        self.0.iter().find(|token| token.id == id).map(|token| token.content.clone())
    }
}
