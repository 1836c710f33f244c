//! Qwen2.5-VL: Qwen2-VL's encoder with RMS norms and gated MLPs, whose patches see only their window in most blocks.
//!
//! Source: Bai et al., arXiv:2502.13923. Layer names as in the Hugging Face checkpoints.

use serde::Deserialize;
use vllm_platform_mlx::{
    Activation, Batch, Bias, Error, LoadContext, Ops, Result, Tensor, inventory,
    kv::Attending,
    mlx_rs::ops::indexing::take_axis,
    model::LayerSpec,
    nn::{GatedMlp, Linear, RmsNorm},
    vision::{Pictures, VisionFamily, VisionModel},
};

use crate::{
    config::{activation, vision_config},
    qwen_vision::{Attention, EPS, Mlp, NAMES, Patches, axes, by_token},
    qwen2_vl::language,
};

inventory::submit! {
    VisionFamily::new("Qwen2_5_VLForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Qwen25Vl::load(ctx)?)))
}

#[derive(Deserialize)]
struct Config {
    depth: usize,
    hidden_size: usize,
    hidden_act: String,
    intermediate_size: usize,
    num_heads: usize,
    out_hidden_size: usize,
    /// In pixels.
    window_size: usize,
    /// Blocks whose patches see the whole picture.
    fullatt_block_indexes: Vec<usize>,
}

struct Block {
    ops: Ops,
    attention_norm: RmsNorm,
    attention: Attention,
    mlp_norm: RmsNorm,
    mlp: GatedMlp,
}

impl Block {
    fn load(ctx: &LoadContext<'_>, config: &Config, patches: &Patches) -> Result<Self> {
        let (hidden, inner) = (config.hidden_size, config.intermediate_size);
        let activation = activation(&config.hidden_act)?;
        Ok(Self {
            ops: ctx.ops(),
            attention_norm: ctx.rms_norm("norm1", hidden, EPS)?,
            attention: Attention::load(&ctx.at("attn"), hidden, config.num_heads, patches)?,
            mlp_norm: ctx.rms_norm("norm2", hidden, EPS)?,
            mlp: GatedMlp::load(&ctx.at("mlp"), hidden, inner, Bias::Added, activation)?,
        })
    }

    fn forward(&self, x: &Tensor, layer: usize, kv: &mut Attending<'_>, batch: &Batch) -> Result<Tensor> {
        let attended = self.attention.forward(x, |x| self.attention_norm.forward(x), layer, kv, batch)?;
        let x = self.ops.add(x, &attended)?;
        let [x] = kv.by_rows(&x, |x| Ok([self.ops.add(x, &self.mlp.forward(&self.mlp_norm.forward(x)?)?)?]))?;
        Ok(x)
    }
}

/// The tokens of all pictures in the order of windows, and the tokens of each window.
struct Windows {
    order: Vec<usize>,
    lengths: Vec<usize>,
}

impl Windows {
    /// Windows of `side` by `side` tokens, from the upper left on: those at the other edges are what is left.
    fn new(grids: impl Iterator<Item = [usize; 2]>, side: usize) -> Self {
        let (mut order, mut lengths, mut first) = (Vec::new(), Vec::new(), 0);
        for [rows, columns] in grids {
            for (top, left) in (0..rows).step_by(side).flat_map(|r| (0..columns).step_by(side).map(move |c| (r, c))) {
                let (bottom, right) = (rows.min(top + side), columns.min(left + side));
                order.extend((top..bottom).flat_map(|r| (left..right).map(move |c| first + r * columns + c)));
                lengths.push((bottom - top) * (right - left));
            }
            first += rows * columns;
        }
        Self { order, lengths }
    }

    /// Where each token stands among windows.
    fn inverse(&self) -> Vec<usize> {
        let mut inverse = vec![0; self.order.len()];
        self.order.iter().enumerate().for_each(|(at, &token)| inverse[token] = at);
        inverse
    }
}

/// Some rows of x [rows, …].
fn rows(x: &Tensor, which: &[usize]) -> Result<Tensor> {
    let which: Vec<u32> = which.iter().map(|&row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
    let count = i32::try_from(which.len()).unwrap_or(i32::MAX);
    Ok(take_axis(x, Tensor::from_slice(&which, &[count]), 0)?)
}

struct Qwen25Vl {
    patches: Patches,
    /// Rows, and columns, of tokens.
    window: usize,
    /// Of each block: whether its patches see the whole picture.
    sees_all: Vec<bool>,
    embedding: Linear,
    blocks: Vec<Block>,
    merger_norm: RmsNorm,
    merger: Mlp,
    width: usize,
}

impl Qwen25Vl {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let (config, patches): (Config, Patches) = (vision_config(ctx)?, vision_config(ctx)?);
        let window = config.window_size / patches.spatial_merge_size / patches.patch_size;
        if window == 0 {
            return Err(Error::Config(format!("window_size is {}: less than a token's pixels", config.window_size)));
        }
        let (ctx, hidden, width) = (ctx.at("vision"), config.hidden_size, config.out_hidden_size);
        let merged = hidden * patches.of_token();
        let merger = ctx.at("merger");
        Ok(Self {
            window,
            sees_all: (0..config.depth).map(|block| config.fullatt_block_indexes.contains(&block)).collect(),
            embedding: patches.embedding(&ctx, hidden, Bias::None)?,
            blocks: (0..config.depth)
                .map(|layer| Block::load(&ctx.at(&format!("blocks.{layer}")), &config, &patches))
                .collect::<Result<_>>()?,
            merger_norm: merger.rms_norm("ln_q", hidden, EPS)?,
            merger: Mlp::load(&merger, ["mlp.0", "mlp.2"], [merged, merged, width], Activation::Gelu)?,
            patches,
            width,
        })
    }
}

impl VisionModel for Qwen25Vl {
    fn layers(&self) -> Vec<LayerSpec> {
        self.blocks.iter().map(|block| block.attention.layer()).collect()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn patch_len(&self) -> usize {
        self.patches.len()
    }

    /// All blocks see the tokens in the order of windows, so that both windows and pictures are segments.
    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let (merge, of_token) = (self.patches.spatial_merge_size, self.patches.of_token());
        let places = self.patches.places(&pictures.grids)?;
        let windows = Windows::new(pictures.grids.iter().map(|grid| grid.map(|side| side / merge)), self.window);
        let order = windows.order.iter().flat_map(|token| token * of_token..(token + 1) * of_token);
        let places: Vec<_> = order.map(|patch| places[patch]).collect();

        let whole: Vec<_> = pictures.grids.iter().map(|[rows, columns]| rows * columns).collect();
        let whole = kv.segments(&whole, Some(axes(&places)))?;
        let parts: Vec<_> = windows.lengths.iter().map(|tokens| tokens * of_token).collect();
        let parts = kv.segments(&parts, Some(axes(&places)))?;

        let [x] = kv.by_rows(&pictures.patches, |patches| Ok([self.embedding.forward(patches)?]))?;
        let mut x = rows(&by_token(&x, &self.patches)?, &windows.order)?.flatten(0, 1)?;
        for (layer, (block, &sees_all)) in self.blocks.iter().zip(&self.sees_all).enumerate() {
            x = block.forward(&x, layer, kv, if sees_all { &whole } else { &parts })?;
        }
        let [features] = kv.by_rows(&by_token(&x, &self.patches)?, |x| {
            Ok([self.merger.forward(&self.merger_norm.forward(x)?.flatten(1, 2)?)?])
        })?;
        Ok(vec![rows(&features, &windows.inverse())?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_that_do_not_divide_a_picture() {
        let windows = Windows::new([[3, 5], [1, 2]].into_iter(), 2);
        assert_eq!(windows.order, [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14, 15, 16]);
        assert_eq!(windows.lengths, [4, 4, 2, 2, 2, 1, 2]);
        let inverse = windows.inverse();
        assert!(windows.order.iter().enumerate().all(|(at, &token)| inverse[token] == at));
    }
}
