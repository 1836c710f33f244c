//! How long each phoneme is, and the pitch and loudness of each frame.
//!
//! Source: the predictor of StyleTTS 2 (Li et al., arXiv:2306.07691).

use vllm_platform_mlx::{
    Bias, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{broadcast_to, concatenate, ones, sigmoid, zeros},
    nn::{Conv1d, LayerNorm, Linear, Lstm},
};

use super::{
    config::Config,
    layers::{EPS, ResBlock, both_ways, dim, pointwise},
};

/// Layer norm whose factor and shift a style says.
struct AdaLayerNorm {
    ops: Ops,
    plain: LayerNorm,
    style: Linear,
}

impl AdaLayerNorm {
    fn load(ctx: &LoadContext<'_>, channels: usize, style: usize) -> Result<Self> {
        let size = [dim(channels)];
        let plain = LayerNorm::new(ctx.ops(), ones::<f32>(&size)?, Some(zeros::<f32>(&size)?), EPS);
        Ok(Self { ops: ctx.ops(), plain, style: ctx.linear("fc", style, 2 * channels, Bias::Added)? })
    }

    fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let affine = self.style.forward(style)?.split_equal(2, 1)?;
        let x = self.plain.forward(x)?;
        Ok(self.ops.add(&x, &x.multiply(&affine[0])?)?.add(&affine[1])?)
    }
}

/// A curve over frames, two numbers a frame.
struct Curve {
    blocks: [ResBlock; 3],
    projection: Conv1d,
}

impl Curve {
    fn load(ctx: &LoadContext<'_>, name: &str, channels: usize, style: usize) -> Result<Self> {
        let (blocks, half) = (ctx.at(name), channels / 2);
        Ok(Self {
            blocks: [
                ResBlock::load(&blocks.at("0"), [channels; 2], false, style)?,
                ResBlock::load(&blocks.at("1"), [channels, half], true, style)?,
                ResBlock::load(&blocks.at("2"), [half; 2], false, style)?,
            ],
            projection: pointwise(ctx, &format!("{name}_proj"), half, 1, Bias::Added)?,
        })
    }

    /// [frames, channels] → [2 · frames, 1].
    fn forward(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let mut x = x.clone();
        for block in &self.blocks {
            x = block.forward(&x, style)?;
        }
        self.projection.forward(&x)
    }
}

pub(super) struct Prosody {
    encoder: Vec<(Lstm, AdaLayerNorm)>,
    lstm: Lstm,
    durations: Linear,
    shared: Lstm,
    pitch: Curve,
    loudness: Curve,
}

impl Prosody {
    pub fn load(ctx: &LoadContext<'_>, config: &Config, style: usize) -> Result<Self> {
        let channels = config.hidden_dim;
        let lstm = |ctx: &LoadContext<'_>, name: &str| both_ways(ctx, name, channels + style, channels);
        let layers = ctx.at("text_encoder.lstms");
        let encoder = |i: usize| {
            let norm = layers.at(&(2 * i + 1).to_string());
            Ok((lstm(&layers, &(2 * i).to_string())?, AdaLayerNorm::load(&norm, channels, style)?))
        };
        Ok(Self {
            encoder: (0..config.n_layer).map(encoder).collect::<Result<_>>()?,
            lstm: lstm(ctx, "lstm")?,
            durations: ctx.at("duration_proj").linear("linear_layer", channels, config.max_dur, Bias::Added)?,
            shared: lstm(ctx, "shared")?,
            pitch: Curve::load(ctx, "F0", channels, style)?,
            loudness: Curve::load(ctx, "N", channels, style)?,
        })
    }

    /// What is known of the phonemes, the style beside it: [symbols, channels] → [symbols, channels + style].
    pub fn encode(&self, x: &Tensor, style: &Tensor) -> Result<Tensor> {
        let beside = broadcast_to(style, &[x.dim(0), style.dim(1)])?;
        let mut x = concatenate(&[x, &beside], 1)?;
        for (lstm, norm) in &self.encoder {
            x = concatenate(&[&norm.forward(&lstm.forward(&x)?, style)?, &beside], 1)?;
        }
        Ok(x)
    }

    /// Frames of each symbol as the model would have them, not yet whole: [symbols, channels + style] → `[symbols]`.
    pub fn durations(&self, encoded: &Tensor) -> Result<Tensor> {
        let x = self.durations.forward(&self.lstm.forward(encoded)?)?;
        Ok(sigmoid(x)?.sum_axes(&[1], false)?)
    }

    /// Pitch in Hz and loudness, two of each for every frame: [frames, channels + style] → [2 · frames, 1] both.
    pub fn curves(&self, frames: &Tensor, style: &Tensor) -> Result<[Tensor; 2]> {
        let x = self.shared.forward(frames)?;
        Ok([self.pitch.forward(&x, style)?, self.loudness.forward(&x, style)?])
    }
}
