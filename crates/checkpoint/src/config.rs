//! `config.json`: reading it, and what it says about quantization.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::error::{Error, Result};
use crate::tensor::{QuantMode, QuantParams};

/// Reads a JSON file whose top is an object.
pub(crate) fn read_object(path: &Path) -> Result<Value> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|e| Error::malformed(path, format!("not valid JSON: {e}")))?;
    if !value.is_object() {
        return Err(Error::malformed(path, "must hold a JSON object"));
    }
    Ok(value)
}

/// [`read_object`], or `None` when the file is not there.
pub(crate) fn read_object_if_present(path: &Path) -> Result<Option<Value>> {
    match read_object(path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// `config.architectures[0]`, or what the keys of a configuration that has none tell.
pub(crate) fn architecture<'a>(config: &'a Value, path: &Path) -> Result<&'a str> {
    let untold = || {
        // Of models that hear and speak, whose makers have formats of their own: all keys must be there.
        let known: [(&str, &[&str]); 2] = [
            ("WhisperForConditionalGeneration", &["n_mels", "n_audio_ctx", "n_audio_state", "n_text_ctx", "n_vocab"]),
            ("KModel", &["istftnet", "plbert", "style_dim", "n_token", "vocab"]),
        ];
        let told = known.into_iter().find(|(_, keys)| keys.iter().all(|key| config.get(key).is_some()));
        // NeMo names the class itself, with its modules.
        let class = config["target"].as_str().and_then(|target| target.rsplit('.').next());
        told.map(|(name, _)| name).or(class)
    };
    config["architectures"][0]
        .as_str()
        .or_else(untold)
        .ok_or_else(|| Error::malformed(path, "has no `architectures`; wanted a list such as [\"LlamaForCausalLM\"]"))
}

/// Which weights of an MLX-quantized directory are quantized, and how: the `quantization` of its `config.json`.
#[derive(Debug, Default)]
pub(crate) struct Quantization {
    default: Option<QuantParams>,
    /// By module path (`model.layers.0.mlp.down_proj`); `None`: left unquantized.
    overrides: HashMap<String, Option<QuantParams>>,
}

impl Quantization {
    /// Reads `quantization`, or `quantization_config` where MLX wrote it.
    ///
    /// Another tool's `quantization_config` (told by its `quant_method`) is refused: its tensors mean something else.
    pub(crate) fn from_config(config: &Value, path: &Path) -> Result<Self> {
        let (key, value) = match (&config["quantization"], &config["quantization_config"]) {
            (Value::Null, Value::Null) => return Ok(Self::default()),
            (Value::Null, theirs) => ("quantization_config", theirs),
            (ours, _) => ("quantization", ours),
        };
        let Some(object) = value.as_object() else {
            return Err(Error::malformed(path, format!("`{key}` must be an object, found {value}")));
        };
        if let Some(method) = object.get("quant_method")
            && key == "quantization_config"
        {
            return Err(Error::unsupported(
                path,
                format!(
                    "quantized by {method}, which is not supported; supported are MLX's affine, mxfp4, mxfp8 and \
                     nvfp4, GGUF, and unquantized weights"
                ),
            ));
        }
        let default = params(value, None).map_err(|what| Error::malformed(path, format!("`{key}`: {what}")))?;
        let mut overrides = HashMap::new();
        for (module, value) in object {
            let choice = match value {
                Value::Bool(true) => Some(default),
                Value::Bool(false) => None,
                Value::Object(_) => Some(
                    params(value, Some(default))
                        .map_err(|what| Error::malformed(path, format!("`{key}`.`{module}`: {what}")))?,
                ),
                _ => continue,
            };
            overrides.insert(module.clone(), choice);
        }
        Ok(Self { default: Some(default), overrides })
    }

    /// How the module at `path` is quantized, given that the files hold scales for it. `None`: as plain numbers.
    pub(crate) fn of(&self, module: &str) -> Option<QuantParams> {
        match self.overrides.get(module) {
            Some(choice) => *choice,
            None => self.default,
        }
    }
}

/// Mode, bits and group size of one object; a missing one is the mode's own default, as MLX has it.
fn params(value: &Value, outer: Option<QuantParams>) -> Result<QuantParams, String> {
    let mode = match &value["mode"] {
        Value::Null => outer.map_or(QuantMode::Affine, |o| o.mode),
        Value::String(s) => match s.as_str() {
            "affine" => QuantMode::Affine,
            "mxfp4" => QuantMode::Mxfp4,
            "mxfp8" => QuantMode::Mxfp8,
            "nvfp4" => QuantMode::Nvfp4,
            other => return Err(format!("mode \"{other}\" is not one of affine, mxfp4, mxfp8, nvfp4")),
        },
        other => return Err(format!("mode must be a string, found {other}")),
    };
    let (group_size, bits) = match mode {
        QuantMode::Affine => (64, 4),
        QuantMode::Mxfp4 => (32, 4),
        QuantMode::Mxfp8 => (32, 8),
        QuantMode::Nvfp4 => (16, 4),
    };
    let number = |key: &str, default: u64| match &value[key] {
        Value::Null => Ok(default),
        v => v.as_u64().ok_or_else(|| format!("{key} must be a whole number, found {v}")),
    };
    let found = (number("group_size", group_size)?, number("bits", bits)?);
    let allowed = match mode {
        QuantMode::Affine => matches!(found.0, 32 | 64 | 128) && matches!(found.1, 2 | 3 | 4 | 5 | 6 | 8),
        _ => found == (group_size, bits),
    };
    if !allowed {
        let wanted = match mode {
            QuantMode::Affine => "groups of 32, 64 or 128 with 2, 3, 4, 5, 6 or 8 bits".to_owned(),
            _ => format!("groups of {group_size} with {bits} bits"),
        };
        return Err(format!("mode {mode} with group_size {} and bits {}; wanted {wanted}", found.0, found.1));
    }
    Ok(QuantParams { mode, bits: found.1 as u8, group_size: found.0 as usize })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_that_only_the_keys_tell() {
        let of = |text: &str| {
            let config: Value = serde_json::from_str(text).unwrap();
            architecture(&config, Path::new("config.json")).map(str::to_owned).ok()
        };
        for (config, wanted) in [
            (r#"{"architectures": ["LlamaForCausalLM"], "target": "a.B"}"#, Some("LlamaForCausalLM")),
            (
                r#"{"n_mels": 80, "n_audio_ctx": 1500, "n_audio_state": 384, "n_text_ctx": 448, "n_vocab": 51864}"#,
                Some("WhisperForConditionalGeneration"),
            ),
            (r#"{"istftnet": {}, "plbert": {}, "style_dim": 128, "n_token": 178, "vocab": {}}"#, Some("KModel")),
            (r#"{"target": "nemo.collections.asr.models.EncDecRNNTBPEModel"}"#, Some("EncDecRNNTBPEModel")),
            (r#"{"n_mels": 80, "vocab": {}}"#, None),
        ] {
            assert_eq!(of(config).as_deref(), wanted, "{config}");
        }
    }

    use serde_json::json;

    const AFFINE: QuantParams = QuantParams { mode: QuantMode::Affine, bits: 4, group_size: 64 };

    fn of(config: Value, module: &str) -> Result<Option<QuantParams>, String> {
        Quantization::from_config(&config, Path::new("config.json")).map(|q| q.of(module)).map_err(|e| e.to_string())
    }

    #[test]
    fn each_module_gets_its_own_parameters() {
        let quantization = json!({"group_size": 64, "bits": 4, "a": {"group_size": 32, "bits": 8}, "b": false,
            "c": true, "d": {"mode": "mxfp4", "bits": 4, "group_size": 32}});
        let cases = [
            ("not named", Some(AFFINE)),
            ("a", Some(QuantParams { bits: 8, group_size: 32, ..AFFINE })),
            ("b", None),
            ("c", Some(AFFINE)),
            ("d", Some(QuantParams { mode: QuantMode::Mxfp4, bits: 4, group_size: 32 })),
        ];
        for (module, wanted) in cases {
            for key in ["quantization", "quantization_config"] {
                assert_eq!(of(json!({key: quantization}), module), Ok(wanted), "{key} {module}");
            }
        }
        assert_eq!(of(json!({}), "a"), Ok(None), "no quantization at all");
    }

    #[test]
    fn modes_have_their_own_defaults() {
        for (mode, bits, group_size) in [
            (QuantMode::Affine, 4, 64),
            (QuantMode::Mxfp4, 4, 32),
            (QuantMode::Mxfp8, 8, 32),
            (QuantMode::Nvfp4, 4, 16),
        ] {
            let config = json!({"quantization": {"mode": mode.name()}});
            assert_eq!(of(config, "x"), Ok(Some(QuantParams { mode, bits, group_size })), "{mode}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_one_line() {
        let cases = [
            (json!({"quantization": 4}), "`quantization` must be an object"),
            (json!({"quantization": {"mode": "int4"}}), "not one of affine"),
            (json!({"quantization": {"bits": 7}}), "bits 7; wanted groups of 32, 64 or 128"),
            (json!({"quantization": {"bits": -4}}), "bits must be a whole number"),
            (json!({"quantization": {"mode": "nvfp4", "group_size": 32}}), "wanted groups of 16 with 4 bits"),
            (json!({"quantization": {"bits": 4, "x": {"bits": "4"}}}), "`quantization`.`x`: bits must be"),
            (json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), "quantized by \"gptq\""),
        ];
        for (config, wanted) in cases {
            let error = of(config.clone(), "x").expect_err(&config.to_string());
            assert!(error.starts_with("config.json: ") && error.contains(wanted), "{config}: {error}");
        }
    }
}
