//! `config.json` as NeMo writes it, and as far as it matters here.

use serde::Deserialize;
use vllm_platform::{MelScale, MelSettings};
use vllm_platform_mlx::{Error, LoadContext, Result};

#[derive(Debug, Deserialize)]
pub(super) struct Config {
    pub preprocessor: Preprocessor,
    pub encoder: Encoder,
    pub decoder: Decoder,
    pub joint: Joint,
    pub decoding: Decoding,
}

/// The spectrogram.
#[derive(Debug, Deserialize)]
pub(super) struct Preprocessor {
    sample_rate: u32,
    /// Seconds.
    window_size: f32,
    /// Seconds from one frame to the next.
    pub window_stride: f32,
    features: usize,
    n_fft: usize,
    normalize: String,
    preemph: Option<f32>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Encoder {
    pub feat_in: usize,
    pub n_layers: usize,
    pub d_model: usize,
    pub n_heads: usize,
    pub ff_expansion_factor: usize,
    pub subsampling_factor: usize,
    self_attention_model: String,
    subsampling: String,
    pub conv_kernel_size: usize,
    pub subsampling_conv_channels: usize,
    #[serde(default)]
    causal_downsampling: bool,
    #[serde(default = "yes")]
    pub use_bias: bool,
    #[serde(default)]
    pub xscaling: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct Decoder {
    pub blank_as_pad: bool,
    pub vocab_size: usize,
    pub prednet: Prednet,
}

#[derive(Debug, Deserialize)]
pub(super) struct Prednet {
    pub pred_hidden: usize,
    pub pred_rnn_layers: usize,
    rnn_hidden_size: Option<usize>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Joint {
    pub vocabulary: Vec<String>,
    pub jointnet: Jointnet,
}

#[derive(Debug, Deserialize)]
pub(super) struct Jointnet {
    pub joint_hidden: usize,
    activation: String,
}

#[derive(Debug, Deserialize)]
pub(super) struct Decoding {
    model_type: String,
    /// How many places to go on, for each of the outputs that say so.
    pub durations: Vec<usize>,
    greedy: Option<Greedy>,
}

#[derive(Debug, Deserialize)]
struct Greedy {
    max_symbols: Option<usize>,
}

fn yes() -> bool {
    true
}

impl Config {
    /// What isn't computed here must not be asked for, and the sizes must make later arithmetic safe.
    pub fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Self = ctx.config()?;
        let Self { preprocessor, encoder, decoder, joint, decoding } = &config;
        let only = [
            ("decoding.model_type", &decoding.model_type, "tdt"),
            ("encoder.subsampling", &encoder.subsampling, "dw_striding"),
            ("encoder.self_attention_model", &encoder.self_attention_model, "rel_pos"),
            ("preprocessor.normalize", &preprocessor.normalize, "per_feature"),
            ("joint.jointnet.activation", &joint.jointnet.activation, "relu"),
        ];
        if let Some((key, found, wanted)) = only.into_iter().find(|(_, found, wanted)| found != wanted) {
            return Err(Error::Config(format!("{key} is {found:?}: only {wanted:?} is known here")));
        }
        let hidden = decoder.prednet.pred_hidden;
        let wrong = [
            (encoder.causal_downsampling, "encoder.causal_downsampling is true: only false is known here".into()),
            (
                encoder.n_heads == 0 || !encoder.d_model.is_multiple_of(2 * encoder.n_heads.max(1)),
                format!("encoder: {} heads in {} channels", encoder.n_heads, encoder.d_model),
            ),
            (
                !encoder.subsampling_factor.is_power_of_two() || encoder.subsampling_factor < 2,
                format!("encoder.subsampling_factor is {}: a power of two", encoder.subsampling_factor),
            ),
            (encoder.conv_kernel_size % 2 == 0, "encoder.conv_kernel_size must be odd".into()),
            (encoder.feat_in != preprocessor.features, "encoder.feat_in must be preprocessor.features".into()),
            (
                joint.vocabulary.is_empty() || joint.vocabulary.len() != decoder.vocab_size,
                format!(
                    "joint.vocabulary has {} pieces, decoder.vocab_size is {}",
                    joint.vocabulary.len(),
                    decoder.vocab_size
                ),
            ),
            (
                decoder.prednet.rnn_hidden_size.is_some_and(|size| size > 0 && size != hidden),
                "decoder.prednet.rnn_hidden_size must be pred_hidden".into(),
            ),
            (decoder.prednet.pred_rnn_layers == 0, "decoder.prednet.pred_rnn_layers must be at least 1".into()),
            (
                // Nothing would ever go on.
                decoding.durations.iter().all(|&steps| steps == 0),
                "decoding.durations has none above 0".into(),
            ),
            (
                decoding.durations.contains(&0) && decoding.max_symbols() == Some(0),
                "decoding.greedy.max_symbols must be at least 1".into(),
            ),
            (
                preprocessor.window_stride.is_nan() || preprocessor.mel().hop == 0,
                "preprocessor.window_stride is too short".into(),
            ),
        ];
        match wrong.into_iter().find(|(is, _)| *is) {
            Some((_, problem)) => Err(Error::Config(problem)),
            None => Ok(config),
        }
    }
}

impl Preprocessor {
    pub fn mel(&self) -> MelSettings {
        let samples = |seconds: f32| (f64::from(seconds) * f64::from(self.sample_rate)).round() as usize;
        MelSettings {
            sample_rate: self.sample_rate,
            fft: self.n_fft,
            window: samples(self.window_size),
            hop: samples(self.window_stride),
            bands: self.features,
            // NeMo's own, where a configuration is older than the key.
            scale: MelScale::PerBand { preemphasis: self.preemph.unwrap_or(0.97) },
        }
    }
}

impl Decoding {
    /// Most tokens at one place; NeMo's own bound where none is given, or a model could stay at a place for ever.
    pub fn max_symbols(&self) -> Option<usize> {
        self.greedy.as_ref().and_then(|greedy| greedy.max_symbols).or(Some(10))
    }
}
