//! `config.json`, as hexgrad's Kokoro and mlx-community's have it.

use std::collections::BTreeMap;

use serde::Deserialize;
use vllm_platform_mlx::{Error, LoadContext, Result};

/// Samples a second; the network's frames are a fortieth of a second long because of it. No file says so.
pub(super) const SAMPLE_RATE: u32 = 24_000;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Config {
    pub istftnet: Generator,
    /// Channels of what stands for phonemes and frames.
    pub hidden_dim: usize,
    /// Longest phoneme, in frames.
    pub max_dur: usize,
    /// Convolutions of the text encoder, and LSTMs of the duration encoder.
    pub n_layer: usize,
    pub n_token: usize,
    /// Numbers of a style; a voice has one for the decoder and one for the predictor.
    pub style_dim: usize,
    pub text_encoder_kernel_size: usize,
    pub plbert: Albert,
    pub vocab: BTreeMap<String, u32>,
}

/// The vocoder.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Generator {
    pub upsample_rates: Vec<usize>,
    pub upsample_kernel_sizes: Vec<usize>,
    pub upsample_initial_channel: usize,
    pub resblock_kernel_sizes: Vec<usize>,
    pub resblock_dilation_sizes: Vec<[usize; 3]>,
    pub gen_istft_n_fft: usize,
    pub gen_istft_hop_size: usize,
}

/// PL-BERT (Li et al., arXiv:2301.08810): an ALBERT over phonemes, with `transformers.AlbertConfig`'s values for what is not said.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Albert {
    pub hidden_size: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub num_hidden_layers: usize,
    #[serde(default = "embedding_size")]
    pub embedding_size: usize,
    #[serde(default = "one")]
    pub num_hidden_groups: usize,
    #[serde(default = "one")]
    pub inner_group_num: usize,
    #[serde(default = "type_vocab_size")]
    pub type_vocab_size: usize,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f32,
    #[serde(default = "hidden_act")]
    hidden_act: String,
}

fn embedding_size() -> usize {
    128
}

fn one() -> usize {
    1
}

fn type_vocab_size() -> usize {
    2
}

fn layer_norm_eps() -> f32 {
    1e-12
}

fn hidden_act() -> String {
    "gelu_new".into()
}

impl Config {
    pub fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Self = ctx.config()?;
        config.check().map_err(Error::Config)?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        let Generator {
            upsample_rates: rates,
            upsample_kernel_sizes: kernels,
            upsample_initial_channel: channels,
            resblock_kernel_sizes: blocks,
            resblock_dilation_sizes: dilations,
            gen_istft_n_fft: fft,
            gen_istft_hop_size: hop,
        } = &self.istftnet;
        let albert = &self.plbert;
        let fits = |rate: &usize, kernel: &usize| *rate > 0 && kernel >= rate && (kernel - rate).is_multiple_of(2);
        // (what must hold, the keys that say otherwise)
        let rules = [
            (
                !rates.is_empty() && rates.len() == kernels.len() && rates.iter().zip(kernels).all(|(r, k)| fits(r, k)),
                "istftnet.upsample_rates and .upsample_kernel_sizes: a kernel as wide as its rate or an even number wider for each",
            ),
            (channels >> rates.len() > 0, "istftnet.upsample_initial_channel: can't be halved so often"),
            (
                !blocks.is_empty() && blocks.len() == dilations.len() && blocks.iter().all(|k| k % 2 == 1),
                "istftnet.resblock_kernel_sizes and .resblock_dilation_sizes: an odd kernel and three dilations for each block",
            ),
            (*hop > 0 && *fft >= 2 * hop && fft % 2 == 0, "istftnet.gen_istft_n_fft: even, and at least twice the hop"),
            (self.hidden_dim > 0 && self.hidden_dim.is_multiple_of(4), "hidden_dim: must be a multiple of 4"),
            (self.text_encoder_kernel_size % 2 == 1, "text_encoder_kernel_size: must be odd"),
            (
                albert.num_attention_heads > 0 && albert.hidden_size.is_multiple_of(albert.num_attention_heads),
                "plbert.hidden_size: must be a multiple of num_attention_heads",
            ),
            (
                albert.num_hidden_groups > 0 && albert.num_hidden_layers.is_multiple_of(albert.num_hidden_groups),
                "plbert.num_hidden_layers: must be a multiple of num_hidden_groups",
            ),
            (albert.hidden_act == "gelu_new", "plbert.hidden_act: only gelu_new is supported"),
            // One phoneme between the two ends.
            (albert.max_position_embeddings > 2, "plbert.max_position_embeddings: must be at least 3"),
        ];
        match rules.into_iter().find(|(holds, _)| !holds) {
            Some((_, otherwise)) => Err(otherwise.into()),
            None => Ok(()),
        }
    }
}

impl Generator {
    /// Samples of a frame of pitch, which is half a frame of the rest.
    pub fn samples_per_pitch(&self) -> usize {
        self.upsample_rates.iter().product::<usize>() * self.gen_istft_hop_size
    }

    /// Numbers of a frame of a spectrum: real and imaginary parts, or magnitudes and phases.
    pub fn spectrum_len(&self) -> usize {
        self.gen_istft_n_fft + 2
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn sound() -> Value {
        json!({
            "istftnet": {"upsample_rates": [10, 6], "upsample_kernel_sizes": [20, 12], "upsample_initial_channel": 512,
                "resblock_kernel_sizes": [3], "resblock_dilation_sizes": [[1, 3, 5]], "gen_istft_n_fft": 20,
                "gen_istft_hop_size": 5},
            "hidden_dim": 512, "max_dur": 50, "n_layer": 3, "n_token": 178, "style_dim": 128,
            "text_encoder_kernel_size": 5, "vocab": {"a": 43},
            "plbert": {"hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 2048,
                "max_position_embeddings": 512, "num_hidden_layers": 12},
        })
    }

    #[test]
    fn what_cannot_be_is_named() {
        let config = Config::deserialize(sound()).expect("sound");
        assert_eq!((config.check(), config.istftnet.samples_per_pitch()), (Ok(()), 300));
        // (where, what, what the error names)
        let cases = [
            ("/istftnet/upsample_kernel_sizes", json!([20]), "upsample_kernel_sizes"),
            ("/istftnet/upsample_kernel_sizes", json!([20, 13]), "upsample_kernel_sizes"),
            ("/istftnet/upsample_initial_channel", json!(3), "upsample_initial_channel"),
            ("/istftnet/resblock_kernel_sizes", json!([4]), "resblock_kernel_sizes"),
            ("/istftnet/gen_istft_hop_size", json!(0), "gen_istft_n_fft"),
            ("/hidden_dim", json!(510), "hidden_dim"),
            ("/text_encoder_kernel_size", json!(4), "text_encoder_kernel_size"),
            ("/plbert/num_attention_heads", json!(7), "num_attention_heads"),
            ("/plbert/max_position_embeddings", json!(2), "max_position_embeddings"),
        ];
        for (at, value, wanted) in cases {
            let mut config = sound();
            *config.pointer_mut(at).expect(at) = value;
            let error = Config::deserialize(config).expect("well typed").check().expect_err(at);
            assert!(error.contains(wanted), "{at}: {error}");
        }
    }
}
