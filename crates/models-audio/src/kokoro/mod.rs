//! Kokoro: StyleTTS 2 (Li et al., arXiv:2306.07691) with an iSTFTNet vocoder and without diffusion.
//!
//! Phonemes go two ways: an ALBERT and the predictor say how long each is, and the pitch and loudness of every frame; the text
//! encoder says what they sound like. Decoder and vocoder make sound of both. Names as in hexgrad's `KModel`; the layouts of
//! mlx-community's files, 4 and 8 bits among them, are taken too.

mod albert;
mod config;
mod decoder;
mod fourier;
mod generator;
mod layers;
mod noise;
mod prosody;
mod source;
mod text_encoder;

use std::collections::BTreeMap;

use vllm_platform_mlx::{
    Bias, Error, LoadContext, Result, Tensor, inventory,
    mlx_rs::ops::indexing::take_axis,
    nn::Linear,
    speech::{SpeechFamily, SynthesizerModel, Voiced},
};

use self::{
    albert::Albert,
    config::{Config, SAMPLE_RATE},
    decoder::Decoder,
    generator::{Generator, numbers},
    layers::dim,
    noise::Noise,
    prosody::Prosody,
    text_encoder::TextEncoder,
};

inventory::submit! { SpeechFamily::synthesizer("KModel", |ctx| Ok(Box::new(Kokoro::load(ctx)?))) }

/// What stands before the first phoneme and after the last.
const END: u32 = 0;

/// Frames of the longest utterance: a quarter of an hour. Slowly enough, any text would outgrow the memory.
const MAX_FRAMES: usize = 36_000;

struct Kokoro {
    config: Config,
    albert: Albert,
    narrow: Linear,
    prosody: Prosody,
    text_encoder: TextEncoder,
    decoder: Decoder,
    generator: Generator,
}

impl Kokoro {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config = Config::load(ctx)?;
        let style = config.style_dim;
        let decoder = ctx.at("decoder");
        Ok(Self {
            albert: Albert::load(&ctx.at("bert"), &config.plbert, config.n_token)?,
            narrow: ctx.linear("bert_encoder", config.plbert.hidden_size, config.hidden_dim, Bias::Added)?,
            prosody: Prosody::load(&ctx.at("predictor"), &config, style)?,
            text_encoder: TextEncoder::load(&ctx.at("text_encoder"), &config)?,
            decoder: Decoder::load(&decoder, &config, style)?,
            generator: Generator::load(&decoder.at("generator"), &config.istftnet, style)?,
            config,
        })
    }
}

impl SynthesizerModel for Kokoro {
    fn sample_rate(&self) -> u32 {
        SAMPLE_RATE
    }

    fn max_symbols(&self) -> usize {
        self.config.plbert.max_position_embeddings - 2
    }

    fn style_len(&self) -> usize {
        2 * self.config.style_dim
    }

    fn symbols(&self) -> BTreeMap<String, u32> {
        self.config.vocab.clone()
    }

    fn synthesize(&self, utterance: &Voiced<'_>, done: &mut dyn FnMut(&'static str, &Tensor)) -> Result<Tensor> {
        let mut done = |stage, x: &Tensor| -> Result<()> {
            x.eval()?;
            done(stage, x);
            Ok(())
        };
        let symbols: Vec<u32> = [&[END], utterance.symbols, &[END]].concat();
        let symbols = Tensor::from_slice(&symbols, &[dim(symbols.len())]);
        let styles = utterance.style.split_equal(2, 1)?;
        let (timbre, manner) = (&styles[0], &styles[1]);

        let understood = self.albert.forward(&symbols)?;
        done("albert", &understood)?;
        let encoded = self.prosody.encode(&self.narrow.forward(&understood)?, manner)?;
        done("encoded", &encoded)?;
        let durations = self.prosody.durations(&encoded)?;
        done("durations", &durations)?;
        let rows = rows(&numbers(&durations)?, utterance.speed)?;
        let curves = self.prosody.curves(&take_axis(&encoded, &rows, 0)?, manner)?;
        let [pitch, loudness] = &curves;
        done("pitch", pitch)?;
        done("loudness", loudness)?;
        let phonemes = take_axis(&self.text_encoder.forward(&symbols)?, &rows, 0)?;
        done("phonemes", &phonemes)?;
        let x = self.decoder.forward(&phonemes, [pitch, loudness], timbre, &mut |x| done("decoding", x))?;
        done("decoder", &x)?;
        let source = self.generator.spectra(pitch, &Noise::new(utterance.seed))?;
        done("source", &source)?;
        let stages = ["stage 0", "stage 1", "stage 2"];
        let x = self.generator.forward(&x, &source, timbre, &mut |i, x| done(stages[i.min(2)], x))?;
        done("spectra", &x)?;
        self.generator.sound(&x)
    }
}

/// For each frame the symbol that is heard in it: `[frames]`, u32. A symbol has at least one frame.
fn rows(durations: &[f32], speed: f32) -> Result<Tensor> {
    // Half to even, as torch and MLX round. A number that is none is 0 frames, hence 1.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let counts = durations.iter().map(|d| ((d / speed).round_ties_even() as usize).max(1));
    let mut rows = Vec::new();
    for (symbol, count) in (0u32..).zip(counts) {
        if rows.len() + count > MAX_FRAMES {
            return Err(Error::Plan(format!("at a speed of {speed} this is more than {MAX_FRAMES} frames")));
        }
        rows.extend(std::iter::repeat_n(symbol, count));
    }
    Ok(Tensor::from_slice(&rows, &[dim(rows.len())]))
}
