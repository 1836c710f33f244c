//! From phonemes, pitch and loudness of frames to what the vocoder begins with.

use vllm_platform_mlx::{Bias, ConvGeometry, LoadContext, Result, Tensor, mlx_rs::ops::concatenate, nn::Conv1d};

use super::{
    config::Config,
    layers::{ResBlock, pointwise},
};

/// Blocks between the first and the last.
const BLOCKS: usize = 3;

pub(super) struct Decoder {
    pitch: Conv1d,
    loudness: Conv1d,
    reminder: Conv1d,
    first: ResBlock,
    blocks: Vec<ResBlock>,
}

impl Decoder {
    pub fn load(ctx: &LoadContext<'_>, config: &Config, style: usize) -> Result<Self> {
        let channels = config.hidden_dim;
        // Channels within the decoder, and of the phonemes' sound that each block is reminded of: no configuration says them.
        let inner = ctx.shape("encode.conv1.bias")?.iter().product();
        let reminder = ctx.shape("asr_res.0.bias")?.iter().product();
        let every_other = ConvGeometry { stride: 2, padding: 1, ..ConvGeometry::default() };
        let curve = |name| ctx.conv1d(name, [1, 1, 3], every_other, Bias::Added);
        let scope = ctx.at("decode");
        let block = |i: usize| {
            let outputs = if i == BLOCKS { config.istftnet.upsample_initial_channel } else { inner };
            // Beside what comes in: the reminder, pitch and loudness.
            ResBlock::load(&scope.at(&i.to_string()), [inner + reminder + 2, outputs], i == BLOCKS, style)
        };
        Ok(Self {
            pitch: curve("F0_conv")?,
            loudness: curve("N_conv")?,
            reminder: pointwise(ctx, "asr_res.0", channels, reminder, Bias::Added)?,
            first: ResBlock::load(&ctx.at("encode"), [channels + 2, inner], false, style)?,
            blocks: (0..=BLOCKS).map(block).collect::<Result<_>>()?,
        })
    }

    /// Sound of the phonemes [frames, channels], pitch and loudness [2 · frames, 1] → [2 · frames, channels of the vocoder].
    pub fn forward(
        &self,
        phonemes: &Tensor,
        [pitch, loudness]: [&Tensor; 2],
        style: &Tensor,
        done: &mut dyn FnMut(&Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let (pitch, loudness) = (self.pitch.forward(pitch)?, self.loudness.forward(loudness)?);
        let reminder = self.reminder.forward(phonemes)?;
        let mut x = self.first.forward(&concatenate(&[phonemes, &pitch, &loudness], 1)?, style)?;
        for block in &self.blocks {
            done(&x)?;
            x = block.forward(&concatenate(&[&x, &reminder, &pitch, &loudness], 1)?, style)?;
        }
        Ok(x)
    }
}
