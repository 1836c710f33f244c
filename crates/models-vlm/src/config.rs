//! What the families' `config.json`s have in common.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use vllm_platform_mlx::{Activation, Error, LoadContext, Result};

/// The configuration of the language part: `text_config`, or the whole where older files have it flat. What the whole alone
/// says of tied embeddings goes along.
pub(crate) fn text_config(config: &Value) -> Map<String, Value> {
    let nested = config.get("text_config").and_then(Value::as_object).filter(|text| text.contains_key("hidden_size"));
    let Some(text) = nested.or(config.as_object()) else { return Map::new() };
    let mut text = text.clone();
    // Either place may say so; files written by older versions say in one of them what is not true.
    let said = [text.get("tie_word_embeddings"), config.get("tie_word_embeddings")];
    if let Some(tied) = said.into_iter().filter_map(|tied| tied?.as_bool()).reduce(|a, b| a || b) {
        text.insert("tie_word_embeddings".into(), tied.into());
    }
    text
}

/// `vision_config` as a type.
pub(crate) fn vision_config<T: DeserializeOwned>(ctx: &LoadContext<'_>) -> Result<T> {
    #[derive(Deserialize)]
    struct Root<T> {
        vision_config: T,
    }
    Ok(ctx.config::<Root<T>>()?.vision_config)
}

/// An activation function by its name in `config.json`.
pub(crate) fn activation(name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::Config(format!(
            "hidden_act is {other:?}; known are gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu, swish and relu"
        ))),
    }
}
