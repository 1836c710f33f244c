//! The language part of a model that sees: which architecture it is, and what its configuration leaves out.

use serde_json::{Map, Value, json};
use vllm_platform_mlx::{Error, Result, vision::Language};

/// What transformers' classes have where a `text_config` says nothing; published ones say only what differs.
fn known(model_type: &str) -> Option<(&'static str, Value)> {
    let llama = json!({
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    });
    let qwen = json!({
        "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768, "rms_norm_eps": 1e-6,
    });
    Some(match model_type {
        "llama" => ("LlamaForCausalLM", llama),
        "mistral" => {
            let own = json!({
                "intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131_072,
                "sliding_window": 4096,
            });
            ("MistralForCausalLM", with_defaults(own.as_object(), llama))
        }
        "qwen2" => ("Qwen2ForCausalLM", qwen),
        "qwen3" => ("Qwen3ForCausalLM", with_defaults(json!({"head_dim": 128}).as_object(), qwen)),
        // The rest its own file knows.
        "gemma3_text" => ("Gemma3ForCausalLM", json!({"hidden_size": 2304})),
        _ => return None,
    })
}

/// `given`, and of `defaults` what it lacks.
pub(crate) fn with_defaults(given: Option<&Map<String, Value>>, mut defaults: Value) -> Value {
    if let (Some(given), Some(all)) = (given, defaults.as_object_mut()) {
        all.extend(given.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    defaults
}

/// `text_config`, with the defaults of its `model_type`; one that doesn't say is `otherwise`.
pub(crate) fn text_part(config: &Value, otherwise: &str) -> Result<(&'static str, Value)> {
    let text = config.get("text_config").and_then(Value::as_object);
    let text = text.ok_or_else(|| Error::Config("text_config is missing".into()))?;
    let model_type = text.get("model_type").and_then(Value::as_str).unwrap_or(otherwise);
    let (architecture, defaults) = known(model_type).ok_or_else(|| {
        let known = "llama, mistral, qwen2, qwen3 and gemma3_text";
        Error::Config(format!("text_config.model_type is {model_type:?}; known are {known}"))
    })?;
    let mut text = with_defaults(Some(text), defaults);
    // Either place may say so, and the output layer belongs to the whole.
    let said = [text.get("tie_word_embeddings"), config.get("tie_word_embeddings")];
    if let Some(tied) = said.into_iter().filter_map(|tied| tied?.as_bool()).reduce(|a, b| a || b) {
        text["tie_word_embeddings"] = tied.into();
    }
    Ok((architecture, text))
}

/// Elements of the language part's hidden state; `otherwise` as for [`text_part`].
pub(crate) fn width(config: &Value, otherwise: &str) -> Result<usize> {
    let (_, text) = text_part(config, otherwise)?;
    let width = text.get("hidden_size").and_then(Value::as_u64).and_then(|width| usize::try_from(width).ok());
    width.ok_or_else(|| Error::Config("text_config.hidden_size is no number".into()))
}

/// The language part of a family whose `text_config` is a Llama if it doesn't say.
pub(crate) fn language(config: &Value) -> Result<Language> {
    let (architecture, config) = text_part(config, "llama")?;
    Ok(Language { architecture: architecture.into(), config, levels: 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_published_configuration_leaves_out() {
        // LLaVA 1.5's, Pixtral's and Gemma 3's, in short.
        let llava = json!({"text_config": {"model_type": "llama", "rms_norm_eps": 1e-5, "vocab_size": 32064}});
        let pixtral = json!({"text_config": {"model_type": "mistral", "hidden_size": 5120, "sliding_window": null}});
        let gemma = json!({"text_config": {"model_type": "gemma3_text", "hidden_size": 2560}});
        let smolvlm = json!({"text_config": {"tie_word_embeddings": false}, "tie_word_embeddings": true});
        for (config, architecture, key, value) in [
            (&llava, "LlamaForCausalLM", "vocab_size", json!(32064)),
            (&llava, "LlamaForCausalLM", "intermediate_size", json!(11008)),
            (&pixtral, "MistralForCausalLM", "num_key_value_heads", json!(8)),
            (&pixtral, "MistralForCausalLM", "sliding_window", Value::Null),
            (&gemma, "Gemma3ForCausalLM", "hidden_size", json!(2560)),
            (&smolvlm, "LlamaForCausalLM", "tie_word_embeddings", json!(true)),
        ] {
            let found = language(config).expect("known");
            assert_eq!((found.architecture.as_str(), &found.config[key]), (architecture, &value), "{key}");
        }
        let unknown = language(&json!({"text_config": {"model_type": "phi3"}})).expect_err("unknown").to_string();
        assert!(unknown.contains("\"phi3\"; known are llama"), "{unknown}");
        assert!(language(&json!({})).expect_err("missing").to_string().contains("text_config is missing"));
    }
}
