//! Llama 1 to 3, and the models that share its mathematics: Mistral 7B (with or without its sliding window), SmolLM2.
//!
//! Sources: Touvron et al., arXiv:2302.13971 (Llama); Grattafiori et al., arXiv:2407.21783 (Llama 3, its RoPE scaling in
//! `nn::rope`); Jiang et al., arXiv:2310.06825 (Mistral). Layer names as in the Hugging Face checkpoints.

use serde::Deserialize;
use vllm_platform_mlx::{
    Activation, Batch, Bias, LoadContext, Result, Tensor, inventory,
    kv::{AttentionSpec, KvStore},
    model::{CausalLm, Family, LayerSpec},
    nn::{GatedMlp, Linear, MediaFeatures, RmsNorm, Rope, RopeConfig},
};

use crate::{
    config::{Heads, LayerType, check_activation, context_length, rope, windows},
    stage::{Sizes, Stage},
};

inventory::submit! { Family::causal_lm("LlamaForCausalLM", |ctx| Ok(Box::new(Llama::load(ctx, Slides::ByLayerType)?))).in_stages() }
inventory::submit! { Family::causal_lm("MistralForCausalLM", |ctx| Ok(Box::new(Llama::load(ctx, Slides::IfWindow)?))).in_stages() }

/// Which layers have a window where `layer_types` does not say.
#[derive(Clone, Copy, PartialEq)]
enum Slides {
    /// None of them.
    ByLayerType,
    /// All of them, if `sliding_window` is set.
    IfWindow,
}

#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    head_dim: Option<usize>,
    hidden_act: Option<String>,
    rms_norm_eps: f32,
    vocab_size: usize,
    #[serde(default = "llama_1_context")]
    max_position_embeddings: usize,
    #[serde(default)]
    attention_bias: bool,
    #[serde(default)]
    mlp_bias: bool,
    sliding_window: Option<usize>,
    layer_types: Option<Vec<LayerType>>,
    tie_word_embeddings: Option<bool>,
}

fn llama_1_context() -> usize {
    2048
}

/// Causal attention with rotary positions.
struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    rope: Rope,
    heads: Heads,
}

impl Attention {
    fn load(ctx: &LoadContext<'_>, config: &Config, heads: Heads, rope: &RopeConfig) -> Result<Self> {
        let (hidden, bias) = (config.hidden_size, Bias::from(config.attention_bias));
        Ok(Self {
            query: ctx.linear("q_proj", hidden, heads.query_size(), bias)?.into_heads(heads.query),
            key: ctx.linear("k_proj", hidden, heads.kv_size(), bias)?.into_heads(heads.kv),
            value: ctx.linear("v_proj", hidden, heads.kv_size(), bias)?.into_heads(heads.kv),
            output: ctx.linear("o_proj", heads.query_size(), hidden, bias)?,
            rope: Rope::new(ctx.ops(), rope)?,
            heads,
        })
    }

    /// [tokens, hidden] → [tokens, hidden].
    fn forward(&self, x: &Tensor, layer: usize, kv: &mut dyn KvStore, batch: &Batch) -> Result<Tensor> {
        let [q, k, v] = Linear::forward_all(x, [&self.query, &self.key, &self.value])?;
        let [q, k] = self.rope.forward([&q, &k], batch)?;
        let spec = AttentionSpec { heads: self.heads.query, scale: (self.heads.dim as f32).powf(-0.5) };
        self.output.forward(&kv.attend(layer, &q, &k, &v, batch, spec)?)
    }
}

struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config, heads: Heads, rope: &RopeConfig) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let (inner, bias) = (config.intermediate_size, Bias::from(config.mlp_bias));
        Ok(Self {
            attention_norm: ctx.rms_norm("input_layernorm", hidden, eps)?,
            attention: Attention::load(&ctx.at("self_attn"), config, heads, rope)?,
            mlp_norm: ctx.rms_norm("post_attention_layernorm", hidden, eps)?,
            mlp: GatedMlp::load(&ctx.at("mlp"), hidden, inner, bias, Activation::Silu)?,
        })
    }
}

struct Llama {
    stage: Stage,
    media: MediaFeatures,
    blocks: Vec<Block>,
    layers: Vec<LayerSpec>,
    context_length: usize,
}

impl Llama {
    fn load(ctx: &LoadContext<'_>, slides: Slides) -> Result<Self> {
        let config: Config = ctx.config()?;
        check_activation("hidden_act", config.hidden_act.as_deref(), &["silu", "swish"])?;
        let heads =
            Heads::new(config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)?;
        let rope = rope(ctx, heads)?;
        let windows = windows(config.num_hidden_layers, config.layer_types.as_deref(), config.sliding_window, |_| {
            slides == Slides::IfWindow && config.sliding_window.is_some()
        })?;
        // Llama 1 stored the frequencies that follow from rope_theta.
        ctx.ignore(|name| name.ends_with("rotary_emb.inv_freq"));
        let sizes = Sizes {
            layers: config.num_hidden_layers,
            hidden: config.hidden_size,
            vocab: config.vocab_size,
            eps: config.rms_norm_eps,
            tied: config.tie_word_embeddings,
        };
        let (stage, model) = (Stage::load(ctx, &sizes, "input_layernorm")?, ctx.at("model"));
        Ok(Self {
            media: ctx.media(),
            blocks: stage
                .layers()
                .map(|layer| Block::load(&model.at(&format!("layers.{layer}")), &config, heads, &rope))
                .collect::<Result<_>>()?,
            layers: stage.of(heads.layers(&windows)),
            context_length: context_length(ctx, config.max_position_embeddings),
            stage,
        })
    }

    /// The norm before a block of this stage; after the last one, the stage's own.
    fn norm_before(&self, layer: usize) -> &RmsNorm {
        self.blocks.get(layer).map_or(self.stage.norm(), |block| &block.attention_norm)
    }
}

impl CausalLm for Llama {
    fn layers(&self) -> Vec<LayerSpec> {
        self.layers.clone()
    }

    fn context_length(&self) -> usize {
        self.context_length
    }

    fn vocab_size(&self) -> usize {
        self.stage.vocab_size()
    }

    fn forward(&self, batch: &Batch, kv: &mut dyn KvStore) -> Result<Tensor> {
        let mut x = self.media.place(self.stage.enter(batch)?, batch)?;
        let mut normed = self.norm_before(0).forward(&x)?;
        for (layer, block) in self.blocks.iter().enumerate() {
            let attended = block.attention.forward(&normed, layer, kv, batch)?;
            (x, normed) = block.mlp_norm.forward_residual(&x, &attended)?;
            let transformed = block.mlp.forward(&normed)?;
            (x, normed) = self.norm_before(layer + 1).forward_residual(&x, &transformed)?;
        }
        Ok(self.stage.leave(x, normed))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.stage.logits(hidden)
    }
}
