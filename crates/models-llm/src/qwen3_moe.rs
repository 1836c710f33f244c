//! Qwen3 with mixtures of experts: Qwen3's attention, and in most layers a router and many small MLPs in place of one.
//!
//! Source: Qwen team, arXiv:2505.09388. Layer names as in the Hugging Face checkpoints, or in MLX's, which stack experts.

use serde::Deserialize;
use vllm_platform_mlx::{
    Activation, Batch, Bias, Error, LoadContext, Result, Routing, Tensor, inventory,
    kv::KvStore,
    model::{CausalLm, Family, LayerSpec},
    nn::{GatedMlp, MediaFeatures, Moe, RmsNorm, RopeConfig},
};

use crate::{
    config::{Heads, LayerType, check_activation, context_length, rope, windows},
    qwen3::Attention,
    stage::{Sizes, Stage},
};

inventory::submit! { Family::causal_lm("Qwen3MoeForCausalLM", |ctx| Ok(Box::new(Qwen3Moe::load(ctx)?))).in_stages() }

#[derive(Deserialize)]
struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    num_hidden_layers: usize,
    num_attention_heads: usize,
    num_key_value_heads: Option<usize>,
    #[serde(default = "qwen3_head_dim")]
    head_dim: usize,
    hidden_act: Option<String>,
    rms_norm_eps: f32,
    vocab_size: usize,
    #[serde(default = "qwen3_context")]
    max_position_embeddings: usize,
    #[serde(default)]
    attention_bias: bool,
    /// Most published configurations have a `sliding_window` and leave it switched off.
    #[serde(default)]
    use_sliding_window: bool,
    sliding_window: Option<usize>,
    /// Layers from the bottom that see everything.
    #[serde(default = "qwen3_max_window_layers")]
    max_window_layers: usize,
    layer_types: Option<Vec<LayerType>>,
    /// 0: a dense model.
    num_experts: usize,
    num_experts_per_tok: usize,
    moe_intermediate_size: usize,
    #[serde(default)]
    norm_topk_prob: bool,
    /// Every so many layers there are experts; 1: in all.
    #[serde(default = "one")]
    decoder_sparse_step: usize,
    /// Layers without experts all the same.
    #[serde(default)]
    mlp_only_layers: Vec<usize>,
    tie_word_embeddings: Option<bool>,
}

fn qwen3_context() -> usize {
    32_768
}

fn qwen3_head_dim() -> usize {
    128
}

fn qwen3_max_window_layers() -> usize {
    28
}

fn one() -> usize {
    1
}

impl Config {
    /// Where tokens choose among experts.
    fn is_sparse(&self, layer: usize) -> bool {
        !self.mlp_only_layers.contains(&layer)
            && self.num_experts > 0
            && (layer + 1).is_multiple_of(self.decoder_sparse_step)
    }

    fn routing(&self) -> Result<Routing> {
        let (count, per_token) = (self.num_experts, self.num_experts_per_tok);
        if count > 0 && !(1..=count).contains(&per_token) {
            return Err(Error::Config(format!("num_experts_per_tok is {per_token}, num_experts {count}")));
        }
        Ok(Routing { per_token, normalize: self.norm_topk_prob })
    }
}

/// One MLP for all tokens, or many to choose from.
enum FeedForward {
    Dense(GatedMlp),
    Sparse(Moe),
}

impl FeedForward {
    fn load(ctx: &LoadContext<'_>, config: &Config, layer: usize) -> Result<Self> {
        let (hidden, activation) = (config.hidden_size, Activation::Silu);
        if !config.is_sparse(layer) {
            return Ok(Self::Dense(GatedMlp::load(ctx, hidden, config.intermediate_size, Bias::None, activation)?));
        }
        let (inner, count) = (config.moe_intermediate_size, config.num_experts);
        Ok(Self::Sparse(Moe::load(ctx, hidden, inner, count, config.routing()?, activation)?))
    }

    /// [tokens, hidden] → [tokens, hidden].
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Sparse(moe) => moe.forward(x),
        }
    }
}

struct Block {
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: FeedForward,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config, layer: usize, heads: Heads, rope: &RopeConfig) -> Result<Self> {
        let (hidden, eps) = (config.hidden_size, config.rms_norm_eps);
        let bias = Bias::from(config.attention_bias);
        Ok(Self {
            attention_norm: ctx.rms_norm("input_layernorm", hidden, eps)?,
            attention: Attention::load(&ctx.at("self_attn"), hidden, heads, bias, eps, rope)?,
            mlp_norm: ctx.rms_norm("post_attention_layernorm", hidden, eps)?,
            mlp: FeedForward::load(&ctx.at("mlp"), config, layer)?,
        })
    }
}

struct Qwen3Moe {
    stage: Stage,
    media: MediaFeatures,
    blocks: Vec<Block>,
    layers: Vec<LayerSpec>,
    context_length: usize,
}

impl Qwen3Moe {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        check_activation("hidden_act", config.hidden_act.as_deref(), &["silu"])?;
        if config.decoder_sparse_step == 0 {
            return Err(Error::Config(
                "decoder_sparse_step is 0: it counts layers from one with experts to the next".into(),
            ));
        }
        let heads = Heads::new(
            config.hidden_size,
            config.num_attention_heads,
            config.num_key_value_heads,
            Some(config.head_dim),
        )?;
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
                .map(|layer| Block::load(&model.at(&format!("layers.{layer}")), &config, layer, heads, &rope))
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

impl CausalLm for Qwen3Moe {
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
            let transformed = self.media.deepen(layer, block.mlp.forward(&normed)?, batch)?;
            (x, normed) = self.norm_before(layer + 1).forward_residual(&x, &transformed)?;
        }
        Ok(self.stage.leave(x, normed))
    }

    fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        self.stage.logits(hidden)
    }
}
