//! Qwen3-VL and Qwen3-VL-MoE: Qwen2-VL's encoder with learned positions beside the rotary ones, and three outputs on the way
//! that the language model's first blocks are given (DeepStack; Meng et al., arXiv:2406.04334).
//!
//! Source: Qwen team, arXiv:2511.21631. Layer names as in the Hugging Face checkpoints.

use serde::Deserialize;
use serde_json::{Value, json};
use vllm_platform_mlx::{
    Activation, Bias, Error, LoadContext, Ops, Result, Tensor, inventory,
    kv::Attending,
    model::LayerSpec,
    nn::{Embedding, LayerNorm, Linear},
    vision::{Language, Pictures, VisionFamily, VisionModel},
};

use crate::{
    config::{activation, text_config, vision_config},
    qwen_vision::{Block, EPS, Mlp, MlpForm, NAMES, Patches, axes, by_token, check_mrope},
};

inventory::submit! {
    VisionFamily::new("Qwen3VLForConditionalGeneration", |c| language(c, "Qwen3ForCausalLM"), NAMES, load)
}
inventory::submit! {
    VisionFamily::new("Qwen3VLMoeForConditionalGeneration", |c| language(c, "Qwen3MoeForCausalLM"), NAMES, load)
}

fn load(ctx: &LoadContext<'_>) -> Result<Box<dyn VisionModel>> {
    Ok(Box::new(Qwen3Vl::load(ctx)?))
}

/// Qwen3 whose pairs turn by time, height and width in turns.
fn language(config: &Value, architecture: &str) -> Result<Language> {
    let mut text = text_config(config);
    check_mrope(&text)?;
    // All of the family do, and not all files say so.
    for key in ["rope_scaling", "rope_parameters"] {
        if let Some(rope) = text.get_mut(key).and_then(Value::as_object_mut) {
            rope.entry("mrope_interleaved").or_insert(json!(true));
        }
    }
    let levels = config.pointer("/vision_config/deepstack_visual_indexes").and_then(Value::as_array).map(Vec::len);
    let levels = levels.ok_or_else(|| Error::Config("vision_config.deepstack_visual_indexes is missing".into()))?;
    Ok(Language { architecture: architecture.into(), config: text.into(), levels: 1 + levels })
}

#[derive(Deserialize)]
struct Config {
    depth: usize,
    hidden_size: usize,
    hidden_act: String,
    intermediate_size: usize,
    num_heads: usize,
    out_hidden_size: usize,
    /// Of a square.
    num_position_embeddings: usize,
    /// Blocks after which there is an output.
    deepstack_visual_indexes: Vec<usize>,
}

/// Makes one vector of the patches of a token.
struct Merger {
    norm: LayerNorm,
    /// Whether the norm is over the patches of a token together.
    norms_tokens: bool,
    mlp: Mlp,
}

impl Merger {
    fn load(ctx: &LoadContext<'_>, config: &Config, patches: &Patches, norms_tokens: bool) -> Result<Self> {
        let merged = config.hidden_size * patches.of_token();
        let sizes = [merged, merged, config.out_hidden_size];
        Ok(Self {
            norm: ctx.layer_norm("norm", if norms_tokens { merged } else { config.hidden_size }, EPS)?,
            norms_tokens,
            mlp: Mlp::load(ctx, ["linear_fc1", "linear_fc2"], sizes, Activation::Gelu)?,
        })
    }

    /// [tokens, patches of a token, hidden] → [tokens, width].
    fn forward(&self, x: &Tensor, kv: &mut Attending<'_>) -> Result<Tensor> {
        let [features] = kv.by_rows(x, |x| {
            let normed = match self.norms_tokens {
                true => self.norm.forward(&x.flatten(1, 2)?)?,
                false => self.norm.forward(x)?.flatten(1, 2)?,
            };
            Ok([self.mlp.forward(&normed)?])
        })?;
        Ok(features)
    }
}

/// Learned vectors at the points of a square, between which a picture's patches take theirs: its corners are the square's.
struct Positions {
    ops: Ops,
    table: Embedding,
    side: usize,
}

impl Positions {
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let count = config.num_position_embeddings;
        let side = count.isqrt();
        if side * side != count || count == 0 {
            return Err(Error::Config(format!("num_position_embeddings is {count}: it must be a square")));
        }
        Ok(Self { ops: ctx.ops(), table: ctx.embedding("pos_embed", count, config.hidden_size)?, side })
    }

    /// Of patches at these places of a picture, the four points around each: rows of the table, and their shares.
    fn corners(&self, places: &[[usize; 2]], grids: impl Iterator<Item = [usize; 2]>) -> [Vec<(u32, f32)>; 4] {
        let mut corners: [Vec<_>; 4] = Default::default();
        for (place, grid) in places.iter().zip(grids) {
            let [row, column] = [0, 1].map(|axis| between(place[axis], grid[axis], self.side));
            for (corner, [(r, by_row), (c, by_column)]) in corners.iter_mut().zip([
                [row[0], column[0]],
                [row[0], column[1]],
                [row[1], column[0]],
                [row[1], column[1]],
            ]) {
                corner.push((u32::try_from(r * self.side + c).unwrap_or(u32::MAX), by_row * by_column));
            }
        }
        corners
    }

    /// x [patches, hidden] plus the patches' positions.
    fn add(&self, x: &Tensor, places: &[[usize; 2]], grids: &[[usize; 2]]) -> Result<Tensor> {
        let of_patch = grids.iter().flat_map(|&grid| std::iter::repeat_n(grid, grid[0] * grid[1]));
        // In f32 until they are complete.
        let mut positions = Tensor::from_f32(0.0);
        for corner in self.corners(places, of_patch) {
            let (points, shares): (Vec<_>, Vec<_>) = corner.into_iter().unzip();
            let points = self.table.forward(&Tensor::from_slice(&points, &[x.dim(0)]))?;
            positions = positions.add(points.multiply(Tensor::from_slice(&shares, &[x.dim(0), 1]))?)?;
        }
        self.ops.add(x, &positions.as_dtype(x.dtype())?)
    }
}

/// The two of `side` points that position `at` of `of` is between, when the first and last lie on one another, and its shares.
fn between(at: usize, of: usize, side: usize) -> [(usize, f32); 2] {
    let exact = (at * (side - 1)) as f32 / of.saturating_sub(1).max(1) as f32;
    let share = exact.fract();
    // Not negative, and no more than `side - 1`.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let point = exact as usize;
    [(point, 1.0 - share), ((point + 1).min(side - 1), share)]
}

struct Qwen3Vl {
    patches: Patches,
    embedding: Linear,
    positions: Positions,
    blocks: Vec<Block>,
    merger: Merger,
    /// After which block, and what comes out there.
    on_the_way: Vec<(usize, Merger)>,
    width: usize,
}

impl Qwen3Vl {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let (config, patches): (Config, Patches) = (vision_config(ctx)?, vision_config(ctx)?);
        let ctx = ctx.at("vision");
        let on_the_way = config.deepstack_visual_indexes.iter().enumerate().map(|(i, &block)| {
            if block >= config.depth {
                return Err(Error::Config(format!("deepstack_visual_indexes: no block {block} of {}", config.depth)));
            }
            Ok((block, Merger::load(&ctx.at(&format!("deepstack_merger_list.{i}")), &config, &patches, true)?))
        });
        let mlp = MlpForm {
            names: ["linear_fc1", "linear_fc2"],
            inner: config.intermediate_size,
            activation: activation(&config.hidden_act)?,
        };
        Ok(Self {
            embedding: patches.embedding(&ctx, config.hidden_size, Bias::Added)?,
            positions: Positions::load(&ctx, &config)?,
            blocks: (0..config.depth)
                .map(|layer| {
                    Block::load(
                        &ctx.at(&format!("blocks.{layer}")),
                        config.hidden_size,
                        config.num_heads,
                        mlp,
                        &patches,
                    )
                })
                .collect::<Result<_>>()?,
            merger: Merger::load(&ctx.at("merger"), &config, &patches, false)?,
            on_the_way: on_the_way.collect::<Result<_>>()?,
            patches,
            width: config.out_hidden_size,
        })
    }
}

impl VisionModel for Qwen3Vl {
    fn layers(&self) -> Vec<LayerSpec> {
        self.blocks.iter().map(|block| block.attention.layer()).collect()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn levels(&self) -> usize {
        1 + self.on_the_way.len()
    }

    fn patch_len(&self) -> usize {
        self.patches.len()
    }

    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let places = self.patches.places(&pictures.grids)?;
        let lengths: Vec<_> = pictures.grids.iter().map(|[rows, columns]| rows * columns).collect();
        let batch = kv.segments(&lengths, Some(axes(&places)))?;
        let [x] = kv.by_rows(&pictures.patches, |patches| Ok([self.embedding.forward(patches)?]))?;
        let mut x = self.positions.add(&x, &places, &pictures.grids)?;
        let mut deeper = Vec::new();
        for (layer, block) in self.blocks.iter().enumerate() {
            x = block.forward(&x, layer, kv, &batch)?;
            if let Some((_, merger)) = self.on_the_way.iter().find(|(after, _)| *after == layer) {
                deeper.push(merger.forward(&by_token(&x, &self.patches)?, kv)?);
            }
        }
        let features = self.merger.forward(&by_token(&x, &self.patches)?, kv)?;
        Ok([vec![features], deeper].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_between_points() {
        assert_eq!(between(0, 7, 5), [(0, 1.0), (1, 0.0)]);
        assert_eq!(between(6, 7, 5), [(4, 1.0), (4, 0.0)]);
        assert_eq!(between(3, 9, 5), [(1, 0.5), (2, 0.5)]);
        assert_eq!(between(0, 1, 5), [(0, 1.0), (1, 0.0)]);
        assert_eq!(between(2, 5, 5), [(2, 1.0), (3, 0.0)]);
    }
}
