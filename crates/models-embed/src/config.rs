//! The `config.json` that BERT and its descendants share, and the checks that make later arithmetic safe.

use serde::Deserialize;
use serde_json::{Map, Value};
use vllm_platform_mlx::{Activation, Error, LoadContext, Result};

#[derive(Deserialize)]
pub(crate) struct Config {
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_act: String,
    pub layer_norm_eps: f32,
    pub vocab_size: usize,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub pad_token_id: Option<usize>,
    position_embedding_type: Option<String>,
    #[serde(default)]
    is_decoder: bool,
    num_labels: Option<usize>,
    id2label: Option<Map<String, Value>>,
}

impl Config {
    /// What this crate does not compute must not be asked for.
    pub fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Self = ctx.config()?;
        let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
        if heads == 0 || !hidden.is_multiple_of(heads) || hidden == 0 {
            return Err(Error::Config(format!(
                "hidden_size is {hidden}: it must be a multiple of num_attention_heads, {heads}"
            )));
        }
        if let Some(kind) = config.position_embedding_type.as_deref().filter(|kind| *kind != "absolute") {
            return Err(Error::Config(format!(
                "position_embedding_type is {kind:?}: this architecture has \"absolute\""
            )));
        }
        if config.is_decoder {
            return Err(Error::Config("is_decoder is true: this architecture is an encoder here".into()));
        }
        Ok(config)
    }

    pub fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "silu" | "swish" => Ok(Activation::Silu),
            "relu" => Ok(Activation::Relu),
            other => Err(Error::Config(format!(
                "hidden_act is {other:?}; known are gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, silu, swish and relu"
            ))),
        }
    }

    /// A score is one number. A `config.json` that doesn't say how many labels there are means two.
    pub fn check_one_label(&self) -> Result<()> {
        match self.id2label.as_ref().map(Map::len).or(self.num_labels).unwrap_or(2) {
            1 => Ok(()),
            labels => Err(Error::Config(format!(
                "the classifier has {labels} labels (id2label): a cross-encoder that scores pairs has one"
            ))),
        }
    }
}
