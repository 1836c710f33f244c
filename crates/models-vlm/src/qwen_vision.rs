//! What the encoders of Qwen2-VL, Qwen2.5-VL and Qwen3-VL share: patches in blocks that become one token, attention that turns by
//! row and column, and how files call their parts.

use serde::Deserialize;
use serde_json::{Map, Value};
use vllm_platform_mlx::{
    Activation, Batch, Bias, Error, LoadContext, Ops, Result, Tensor,
    kv::{Attending, AttentionSpec, KvStore},
    mlx_rs::ops::indexing::TryIndexOp,
    model::LayerSpec,
    nn::{LayerNorm, Linear, Rope, RopeConfig},
};

/// As published, as transformers 5 has it (and Qwen3-VL from the start), and as mlx-vlm converts both.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("visual.", "vision."),
    ("model.visual.", "vision."),
    ("vision_tower.", "vision."),
    ("model.language_model.", "model."),
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
];

/// Of all norms; no `config.json` says it.
pub(crate) const EPS: f32 = 1e-6;

/// Without its sections a rotary embedding would have one axis.
pub(crate) fn check_mrope(text: &Map<String, Value>) -> Result<()> {
    let has = |key: &str| text.get(key).and_then(|rope| rope.get("mrope_section")).is_some();
    if has("rope_scaling") || has("rope_parameters") {
        return Ok(());
    }
    Err(Error::Config("rope_scaling.mrope_section is missing".into()))
}

/// How pictures are cut into patches, and patches put together into tokens: `vision_config` of all three generations.
#[derive(Deserialize)]
pub(crate) struct Patches {
    in_channels: Option<usize>,
    /// The older spelling.
    in_chans: Option<usize>,
    #[serde(default = "two")]
    temporal_patch_size: usize,
    pub patch_size: usize,
    /// Rows, and columns, of patches that become one token.
    #[serde(default = "two")]
    pub spatial_merge_size: usize,
    rope_parameters: Option<RopeParameters>,
}

#[derive(Deserialize)]
struct RopeParameters {
    rope_theta: Option<f64>,
}

fn two() -> usize {
    2
}

impl Patches {
    /// Numbers of a patch.
    pub fn len(&self) -> usize {
        self.channels() * self.temporal_patch_size * self.patch_size * self.patch_size
    }

    fn channels(&self) -> usize {
        self.in_channels.or(self.in_chans).unwrap_or(3)
    }

    /// The convolution that embeds patches.
    pub fn embedding(&self, ctx: &LoadContext<'_>, hidden: usize, bias: Bias) -> Result<Linear> {
        let kernel = [self.temporal_patch_size, self.patch_size, self.patch_size];
        ctx.patch_embedding("patch_embed.proj", hidden, self.channels(), &kernel, bias)
    }

    /// Patches of a token.
    pub fn of_token(&self) -> usize {
        self.spatial_merge_size * self.spatial_merge_size
    }

    /// Row and column of each patch of all pictures, in the order they stand in.
    pub fn places(&self, grids: &[[usize; 2]]) -> Result<Vec<[usize; 2]>> {
        let merge = self.spatial_merge_size;
        let mut places = Vec::new();
        for &[rows, columns] in grids {
            if rows == 0 || columns == 0 || !rows.is_multiple_of(merge) || !columns.is_multiple_of(merge) {
                return Err(Error::Plan(format!("{rows} by {columns} patches are no blocks of {merge} by {merge}")));
            }
            for (row, column) in (0..rows).step_by(merge).flat_map(|r| (0..columns).step_by(merge).map(move |c| (r, c)))
            {
                places.extend((0..merge * merge).map(|i| [row + i / merge, column + i % merge]));
            }
        }
        Ok(places)
    }

    /// What turns heads of `dim` elements by row and column: half of the pairs each, at the same frequencies.
    fn rope(&self, dim: usize) -> Result<RopeConfig> {
        if !dim.is_multiple_of(4) {
            return Err(Error::Config(format!("heads have {dim} elements: two axes need a multiple of 4")));
        }
        let theta = self.rope_parameters.as_ref().and_then(|p| p.rope_theta).unwrap_or(10_000.0);
        let axis = RopeConfig::plain(dim / 2, theta).inv_freq;
        let axes = [vec![0; axis.len()], vec![1; axis.len()]].concat();
        Ok(RopeConfig { inv_freq: [axis.clone(), axis].concat(), magnitude: 1.0, axes })
    }
}

/// Rows and columns as a batch wants them.
pub(crate) fn axes(places: &[[usize; 2]]) -> [Vec<u32>; 2] {
    [0, 1].map(|axis| places.iter().map(|place| u32::try_from(place[axis]).unwrap_or(u32::MAX)).collect())
}

/// Attention of all patches of a picture, or of a window, to all.
pub(crate) struct Attention {
    qkv: Linear,
    output: Linear,
    rope: Rope,
    heads: usize,
    dim: usize,
}

impl Attention {
    pub fn load(ctx: &LoadContext<'_>, hidden: usize, heads: usize, patches: &Patches) -> Result<Self> {
        if heads == 0 || !hidden.is_multiple_of(heads) {
            return Err(Error::Config(format!("vision_config: {hidden} elements in {heads} heads")));
        }
        let dim = hidden / heads;
        Ok(Self {
            qkv: ctx.linear("qkv", hidden, 3 * hidden, Bias::Added)?.into_heads(3 * heads),
            output: ctx.linear("proj", hidden, hidden, Bias::Added)?,
            rope: Rope::new(ctx.ops(), &patches.rope(dim)?)?,
            heads,
            dim,
        })
    }

    /// What the KV store is told of it.
    pub fn layer(&self) -> LayerSpec {
        LayerSpec { kv_heads: self.heads, head_dim: self.dim, window: None }
    }

    /// [patches, hidden] → [patches, hidden], after `norm`.
    pub fn forward(
        &self,
        x: &Tensor,
        norm: impl Fn(&Tensor) -> Result<Tensor>,
        layer: usize,
        kv: &mut Attending<'_>,
        batch: &Batch,
    ) -> Result<Tensor> {
        let heads = i32::try_from(self.heads).unwrap_or(i32::MAX);
        let [q, k, v] = kv.by_rows(x, |x| {
            let qkv = self.qkv.forward(&norm(x)?)?;
            let part = |i: i32| qkv.try_index((.., i * heads..(i + 1) * heads, ..));
            Ok([part(0)?, part(1)?, part(2)?])
        })?;
        let [q, k] = self.rope.forward([&q, &k], batch)?;
        let spec = AttentionSpec { heads: self.heads, scale: (self.dim as f32).powf(-0.5) };
        let attended = kv.attend(layer, &q, &k, &v, batch, spec)?;
        let [output] = kv.by_rows(&attended, |x| Ok([self.output.forward(x)?]))?;
        Ok(output)
    }
}

/// Two projections with an activation between them.
pub(crate) struct Mlp {
    ops: Ops,
    up: Linear,
    activation: Activation,
    down: Linear,
}

impl Mlp {
    /// `names` of the two projections, `sizes` of their inputs, of what is between, and of their outputs.
    pub fn load(ctx: &LoadContext<'_>, names: [&str; 2], sizes: [usize; 3], activation: Activation) -> Result<Self> {
        let [hidden, inner, outputs] = sizes;
        Ok(Self {
            ops: ctx.ops(),
            up: ctx.linear(names[0], hidden, inner, Bias::Added)?,
            activation,
            down: ctx.linear(names[1], inner, outputs, Bias::Added)?,
        })
    }

    /// [rows, hidden] → [rows, outputs].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.down.forward(&self.ops.activate(&self.up.forward(x)?, self.activation)?)
    }
}

/// [patches, hidden] → [tokens, patches of a token, hidden].
pub(crate) fn by_token(x: &Tensor, patches: &Patches) -> Result<Tensor> {
    let of_token = i32::try_from(patches.of_token()).unwrap_or(i32::MAX);
    Ok(x.reshape(&[-1, of_token, x.dim(-1)])?)
}

/// How a [`Block`]'s two projections are called, what is between them, and its size.
#[derive(Clone, Copy)]
pub(crate) struct MlpForm {
    pub names: [&'static str; 2],
    pub inner: usize,
    pub activation: Activation,
}

/// A block of Qwen2-VL and Qwen3-VL: layer norms, attention, two projections.
pub(crate) struct Block {
    ops: Ops,
    attention_norm: LayerNorm,
    pub attention: Attention,
    mlp_norm: LayerNorm,
    mlp: Mlp,
}

impl Block {
    pub fn load(ctx: &LoadContext<'_>, hidden: usize, heads: usize, mlp: MlpForm, patches: &Patches) -> Result<Self> {
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.layer_norm("norm1", hidden, EPS)?,
            attention: Attention::load(&ctx.at("attn"), hidden, heads, patches)?,
            mlp_norm: ctx.layer_norm("norm2", hidden, EPS)?,
            mlp: Mlp::load(&ctx.at("mlp"), mlp.names, [hidden, mlp.inner, hidden], mlp.activation)?,
        })
    }

    /// [patches, hidden] → [patches, hidden].
    pub fn forward(&self, x: &Tensor, layer: usize, kv: &mut Attending<'_>, batch: &Batch) -> Result<Tensor> {
        let attended = self.attention.forward(x, |x| self.attention_norm.forward(x), layer, kv, batch)?;
        let x = self.ops.add(x, &attended)?;
        let [x] = kv.by_rows(&x, |x| Ok([self.ops.add(x, &self.mlp.forward(&self.mlp_norm.forward(x)?)?)?]))?;
        Ok(x)
    }
}
