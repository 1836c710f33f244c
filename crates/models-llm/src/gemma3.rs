//! Gemma 3, text: local and global layers in turn, each with its own RoPE, and norms before and after every part.
//!
//! Source: Gemma team, arXiv:2503.19786; layer names as in the Hugging Face checkpoints (`Gemma3ForCausalLM`, the 270M
//! and 1B models and text-only exports of the larger ones).

use half::bf16;
use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Activation, Batch, Bias, Error, LoadContext, Ops, Result, Tensor, inventory,
    kv::{AttentionSpec, KvStore},
    mlx_rs::ops::tanh,
    model::{CausalLm, Family, LayerSpec},
    nn::{Embedding, GatedMlp, Linear, MediaFeatures, RmsNorm, Rope, RopeConfig},
};

use crate::{
    config::{Heads, LayerType, check_activation, windows},
    output::Output,
};

inventory::submit! { Family::causal_lm("Gemma3ForCausalLM", |ctx| Ok(Box::new(Gemma3::load(ctx)?))) }

#[derive(Deserialize)]
#[serde(default)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: usize,
    head_dim: usize,
    hidden_activation: Option<String>,
    rms_norm_eps: f32,
    vocab_size: usize,
    max_position_embeddings: usize,
    query_pre_attn_scalar: f32,
    sliding_window: Option<usize>,
    /// Every so many layers one sees everything; `layer_types` says it layer by layer.
    #[serde(alias = "_sliding_window_pattern")]
    sliding_window_pattern: usize,
    layer_types: Option<Vec<LayerType>>,
    rope_theta: f64,
    rope_local_base_freq: f64,
    rope_scaling: Option<Value>,
    /// As transformers 5 writes them: by layer type.
    rope_parameters: Option<RopeParameters>,
    final_logit_softcapping: Option<f32>,
    attn_logit_softcapping: Option<f32>,
    use_bidirectional_attention: Option<bool>,
    tie_word_embeddings: Option<bool>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RopeParameters {
    full_attention: Option<Value>,
    sliding_attention: Option<Value>,
}

/// Published configurations leave out what equals these, the values of transformers' `Gemma3TextConfig`.
impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: None,
            rms_norm_eps: 1e-6,
            vocab_size: 262_208,
            max_position_embeddings: 131_072,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            sliding_window_pattern: 6,
            layer_types: None,
            rope_theta: 1_000_000.0,
            rope_local_base_freq: 10_000.0,
            rope_scaling: None,
            rope_parameters: None,
            final_logit_softcapping: None,
            attn_logit_softcapping: None,
            use_bidirectional_attention: None,
            tie_word_embeddings: None,
        }
    }
}

impl Config {
    /// What this file does not compute must not be asked for.
    fn check(&self) -> Result<()> {
        check_activation("hidden_activation", self.hidden_activation.as_deref(), &["gelu_pytorch_tanh"])?;
        if let Some(cap) = self.attn_logit_softcapping {
            return Err(Error::Config(format!(
                "attn_logit_softcapping is {cap}: Gemma 3 has q_norm and k_norm in its place; it must be null"
            )));
        }
        if self.use_bidirectional_attention == Some(true) {
            return Err(Error::Config("use_bidirectional_attention is true: this is a causal model".into()));
        }
        Ok(())
    }

    /// Frequencies of the local layers (plain, a small base) and of the global ones (a large base, perhaps scaled).
    fn ropes(&self) -> Result<(RopeConfig, RopeConfig)> {
        let given = self.rope_parameters.as_ref();
        let one = |parameters: Option<&Value>, theta: f64, scaling: Option<&Value>| {
            let theta = parameters.and_then(|p| p.get("rope_theta")?.as_f64()).unwrap_or(theta);
            RopeConfig::new(self.head_dim, theta, parameters.or(scaling), Some(self.max_position_embeddings as f64))
        };
        let local = one(given.and_then(|p| p.sliding_attention.as_ref()), self.rope_local_base_freq, None)?;
        let global = one(given.and_then(|p| p.full_attention.as_ref()), self.rope_theta, self.rope_scaling.as_ref())?;
        Ok((local, global))
    }
}

/// Causal attention with normalised queries and keys and rotary positions.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    query_norm: RmsNorm,
    key_norm: RmsNorm,
    rope: Rope,
    heads: Heads,
    scale: f32,
}

impl Attention {
    fn load(ctx: &LoadContext<'_>, config: &Config, heads: Heads, rope: &RopeConfig) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        Ok(Self {
            query: ctx.linear("q_proj", hidden, heads.query_size(), Bias::None)?.into_heads(heads.query),
            key: ctx.linear("k_proj", hidden, heads.kv_size(), Bias::None)?.into_heads(heads.kv),
            value: ctx.linear("v_proj", hidden, heads.kv_size(), Bias::None)?.into_heads(heads.kv),
            output: ctx.linear("o_proj", heads.query_size(), hidden, Bias::None)?,
            query_norm: ctx.rms_norm_plus_one("q_norm", heads.dim, eps)?,
            key_norm: ctx.rms_norm_plus_one("k_norm", heads.dim, eps)?,
            rope: Rope::new(ctx.ops(), rope)?,
            heads,
            scale: config.query_pre_attn_scalar.powf(-0.5),
        })
    }

    /// [tokens, hidden] → [tokens, hidden].
    fn forward(&self, x: &Tensor, layer: usize, kv: &mut dyn KvStore, batch: &Batch) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.query, &self.key, &self.value])?;
        let (q, k) = (self.query_norm.forward(&q)?, self.key_norm.forward(&k)?);
        let [q, k] = self.rope.forward([&q, &k], batch)?;
        let spec = AttentionSpec { heads: self.heads.query, scale: self.scale };
        self.output.forward(&kv.attend(layer, &q, &k, &v, batch, spec)?)
    }
}

/// Norms stand before and after each part; the names are the checkpoint's.
struct Block {
    input_norm: RmsNorm,
    attention: Attention,
    post_attention_norm: RmsNorm,
    pre_feedforward_norm: RmsNorm,
    mlp: GatedMlp,
    post_feedforward_norm: RmsNorm,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config, heads: Heads, rope: &RopeConfig) -> Result<Self> {
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        Ok(Self {
            input_norm: ctx.rms_norm_plus_one("input_layernorm", hidden, eps)?,
            attention: Attention::load(&ctx.at("self_attn"), config, heads, rope)?,
            post_attention_norm: ctx.rms_norm_plus_one("post_attention_layernorm", hidden, eps)?,
            pre_feedforward_norm: ctx.rms_norm_plus_one("pre_feedforward_layernorm", hidden, eps)?,
            mlp: GatedMlp::load(&ctx.at("mlp"), hidden, inner, Bias::None, Activation::GeluTanh)?,
            post_feedforward_norm: ctx.rms_norm_plus_one("post_feedforward_layernorm", hidden, eps)?,
        })
    }
}

struct Gemma3 {
    ops: Ops,
    embedding: Embedding,
    media: MediaFeatures,
    embedding_scale: f32,
    blocks: Vec<Block>,
    norm: RmsNorm,
    output: Output,
    logit_cap: Option<f32>,
    layers: Vec<LayerSpec>,
    context_length: usize,
}

impl Gemma3 {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        config.check()?;
        let (layers, hidden) = (config.num_hidden_layers, config.hidden_size);
        let heads =
            Heads::new(hidden, config.num_attention_heads, Some(config.num_key_value_heads), Some(config.head_dim))?;
        let pattern = config.sliding_window_pattern.max(1);
        let windows = windows(layers, config.layer_types.as_deref(), config.sliding_window, |layer| {
            !(layer + 1).is_multiple_of(pattern)
        })?;
        let (local, global) = config.ropes()?;
        let model = ctx.at("model");
        let block = |(layer, window): (usize, &Option<usize>)| {
            let rope = if window.is_some() { &local } else { &global };
            Block::load(&model.at(&format!("layers.{layer}")), &config, heads, rope)
        };
        Ok(Self {
            ops: ctx.ops(),
            embedding: model.embedding("embed_tokens", config.vocab_size, hidden)?,
            media: ctx.media(),
            // Gemma was trained with this factor in bf16: for the 1B model 34, not 33.94.
            embedding_scale: bf16::from_f32((hidden as f32).sqrt()).to_f32(),
            blocks: windows.iter().enumerate().map(block).collect::<Result<_>>()?,
            norm: model.rms_norm_plus_one("norm", hidden, config.rms_norm_eps)?,
            output: Output::load(ctx, config.tie_word_embeddings, hidden, config.vocab_size)?,
            logit_cap: config.final_logit_softcapping,
            layers: heads.layers(&windows),
            context_length: config.max_position_embeddings,
        })
    }

    /// The norm before block `layer`; after the last block, the final one.
    fn norm_before(&self, layer: usize) -> &RmsNorm {
        self.blocks.get(layer).map_or(&self.norm, |block| &block.input_norm)
    }
}

impl CausalLm for Gemma3 {
    fn layers(&self) -> Vec<LayerSpec> {
        self.layers.clone()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab_size(&self) -> usize {
        self.embedding.vocab_size()
    }

    fn forward(&self, batch: &Batch, kv: &mut dyn KvStore) -> Result<Tensor> {
        let embedded = self.ops.scale(&self.embedding.forward(&batch.tokens)?, self.embedding_scale)?;
        let mut x = self.media.place(embedded, batch)?;
        let mut normed = self.norm_before(0).forward(&x)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let attended = block.attention.forward(&normed, layer, kv, batch)?;
            let attended = block.post_attention_norm.forward(&attended)?;
            (x, normed) = block.pre_feedforward_norm.forward_residual(&x, &attended)?;
            let transformed = block.post_feedforward_norm.forward(&block.mlp.forward(&normed)?)?;
            (x, normed) = self.norm_before(layer + 1).forward_residual(&x, &transformed)?;
        }
        Ok(normed)
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        let logits = self.output.forward(hidden, Some(&self.embedding))?;
        match self.logit_cap {
            Some(cap) => self.ops.scale(&tanh(&self.ops.scale(&logits, 1.0 / cap)?)?, cap),
            None => Ok(logits),
        }
    }
}
