//! What sentence-transformers writes beside an embedding model: how a text's hidden states become one vector.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::config::{read_object, read_object_if_present};
use crate::error::{Error, Result};

/// How the hidden states of a text's tokens become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pooling {
    /// Their mean.
    Mean,
    /// That of the first token, `[CLS]`.
    Cls,
    /// That of the last token.
    LastToken,
}

/// What comes after the transformer of an embedding model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceModel {
    /// How its hidden states are pooled.
    pub pooling: Pooling,
    /// Whether the vector is scaled to length 1.
    pub normalize: bool,
}

/// Reads `modules.json` and what it names; `None` where there is none.
pub(crate) fn read(folder: &Path) -> Result<Option<SentenceModel>> {
    let path = folder.join("modules.json");
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(&path, e)),
    };
    let modules: Vec<Value> =
        serde_json::from_slice(&text).map_err(|e| Error::malformed(&path, format!("not a list of modules: {e}")))?;
    let mut model = SentenceModel { pooling: Pooling::Mean, normalize: false };
    for module in &modules {
        let class = module["type"].as_str().ok_or_else(|| Error::malformed(&path, "a module without a `type`"))?;
        match class.rsplit('.').next().unwrap_or(class) {
            "Transformer" => {}
            "Pooling" => model.pooling = pooling(&folder.join(place(module, &path)?).join("config.json"))?,
            "Normalize" => model.normalize = true,
            other => {
                let what = format!("the module {other} is not supported; Transformer, Pooling and Normalize are");
                return Err(Error::unsupported(&path, what));
            }
        }
    }
    Ok(Some(model))
}

/// The folder of a module, inside the model's own.
fn place(module: &Value, path: &Path) -> Result<PathBuf> {
    let place = module["path"].as_str().unwrap_or("");
    if Path::new(place).components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        return Ok(place.into());
    }
    Err(Error::malformed(path, format!("the module path {place:?} leads out of the model's folder")))
}

/// `1_Pooling/config.json`: one of many flags is set, or, as of later versions, the mode is named.
fn pooling(path: &Path) -> Result<Pooling> {
    let config = read_object(path)?;
    let prefix = "pooling_mode_";
    let flags = config.as_object().into_iter().flatten();
    let mut modes: Vec<&str> = flags
        .filter(|(_, set)| **set == Value::Bool(true))
        .filter_map(|(name, _)| name.strip_prefix(prefix))
        .chain(config["pooling_mode"].as_str())
        .collect();
    modes.dedup();
    match modes[..] {
        ["mean_tokens" | "mean"] => Ok(Pooling::Mean),
        ["cls_token" | "cls"] => Ok(Pooling::Cls),
        ["lasttoken"] => Ok(Pooling::LastToken),
        [] => Err(Error::malformed(path, "no pooling mode is set")),
        _ => {
            let what =
                format!("pooling by {} is not supported; by one of mean, cls and lasttoken is", modes.join(" + "));
            Err(Error::unsupported(path, what))
        }
    }
}

/// A `model_max_length` from here on stands for none: transformers writes 10³⁰.
const NO_LIMIT: u64 = 1_000_000;

/// Longest input in tokens by `sentence_bert_config.json` and the tokenizer's settings, whichever is less.
pub(crate) fn max_input_tokens(folder: &Path, tokenizer_config: &Value) -> Result<Option<usize>> {
    let sentence = read_object_if_present(&folder.join("sentence_bert_config.json"))?.unwrap_or_default();
    let limits = [sentence["max_seq_length"].as_u64(), tokenizer_config["model_max_length"].as_u64()];
    let limits = limits.into_iter().flatten().filter(|limit| (1..NO_LIMIT).contains(limit));
    Ok(limits.min().and_then(|limit| usize::try_from(limit).ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Reads a folder with that `modules.json` and that `1_Pooling/config.json`.
    fn read_of(modules: &Value, pooling: &Value) -> Result<Option<SentenceModel>, String> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        std::fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
        std::fs::write(folder.path().join("1_Pooling/config.json"), pooling.to_string()).unwrap();
        read(folder.path()).map_err(|e| e.to_string())
    }

    fn modules(names: &[&str]) -> Value {
        let paths = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"), ("Dense", "2_Dense")];
        let module = |name: &&str| {
            let path = paths.iter().find(|(known, _)| known == name).unwrap().1;
            json!({ "name": "0", "path": path, "type": format!("sentence_transformers.models.{name}") })
        };
        names.iter().map(module).collect()
    }

    #[test]
    fn modules_say_how_to_pool() {
        let all = ["Transformer", "Pooling", "Normalize"];
        let cases = [
            (
                "flags",
                &all[..],
                json!({ "pooling_mode_mean_tokens": true, "pooling_mode_cls_token": false }),
                Pooling::Mean,
            ),
            ("cls", &all, json!({ "word_embedding_dimension": 8, "pooling_mode_cls_token": true }), Pooling::Cls),
            ("last", &all, json!({ "pooling_mode_lasttoken": true, "include_prompt": true }), Pooling::LastToken),
            ("named", &all, json!({ "pooling_mode": "cls" }), Pooling::Cls),
            ("no norm", &all[..2], json!({ "pooling_mode_mean_tokens": true }), Pooling::Mean),
        ];
        for (name, used, config, pooling) in cases {
            let wanted = SentenceModel { pooling, normalize: used.len() == 3 };
            assert_eq!(read_of(&modules(used), &config), Ok(Some(wanted)), "{name}");
        }
        assert_eq!(read(tempfile::tempdir().unwrap().path()).unwrap(), None);
    }

    #[test]
    fn what_is_not_computed_is_refused() {
        let mean = json!({ "pooling_mode_mean_tokens": true });
        let out = json!([{ "type": "x.Pooling", "path": "../1_Pooling" }]);
        let cases = [
            ("dense", modules(&["Transformer", "Pooling", "Dense"]), mean.clone(), "the module Dense is not supported"),
            (
                "two modes",
                modules(&["Pooling"]),
                json!({ "pooling_mode_mean_tokens": true, "pooling_mode_max_tokens": true }),
                "mean_tokens + max_tokens is not supported",
            ),
            ("no mode", modules(&["Pooling"]), json!({}), "no pooling mode is set"),
            ("no list", json!({}), mean.clone(), "not a list of modules"),
            ("outside", out, mean, "leads out of the model's folder"),
        ];
        for (name, modules, pooling, wanted) in cases {
            let error = read_of(&modules, &pooling).expect_err(name);
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }

    #[test]
    fn the_least_limit_counts() {
        let folder = tempfile::tempdir().unwrap();
        let of = |tokenizer: Value| max_input_tokens(folder.path(), &tokenizer).unwrap();
        assert_eq!(of(json!({ "model_max_length": 512 })), Some(512));
        assert_eq!(of(json!({ "model_max_length": 1e30 })), None);
        std::fs::write(folder.path().join("sentence_bert_config.json"), r#"{"max_seq_length": 256}"#).unwrap();
        assert_eq!(of(json!({ "model_max_length": 512 })), Some(256));
    }
}
