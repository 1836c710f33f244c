//! The vocoder: from frames to samples, by way of short spectra.
//!
//! Source: iSTFTNet (Kaneko et al., arXiv:2203.02395) with a harmonic source, as in StyleTTS 2.

use vllm_platform_mlx::{
    Bias, ConvGeometry, LoadContext, Nonlinearity, Ops, Outlet, Result, Tensor, TransposedGeometry,
    mlx_rs::ops::{concatenate, indexing::TryIndexOp},
    nn::{AdaptiveNorm, Conv1d, ConvTranspose1d},
};

use super::{
    config::{Generator as Config, SAMPLE_RATE},
    fourier::Fourier,
    layers::{EPS, bent, dim, same, through},
    noise::Noise,
    source::Source,
};

/// Harmonics of the source, the fundamental among them. No file says it.
const HARMONICS: usize = 9;

/// A residual block of three pairs of convolutions, the first of each pair dilated.
struct Block {
    pairs: Vec<[Half; 2]>,
}

/// A norm, a nonlinearity and a convolution.
struct Half {
    norm: AdaptiveNorm,
    /// Of the nonlinearity.
    alpha: Tensor,
    conv: Conv1d,
}

impl Half {
    fn forward(&self, x: &Tensor, style: &Tensor, outlet: Outlet<'_>) -> Result<Tensor> {
        let map = self.norm.map(x, style)?;
        self.conv.forward_with(x, through(&map, Nonlinearity::Snake(&self.alpha)), outlet)
    }
}

impl Block {
    fn load(
        ctx: &LoadContext<'_>,
        channels: usize,
        kernel: usize,
        dilations: [usize; 3],
        style: usize,
    ) -> Result<Self> {
        let half = |which: usize, i: usize, dilation: usize| -> Result<Half> {
            let alpha = ctx.tensor(&format!("alpha{which}.{i}"), &[1, channels, 1])?.reshape(&[dim(channels)])?;
            let norm = ctx.adaptive_norm(&format!("adain{which}.{i}"), style, channels, EPS)?;
            let conv = same(ctx, &format!("convs{which}.{i}"), [channels; 2], kernel, dilation)?;
            Ok(Half { norm, alpha, conv })
        };
        let pair = |(i, &dilation): (usize, &usize)| Ok([half(1, i, dilation)?, half(2, i, 1)?]);
        Ok(Self { pairs: dilations.iter().enumerate().map(pair).collect::<Result<_>>()? })
    }

    /// [frames, channels] → [frames, channels], times `factor`.
    fn forward(&self, x: &Tensor, style: &Tensor, factor: f32, done: &mut Done<'_>) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, [first, second]) in self.pairs.iter().enumerate() {
            let residual = first.forward(&x, style, Outlet::default())?;
            let factor = if i + 1 == self.pairs.len() { factor } else { 1.0 };
            x = second.forward(&residual, style, Outlet { residual: Some(&x), factor })?;
            done(&x)?;
        }
        Ok(x)
    }
}

/// More frames of fewer channels, with the source's spectra beside them.
struct Stage {
    ops: Ops,
    up: ConvTranspose1d,
    source: Conv1d,
    source_block: Block,
    blocks: Vec<Block>,
}

impl Stage {
    fn load(ctx: &LoadContext<'_>, vocoder: &Config, i: usize, style: usize) -> Result<Self> {
        let (rate, kernel) = (vocoder.upsample_rates[i], vocoder.upsample_kernel_sizes[i]);
        let (inputs, channels) = (vocoder.upsample_initial_channel >> i, vocoder.upsample_initial_channel >> (i + 1));
        // Steps of the source's spectra for one of the frames here.
        let stride: usize = vocoder.upsample_rates[i + 1..].iter().product();
        let last = i + 1 == vocoder.upsample_rates.len();
        let (width, padding) = if last { (1, 0) } else { (2 * stride, stride.div_ceil(2)) };
        let every = ConvGeometry { stride, padding, ..ConvGeometry::default() };
        let up = TransposedGeometry { stride: rate, padding: (kernel - rate) / 2, output_padding: 0, depthwise: false };
        let spectrum = vocoder.spectrum_len();
        let source_block = ctx.at(&format!("noise_res.{i}"));
        let shapes = vocoder.resblock_kernel_sizes.iter().zip(&vocoder.resblock_dilation_sizes).enumerate();
        let block = |(j, (&kernel, &dilations)): (usize, (&usize, &[usize; 3]))| {
            let number = i * vocoder.resblock_kernel_sizes.len() + j;
            Block::load(&ctx.at(&format!("resblocks.{number}")), channels, kernel, dilations, style)
        };
        Ok(Self {
            ops: ctx.ops(),
            up: ctx.conv_transpose1d(&format!("ups.{i}"), [inputs, channels, kernel], up, Bias::Added)?,
            source: ctx.conv1d(&format!("noise_convs.{i}"), [channels, spectrum, width], every, Bias::Added)?,
            source_block: Block::load(&source_block, channels, if last { 11 } else { 7 }, [1, 3, 5], style)?,
            blocks: shapes.map(block).collect::<Result<_>>()?,
        })
    }

    /// `last`: whether a frame is put before the first one, so that there are as many as spectra.
    fn forward(&self, x: &Tensor, spectra: &Tensor, style: &Tensor, last: bool, done: &mut Done<'_>) -> Result<Tensor> {
        let source = self.source_block.forward(&self.source.forward(spectra)?, style, 1.0, done)?;
        let mut x = self.up.forward_with(x, bent(Nonlinearity::LeakyRelu(0.1)))?;
        if last {
            // The sound is reflected there.
            x = concatenate(&[&x.try_index(1..2)?, &x], 0)?;
        }
        let x = self.ops.add(&x, &source)?;
        done(&x)?;
        let share = 1.0 / self.blocks.len() as f32;
        let mut sum = None;
        for block in &self.blocks {
            let y = block.forward(&x, style, share, done)?;
            sum = Some(match sum {
                Some(sum) => self.ops.add(&sum, &y)?,
                None => y,
            });
        }
        // There is a block: the configuration was checked.
        Ok(sum.unwrap_or(x))
    }
}

/// Is called with what has been asked of the device so far.
pub(super) type Done<'a> = dyn FnMut(&Tensor) -> Result<()> + 'a;

pub(super) struct Generator {
    source: Source,
    fourier: Fourier,
    stages: Vec<Stage>,
    last: Conv1d,
}

impl Generator {
    pub fn load(ctx: &LoadContext<'_>, vocoder: &Config, style: usize) -> Result<Self> {
        let stages = vocoder.upsample_rates.len();
        let merge = ctx.at("m_source.l_linear");
        let weights = merge.tensor("weight", &[1, HARMONICS])?;
        let bias = merge.tensor("bias", &[1])?;
        let channels = vocoder.upsample_initial_channel >> stages;
        Ok(Self {
            source: Source {
                weights: numbers(&weights)?,
                bias: numbers(&bias)?[0],
                sample_rate: SAMPLE_RATE.into(),
                hop: vocoder.samples_per_pitch(),
            },
            fourier: Fourier::new(vocoder.gen_istft_n_fft, vocoder.gen_istft_hop_size),
            stages: (0..stages).map(|i| Stage::load(ctx, vocoder, i, style)).collect::<Result<_>>()?,
            last: same(ctx, "conv_post", [channels, vocoder.spectrum_len()], 7, 1)?,
        })
    }

    /// The source's spectra: pitch [frames, 1] → [frames · hop of the pitch / hop of the spectra + 1, numbers of a spectrum].
    pub fn spectra(&self, pitch: &Tensor, noise: &Noise) -> Result<Tensor> {
        let spectra = self.fourier.polar(&self.source.excite(&numbers(pitch)?, noise));
        let width = self.fourier.spectrum_len();
        Ok(Tensor::from_slice(&spectra, &[dim(spectra.len() / width), dim(width)]))
    }

    /// x [frames, channels] and the source's spectra → the sound's spectra.
    pub fn forward(
        &self,
        x: &Tensor,
        spectra: &Tensor,
        style: &Tensor,
        done: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut x = x.clone();
        for (i, stage) in self.stages.iter().enumerate() {
            let last = i + 1 == self.stages.len();
            x = stage.forward(&x, spectra, style, last, &mut |x| done(i, x))?;
        }
        self.last.forward_with(&x, bent(Nonlinearity::LeakyRelu(0.01)), Outlet::default())
    }

    /// The sound of its spectra.
    pub fn sound(&self, spectra: &Tensor) -> Result<Tensor> {
        let samples = self.fourier.samples(&numbers(spectra)?);
        Ok(Tensor::from_slice(&samples, &[dim(samples.len())]))
    }
}

/// The numbers of a tensor, waited for.
pub(super) fn numbers(x: &Tensor) -> Result<Vec<f32>> {
    let x = x.as_dtype(vllm_platform_mlx::Dtype::Float32)?.contiguous()?;
    x.eval()?;
    Ok(x.as_slice::<f32>().to_vec())
}
