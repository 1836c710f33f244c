//! The vocoder: from frames to samples, by way of short spectra.
//!
//! Source: iSTFTNet (Kaneko et al., arXiv:2203.02395) with a harmonic source, as in StyleTTS 2.

use vllm_platform_mlx::{
    Bias, LoadContext, Ops, Result, Tensor,
    mlx_rs::ops::{concatenate, indexing::TryIndexOp},
};

use super::{
    config::{Config, SAMPLE_RATE},
    fourier::Fourier,
    layers::{AdaIn, Bend, Conv, ConvTranspose, Sizes, Window, dim, leaky},
    noise::Noise,
    source::Source,
};

/// Harmonics of the source, the fundamental among them. No file says it.
const HARMONICS: usize = 9;

/// A residual block of three pairs of convolutions, the first of each pair dilated.
struct Block {
    ops: Ops,
    pairs: Vec<[(AdaIn, Conv); 2]>,
}

impl Block {
    fn load(
        ctx: &LoadContext<'_>,
        channels: usize,
        kernel: usize,
        dilations: [usize; 3],
        sizes: Sizes,
    ) -> Result<Self> {
        let half = |which: usize, i: usize, dilation: usize| {
            let alpha = ctx.tensor(&format!("alpha{which}.{i}"), &[1, channels, 1])?.reshape(&[1, dim(channels)])?;
            let norm = AdaIn::load(ctx, &format!("adain{which}.{i}"), channels, sizes, Bend::Snake(alpha))?;
            let window = Window::same(kernel, dilation);
            let name = format!("convs{which}.{i}");
            Ok::<_, vllm_platform_mlx::Error>((
                norm,
                Conv::load(ctx, &name, [channels; 2], window, Bias::Added, sizes.layout)?,
            ))
        };
        let pair = |(i, &dilation): (usize, &usize)| Ok([half(1, i, dilation)?, half(2, i, 1)?]);
        Ok(Self { ops: ctx.ops(), pairs: dilations.iter().enumerate().map(pair).collect::<Result<_>>()? })
    }

    /// [frames, channels] → [frames, channels].
    fn forward(&self, x: &Tensor, style: &Tensor, done: &mut Done<'_>) -> Result<Tensor> {
        let mut x = x.clone();
        for pair in &self.pairs {
            let mut residual = x.clone();
            for (norm, conv) in pair {
                residual = conv.forward(&norm.forward(&residual, style)?)?;
            }
            x = self.ops.add(&residual, &x)?;
            done(&x)?;
        }
        Ok(x)
    }
}

/// More frames of fewer channels, with the source's spectra beside them.
struct Stage {
    up: ConvTranspose,
    source: Conv,
    source_block: Block,
    blocks: Vec<Block>,
}

impl Stage {
    fn load(ctx: &LoadContext<'_>, config: &Config, i: usize, sizes: Sizes) -> Result<Self> {
        let vocoder = &config.istftnet;
        let (rate, kernel) = (vocoder.upsample_rates[i], vocoder.upsample_kernel_sizes[i]);
        let (inputs, channels) = (vocoder.upsample_initial_channel >> i, vocoder.upsample_initial_channel >> (i + 1));
        // Steps of the source's spectra for one of the frames here.
        let stride: usize = vocoder.upsample_rates[i + 1..].iter().product();
        let last = i + 1 == vocoder.upsample_rates.len();
        let window = if last {
            Window::same(1, 1)
        } else {
            Window { kernel: 2 * stride, stride, padding: stride.div_ceil(2), dilation: 1 }
        };
        let spectrum = vocoder.spectrum_len();
        let noise = ctx.at(&format!("noise_res.{i}"));
        let shapes = vocoder.resblock_kernel_sizes.iter().zip(&vocoder.resblock_dilation_sizes).enumerate();
        let block = |(j, (&kernel, &dilations)): (usize, (&usize, &[usize; 3]))| {
            let number = i * vocoder.resblock_kernel_sizes.len() + j;
            Block::load(&ctx.at(&format!("resblocks.{number}")), channels, kernel, dilations, sizes)
        };
        Ok(Self {
            up: ConvTranspose::load(ctx, &format!("ups.{i}"), [inputs, channels], [kernel, rate], sizes.layout)?,
            source: Conv::load(
                ctx,
                &format!("noise_convs.{i}"),
                [spectrum, channels],
                window,
                Bias::Added,
                sizes.layout,
            )?,
            source_block: Block::load(&noise, channels, if last { 11 } else { 7 }, [1, 3, 5], sizes)?,
            blocks: shapes.map(block).collect::<Result<_>>()?,
        })
    }

    /// `last`: whether a frame is put before the first one, so that there are as many as spectra.
    fn forward(&self, x: &Tensor, spectra: &Tensor, style: &Tensor, last: bool, done: &mut Done<'_>) -> Result<Tensor> {
        let source = self.source_block.forward(&self.source.forward(spectra)?, style, done)?;
        let mut x = self.up.forward(&leaky(x, 0.1)?)?;
        if last {
            // The sound is reflected there.
            x = concatenate(&[&x.try_index(1..2)?, &x], 0)?;
        }
        let x = x.add(&source)?;
        done(&x)?;
        let mut sum: Option<Tensor> = None;
        for block in &self.blocks {
            let y = block.forward(&x, style, done)?;
            sum = Some(match sum {
                Some(sum) => sum.add(y)?,
                None => y,
            });
        }
        // There is a block: the configuration was checked.
        Ok(sum.unwrap_or(x).multiply(Tensor::from_f32(1.0 / self.blocks.len() as f32))?)
    }
}

/// Is called with what has been asked of the device so far.
pub(super) type Done<'a> = dyn FnMut(&Tensor) -> Result<()> + 'a;

pub(super) struct Generator {
    source: Source,
    fourier: Fourier,
    stages: Vec<Stage>,
    last: Conv,
}

impl Generator {
    pub fn load(ctx: &LoadContext<'_>, config: &Config, sizes: Sizes) -> Result<Self> {
        let vocoder = &config.istftnet;
        let stages = vocoder.upsample_rates.len();
        let merge = ctx.at("m_source.l_linear");
        let weights = merge.tensor("weight", &[1, HARMONICS])?;
        let bias = merge.tensor("bias", &[1])?;
        let channels = vocoder.upsample_initial_channel >> stages;
        let last = [channels, vocoder.spectrum_len()];
        Ok(Self {
            source: Source {
                weights: numbers(&weights)?,
                bias: numbers(&bias)?[0],
                sample_rate: SAMPLE_RATE.into(),
                hop: vocoder.samples_per_pitch(),
            },
            fourier: Fourier::new(vocoder.gen_istft_n_fft, vocoder.gen_istft_hop_size),
            stages: (0..stages).map(|i| Stage::load(ctx, config, i, sizes)).collect::<Result<_>>()?,
            last: Conv::load(ctx, "conv_post", last, Window::same(7, 1), Bias::Added, sizes.layout)?,
        })
    }

    /// The source's spectra: pitch [frames, 1] → [frames · hop of the pitch / hop of the spectra + 1, numbers of a spectrum].
    pub fn spectra(&self, pitch: &Tensor, noise: &Noise) -> Result<Tensor> {
        let spectra = self.fourier.polar(&self.source.excite(&numbers(pitch)?, noise));
        let width = self.last_len();
        Ok(Tensor::from_slice(&spectra, &[dim(spectra.len() / width), dim(width)]))
    }

    fn last_len(&self) -> usize {
        self.fourier.spectrum_len()
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
        self.last.forward(&leaky(&x, 0.01)?)
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
