//! The tokenizer, special tokens and chat templates inside a GGUF file.

use std::collections::BTreeMap;

use super::metadata::Metadata;
use crate::tokenizer::{GgufVocab, SpecialToken, SpecialTokens, TokenType};

/// Control tokens that end a turn or a text in the formats that models are published with. GGUF names one `eos`; models
/// with several leave the others to be known by their text, as llama.cpp does.
const ENDS: [&str; 8] = [
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end|>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<|return|>",
];

const CONTROL: i64 = 3;

/// The tokens that end generation: those the metadata names, then known ends among the control tokens.
pub(super) struct EndOfTurn {
    pub(super) ids: Vec<u32>,
}

impl EndOfTurn {
    pub(super) fn read(metadata: Metadata<'_>) -> Result<Self, String> {
        let mut ids = Vec::new();
        for role in ["eos", "eot", "eom"] {
            ids.extend(metadata.id(&format!("tokenizer.ggml.{role}_token_id")));
        }
        let types = metadata.integers("tokenizer.ggml.token_type")?;
        let tokens = metadata.texts("tokenizer.ggml.tokens")?.into_iter().flatten();
        for (id, (token, kind)) in tokens.zip(types).enumerate() {
            if kind == CONTROL && ENDS.iter().any(|end| end.as_bytes() == token) {
                ids.push(id as u32);
            }
        }
        let mut seen = Vec::new();
        ids.retain(|id| {
            !seen.contains(id) && {
                seen.push(*id);
                true
            }
        });
        Ok(Self { ids })
    }
}

/// Reads and checks the vocabulary.
pub(super) fn read(metadata: Metadata<'_>) -> Result<GgufVocab, String> {
    let required = |key: &str| format!("metadata has no {key}");
    let model = metadata.string("tokenizer.ggml.model").ok_or_else(|| required("tokenizer.ggml.model"))?;
    let tokens = metadata.strings("tokenizer.ggml.tokens")?.ok_or_else(|| required("tokenizer.ggml.tokens"))?;
    let scores = metadata.floats("tokenizer.ggml.scores")?;
    let types = metadata.integers("tokenizer.ggml.token_type")?;
    for (key, length) in [("scores", scores.len()), ("token_type", types.len())] {
        if length != 0 && length != tokens.len() {
            return Err(format!("tokenizer.ggml.{key} has {length} entries for {} tokens", tokens.len()));
        }
    }
    let id = |role: &str| {
        let key = format!("tokenizer.ggml.{role}_token_id");
        match metadata.id(&key) {
            Some(id) if id as usize >= tokens.len() => Err(format!("{key} is {id}, there are {} tokens", tokens.len())),
            id => Ok(id),
        }
    };
    let flag = |name: &str| metadata.bool(&format!("tokenizer.ggml.{name}"));
    Ok(GgufVocab {
        model: model.to_owned(),
        pre: metadata.string("tokenizer.ggml.pre").map(str::to_owned),
        scores,
        token_types: types.into_iter().map(token_type).collect(),
        merges: metadata.strings("tokenizer.ggml.merges")?.unwrap_or_default(),
        bos_id: id("bos")?,
        eos_id: id("eos")?,
        unk_id: id("unknown")?,
        pad_id: id("padding")?,
        add_bos: flag("add_bos_token"),
        add_eos: flag("add_eos_token"),
        add_space_prefix: flag("add_space_prefix"),
        tokens,
    })
}

fn token_type(number: i64) -> TokenType {
    match number {
        2 => TokenType::Unknown,
        CONTROL => TokenType::Control,
        4 => TokenType::UserDefined,
        5 => TokenType::Unused,
        6 => TokenType::Byte,
        _ => TokenType::Normal,
    }
}

pub(super) fn chat_templates(metadata: Metadata<'_>) -> Result<BTreeMap<String, String>, String> {
    let mut templates = BTreeMap::new();
    for name in metadata.strings("tokenizer.chat_templates")?.unwrap_or_default() {
        if let Some(template) = metadata.string(&format!("tokenizer.chat_template.{name}")) {
            templates.insert(name, template.to_owned());
        }
    }
    if let Some(template) = metadata.string("tokenizer.chat_template") {
        templates.insert("default".to_owned(), template.to_owned());
    }
    Ok(templates)
}

pub(super) fn special_tokens(metadata: Metadata<'_>, eos_ids: Vec<u32>) -> SpecialTokens {
    // A damaged vocabulary is reported when it is read; here it only means that texts stay unknown.
    let text = |id: u32| {
        let text = metadata.texts("tokenizer.ggml.tokens").ok()??.nth(id as usize)?;
        Some(String::from_utf8_lossy(text).into_owned())
    };
    let role = |name: &str| {
        let id = metadata.id(&format!("tokenizer.ggml.{name}_token_id"))?;
        Some(SpecialToken { text: text(id), id: Some(id) })
    };
    SpecialTokens {
        bos: role("bos"),
        eos: role("eos"),
        pad: role("padding"),
        unk: role("unknown"),
        eos_ids,
        add_bos: metadata.bool("tokenizer.ggml.add_bos_token"),
        add_eos: metadata.bool("tokenizer.ggml.add_eos_token"),
    }
}
