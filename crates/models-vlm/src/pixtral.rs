//! Pixtral's eyes: a Llama-like transformer over pictures of any size, whose patches know their row and column by a rotary
//! embedding on two axes.
//!
//! Source: Agrawal et al., arXiv:2410.07073; layer names as in the Hugging Face checkpoints.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Batch, Bias, Error, LoadContext, Ops, Result, Tensor,
    kv::{Attending, AttentionSpec, KvStore},
    model::LayerSpec,
    nn::{GatedMlp, Linear, RmsNorm, Rope, RopeConfig},
    vision::Pictures,
};

use crate::{config::activation, rows, vit::selected};

/// Of all norms; no `config.json` says it.
const EPS: f32 = 1e-5;

/// `vision_config`, with what `PixtralVisionConfig` has where it says nothing.
#[derive(Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Config {
    pub hidden_size: usize,
    intermediate_size: usize,
    pub num_hidden_layers: usize,
    num_attention_heads: usize,
    head_dim: Option<usize>,
    num_channels: usize,
    patch_size: usize,
    hidden_act: String,
    rope_theta: Option<f64>,
    /// As transformers 5 writes it.
    rope_parameters: Option<RopeParameters>,
}

#[derive(Debug, Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hidden_size: 1024,
            intermediate_size: 4096,
            num_hidden_layers: 24,
            num_attention_heads: 16,
            head_dim: None,
            num_channels: 3,
            patch_size: 16,
            hidden_act: "gelu".into(),
            rope_theta: None,
            rope_parameters: None,
        }
    }
}

impl Config {
    pub fn new(config: &Value) -> Result<Self> {
        let config = Self::deserialize(config).map_err(|e| Error::Config(format!("vision_config: {e}")))?;
        let dim = config.head_dim();
        if dim == 0 || dim * config.num_attention_heads != config.hidden_size || !dim.is_multiple_of(4) {
            return Err(Error::Config(format!(
                "vision_config: {} heads of {dim} elements in a hidden size of {}; two axes need a multiple of 4",
                config.num_attention_heads, config.hidden_size
            )));
        }
        Ok(config)
    }

    fn head_dim(&self) -> usize {
        self.head_dim.unwrap_or(self.hidden_size / self.num_attention_heads.max(1))
    }

    /// Pairs of elements turn in turn by row and by column, as their frequencies fall; first stand those by row.
    fn rope(&self) -> RopeConfig {
        let theta = self.rope_parameters.as_ref().and_then(|p| p.rope_theta).or(self.rope_theta).unwrap_or(10_000.0);
        let all = RopeConfig::plain(self.head_dim(), theta).inv_freq;
        let every_other = |first: usize| all.iter().copied().skip(first).step_by(2);
        let pairs = all.len() / 2;
        RopeConfig {
            inv_freq: every_other(0).chain(every_other(1)).collect(),
            magnitude: 1.0,
            axes: [vec![0; pairs], vec![1; pairs]].concat(),
        }
    }
}

struct Attention {
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    rope: Rope,
    spec: AttentionSpec,
}

struct Block {
    ops: Ops,
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let &Config { hidden_size: hidden, intermediate_size: inner, num_attention_heads: heads, .. } = config;
        let attention = ctx.at("attention");
        let projection = |name| attention.linear(name, hidden, hidden, Bias::None);
        let act = activation(&config.hidden_act)?;
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.rms_norm("attention_norm", hidden, EPS)?,
            attention: Attention {
                query: projection("q_proj")?.into_heads(heads),
                key: projection("k_proj")?.into_heads(heads),
                value: projection("v_proj")?.into_heads(heads),
                output: projection("o_proj")?,
                rope: Rope::new(ctx.ops(), &config.rope())?,
                spec: AttentionSpec { heads, scale: (config.head_dim() as f32).powf(-0.5) },
            },
            mlp_norm: ctx.rms_norm("ffn_norm", hidden, EPS)?,
            mlp: GatedMlp::load(&ctx.at("feed_forward"), hidden, inner, Bias::None, act)?,
        })
    }

    /// [patches, hidden] → [patches, hidden].
    fn forward(&self, x: &Tensor, layer: usize, kv: &mut Attending<'_>, batch: &Batch) -> Result<Tensor> {
        let Attention { query, key, value, output, rope, spec } = &self.attention;
        let [q, k, v] =
            kv.by_rows(x, |x| Linear::forward_all(&self.attention_norm.forward(x)?, [query, key, value]))?;
        let [q, k] = rope.forward([&q, &k], batch)?;
        let attended = kv.attend(layer, &q, &k, &v, batch, *spec)?;
        let [attended] = kv.by_rows(&attended, |x| Ok([output.forward(x)?]))?;
        let x = self.ops.add(x, &attended)?;
        let [x] = kv.by_rows(&x, |x| Ok([self.ops.add(x, &self.mlp.forward(&self.mlp_norm.forward(x)?)?)?]))?;
        Ok(x)
    }
}

/// The encoder up to some block.
pub(crate) struct Pixtral {
    patches: Linear,
    norm: RmsNorm,
    blocks: Vec<Block>,
    layer: LayerSpec,
    patch_len: usize,
}

impl Pixtral {
    /// With the first so many blocks.
    pub fn load(ctx: &LoadContext<'_>, config: &Config, blocks: usize) -> Result<Self> {
        let layers = ctx.at("transformer.layers");
        for unused in blocks..config.num_hidden_layers {
            layers.at(&unused.to_string()).ignore(|_| true);
        }
        let &Config { hidden_size: hidden, num_channels: channels, patch_size: patch, .. } = config;
        Ok(Self {
            patches: ctx.patch_embedding("patch_conv", hidden, channels, &[patch; 2], Bias::None)?,
            norm: ctx.rms_norm("ln_pre", hidden, EPS)?,
            blocks: (0..blocks).map(|i| Block::load(&layers.at(&i.to_string()), config)).collect::<Result<_>>()?,
            layer: LayerSpec { kv_heads: config.num_attention_heads, head_dim: config.head_dim(), window: None },
            patch_len: channels * patch * patch,
        })
    }

    /// What the KV store is told of its layers.
    pub fn layers(&self) -> Vec<LayerSpec> {
        vec![self.layer; self.blocks.len()]
    }

    /// Numbers of a patch.
    pub fn patch_len(&self) -> usize {
        self.patch_len
    }

    /// Hidden states [patches, hidden] after each of so many blocks.
    pub fn states(&self, pictures: &Pictures, after: &[usize], kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let batch = kv.segments(&rows::lengths(&pictures.grids), Some(rows::axes(&pictures.grids)))?;
        let [x] = kv.by_rows(&pictures.patches, |x| Ok([self.norm.forward(&self.patches.forward(x)?)?]))?;
        selected(x, after, self.blocks.len(), |layer, x| self.blocks[layer].forward(x, layer, kv, &batch))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn frequencies_alternate_between_rows_and_columns() {
        let config = json!({"hidden_size": 16, "num_attention_heads": 2, "rope_theta": 16.0});
        let rope = Config::new(&config).expect("sound").rope();
        assert_eq!((rope.inv_freq, rope.axes), (vec![1.0, 0.25, 0.5, 0.125], vec![0, 0, 1, 1]));
        let odd = Config::new(&json!({"hidden_size": 12, "num_attention_heads": 2})).expect_err("pairs on two axes");
        assert!(odd.to_string().contains("2 heads of 6 elements"), "{odd}");
    }
}
