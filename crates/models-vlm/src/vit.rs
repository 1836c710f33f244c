//! The transformer that SigLIP and CLIP have in common (ViT: Dosovitskiy et al., arXiv:2010.11929): all patches of a picture see
//! each other, norms come before each part, and positions are learned. Layer names as in the Hugging Face checkpoints.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Activation, Batch, Bias, Error, LoadContext, Ops, Result, Tensor,
    kv::{Attending, AttentionSpec, KvStore},
    model::LayerSpec,
    nn::{LayerNorm, Linear},
};

use crate::config::activation;

/// `vision_config`.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Config {
    pub hidden_size: usize,
    intermediate_size: usize,
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    num_channels: usize,
    image_size: usize,
    patch_size: usize,
    hidden_act: String,
    pub layer_norm_eps: f32,
}

impl Config {
    /// From a `vision_config` that leaves nothing out.
    pub fn new(config: Value) -> Result<Self> {
        let config: Self = serde_json::from_value(config).map_err(|e| Error::Config(format!("vision_config: {e}")))?;
        let Self { hidden_size, num_attention_heads: heads, image_size, patch_size, .. } = config;
        if heads == 0 || !hidden_size.is_multiple_of(heads) {
            return Err(Error::Config(format!("vision_config: {hidden_size} elements in {heads} heads")));
        }
        if patch_size == 0 || image_size < patch_size {
            return Err(Error::Config(format!("vision_config: pictures of {image_size} in patches of {patch_size}")));
        }
        Ok(config)
    }

    /// Patches of a row, and rows, of the pictures the model was trained with.
    pub fn side(&self) -> usize {
        self.image_size / self.patch_size
    }

    /// Numbers of a patch.
    pub fn patch_len(&self) -> usize {
        self.num_channels * self.patch_size * self.patch_size
    }

    /// The convolution that embeds patches.
    pub fn patch_embedding(&self, ctx: &LoadContext<'_>, bias: Bias) -> Result<Linear> {
        let kernel = [self.patch_size; 2];
        ctx.patch_embedding("patch_embedding", self.hidden_size, self.num_channels, &kernel, bias)
    }

    /// Pictures have as many patches as there are positions.
    pub fn check(&self, grids: &[[usize; 2]]) -> Result<()> {
        let side = self.side();
        match grids.iter().find(|grid| **grid != [side, side]) {
            Some([rows, columns]) => {
                Err(Error::Plan(format!("a picture of {rows} by {columns} patches; the model takes {side} by {side}")))
            }
            None => Ok(()),
        }
    }
}

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    spec: AttentionSpec,
}

struct Block {
    ops: Ops,
    attention_norm: LayerNorm,
    attention: Attention,
    mlp_norm: LayerNorm,
    up: Linear,
    activation: Activation,
    down: Linear,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let &Config { hidden_size: hidden, intermediate_size: inner, num_attention_heads: heads, .. } = config;
        let (attention, mlp) = (ctx.at("self_attn"), ctx.at("mlp"));
        let projection = |name| attention.linear(name, hidden, hidden, Bias::Added);
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.layer_norm("layer_norm1", hidden, config.layer_norm_eps)?,
            attention: Attention {
                query: projection("q_proj")?.into_heads(heads),
                key: projection("k_proj")?.into_heads(heads),
                value: projection("v_proj")?.into_heads(heads),
                output: projection("out_proj")?,
                spec: AttentionSpec { heads, scale: ((hidden / heads) as f32).powf(-0.5) },
            },
            mlp_norm: ctx.layer_norm("layer_norm2", hidden, config.layer_norm_eps)?,
            up: mlp.linear("fc1", hidden, inner, Bias::Added)?,
            activation: activation(&config.hidden_act)?,
            down: mlp.linear("fc2", inner, hidden, Bias::Added)?,
        })
    }

    /// [patches, hidden] → [patches, hidden].
    fn forward(&self, x: &Tensor, layer: usize, kv: &mut Attending<'_>, batch: &Batch) -> Result<Tensor> {
        let Attention { query, key, value, output, spec } = &self.attention;
        let qkv = kv.by_rows(x, |x| Linear::forward_all(&self.attention_norm.forward(x)?, [query, key, value]))?;
        let [q, k, v] = &qkv;
        let attended = kv.attend(layer, q, k, v, batch, *spec)?;
        let [attended] = kv.by_rows(&attended, |x| Ok([output.forward(x)?]))?;
        let x = self.ops.add(x, &attended)?;
        let [x] = kv.by_rows(&x, |x| {
            let inner = self.ops.activate(&self.up.forward(&self.mlp_norm.forward(x)?)?, self.activation)?;
            Ok([self.ops.add(x, &self.down.forward(&inner)?)?])
        })?;
        Ok(x)
    }
}

/// The blocks, or the first of them.
pub(crate) struct Blocks {
    blocks: Vec<Block>,
    layer: LayerSpec,
}

impl Blocks {
    /// The first `count` blocks under `encoder`; what comes behind them nobody asks for.
    pub fn load(ctx: &LoadContext<'_>, config: &Config, count: usize) -> Result<Self> {
        let layers = ctx.at("encoder.layers");
        for unused in count..config.num_hidden_layers {
            layers.at(&unused.to_string()).ignore(|_| true);
        }
        let heads = config.num_attention_heads;
        Ok(Self {
            blocks: (0..count).map(|i| Block::load(&layers.at(&i.to_string()), config)).collect::<Result<_>>()?,
            layer: LayerSpec { kv_heads: heads, head_dim: config.hidden_size / heads, window: None },
        })
    }

    /// What the KV store is told of them.
    pub fn layers(&self) -> Vec<LayerSpec> {
        vec![self.layer; self.blocks.len()]
    }

    /// The hidden states [patches, hidden] after each of so many blocks: after none it is `x` itself.
    pub fn forward(&self, x: Tensor, after: &[usize], kv: &mut Attending<'_>, batch: &Batch) -> Result<Vec<Tensor>> {
        selected(x, after, self.blocks.len(), |layer, x| self.blocks[layer].forward(x, layer, kv, batch))
    }
}

/// Runs `x` through `count` blocks and keeps the states after so many of them as `after` names, in that order.
pub(crate) fn selected(
    mut x: Tensor,
    after: &[usize],
    count: usize,
    mut block: impl FnMut(usize, &Tensor) -> Result<Tensor>,
) -> Result<Vec<Tensor>> {
    let mut states = BTreeMap::new();
    for layer in 0..=count {
        if after.contains(&layer) {
            states.insert(layer, x.clone());
        }
        if layer < count {
            x = block(layer, &x)?;
        }
    }
    let state = |blocks: &usize| states.get(blocks).cloned();
    let states: Option<Vec<_>> = after.iter().map(state).collect();
    states.ok_or_else(|| Error::Config(format!("states after {after:?} blocks of {count} were asked for")))
}
