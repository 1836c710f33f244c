//! Qwen2 and Qwen2.5: Llama's block with biased query, key and value projections, and a sliding window in the upper
//! layers where the configuration switches it on.
//!
//! Sources: Yang et al., arXiv:2407.10671 (Qwen2); Qwen team, arXiv:2412.15115 (Qwen2.5). Layer names as in the Hugging
//! Face checkpoints.

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

inventory::submit! { Family::causal_lm("Qwen2ForCausalLM", |ctx| Ok(Box::new(Qwen2::load(ctx)?))).in_stages() }

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
    #[serde(default = "qwen2_context")]
    max_position_embeddings: usize,
    /// Most published configurations have a `sliding_window` and leave it switched off.
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    /// Layers from the bottom that see everything.
    #[serde(default = "qwen2_max_window_layers")]
    max_window_layers: usize,
    layer_types: Option<Vec<LayerType>>,
    tie_word_embeddings: Option<bool>,
}

fn qwen2_context() -> usize {
    32_768
}

fn qwen2_max_window_layers() -> usize {
    28
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
        let hidden = config.hidden_size;
        Ok(Self {
            query: ctx.linear("q_proj", hidden, heads.query_size(), Bias::Added)?.into_heads(heads.query),
            key: ctx.linear("k_proj", hidden, heads.kv_size(), Bias::Added)?.into_heads(heads.kv),
            value: ctx.linear("v_proj", hidden, heads.kv_size(), Bias::Added)?.into_heads(heads.kv),
            output: ctx.linear("o_proj", heads.query_size(), hidden, Bias::None)?,
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
        let (hidden, inner, eps) = (config.hidden_size, config.intermediate_size, config.rms_norm_eps);
        Ok(Self {
            attention_norm: ctx.rms_norm("input_layernorm", hidden, eps)?,
            attention: Attention::load(&ctx.at("self_attn"), config, heads, rope)?,
            mlp_norm: ctx.rms_norm("post_attention_layernorm", hidden, eps)?,
            mlp: GatedMlp::load(&ctx.at("mlp"), hidden, inner, Bias::None, Activation::Silu)?,
        })
    }
}

struct Qwen2 {
    stage: Stage,
    media: MediaFeatures,
    blocks: Vec<Block>,
    layers: Vec<LayerSpec>,
    context_length: usize,
}

impl Qwen2 {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        check_activation("hidden_act", config.hidden_act.as_deref(), &["silu"])?;
        let heads =
            Heads::new(config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim)?;
        let rope = rope(ctx, heads)?;
        let window = config.sliding_window.filter(|_| config.use_sliding_window);
        let windows = windows(config.num_hidden_layers, config.layer_types.as_deref(), window, |layer| {
            window.is_some() && layer >= config.max_window_layers
        })?;
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

impl CausalLm for Qwen2 {
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
