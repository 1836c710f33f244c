//! Rotary position embedding (Su et al., arXiv:2104.09864) and the ways checkpoints stretch it.

use std::f64::consts::TAU;

use serde::Deserialize;
use serde_json::Value;

use crate::{Batch, Error, Ops, Result, Tensor, batch::dim, ops::RopeFrequencies};

/// Rotates each head's element pairs `(i, i + dims/2)` by `position · inv_freq[i]`.
pub struct Rope {
    ops: Ops,
    frequencies: RopeFrequencies,
}

/// The frequencies of a [`Rope`], as `config.json` describes them.
#[derive(Debug, Clone, PartialEq)]
pub struct RopeConfig {
    /// Radians a token, one for each pair of elements.
    pub inv_freq: Vec<f32>,
    /// Factor on the rotated elements (YaRN's attention temperature); 1 elsewhere.
    pub magnitude: f32,
    /// The axis of each pair where tokens have positions on several (time, height, width); empty: all on the first.
    pub axes: Vec<u8>,
}

/// The keys of `rope_scaling` or `rope_parameters`, over all types.
#[derive(Debug, Default, Deserialize)]
struct Scaling {
    rope_type: Option<String>,
    /// The older spelling; many files have both.
    #[serde(rename = "type")]
    older_type: Option<String>,
    factor: Option<f64>,
    low_freq_factor: Option<f64>,
    high_freq_factor: Option<f64>,
    original_max_position_embeddings: Option<f64>,
    beta_fast: Option<f64>,
    beta_slow: Option<f64>,
    attention_factor: Option<f64>,
    mscale: Option<f64>,
    mscale_all_dim: Option<f64>,
    /// Divisors of the plain frequencies, one for each pair, for sequences up to the original length and beyond it.
    short_factor: Option<Vec<f64>>,
    long_factor: Option<Vec<f64>>,
    truncate: Option<bool>,
    /// Pairs on each axis: time, height, width.
    mrope_section: Option<Vec<usize>>,
    /// Whether they take turns: Qwen3-VL.
    #[serde(default)]
    mrope_interleaved: bool,
}

impl RopeConfig {
    /// Reads `rope_theta` and `rope_scaling` (or transformers 5's `rope_parameters`) for heads of `head_dim` elements.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown type or a key that the type needs and lacks.
    pub fn from_config(config: &Value, head_dim: usize) -> Result<Self> {
        let parameters = config.get("rope_parameters").filter(|v| !v.is_null());
        let theta = parameters
            .and_then(|p| p.get("rope_theta"))
            .or_else(|| config.get("rope_theta"))
            .and_then(Value::as_f64)
            .unwrap_or(10_000.0);
        let scaling = parameters.or_else(|| config.get("rope_scaling")).filter(|v| !v.is_null());
        let max_positions = config.get("max_position_embeddings").and_then(Value::as_f64);
        Self::new(head_dim, theta, scaling, max_positions)
    }

    /// Plain frequencies `theta^(−2i/dims)`, no scaling.
    #[must_use]
    pub fn plain(dims: usize, theta: f64) -> Self {
        Self { inv_freq: narrow(plain(dims, theta)), magnitude: 1.0, axes: Vec::new() }
    }

    /// As [`RopeConfig::from_config`], with the parts taken apart: `scaling` is the object under `rope_scaling`.
    ///
    /// # Errors
    /// [`Error::Config`] for an unknown type or a key that the type needs and lacks.
    pub fn new(dims: usize, theta: f64, scaling: Option<&Value>, max_positions: Option<f64>) -> Result<Self> {
        let scaling: Scaling = match scaling {
            Some(value) => Scaling::deserialize(value).map_err(|e| Error::Config(format!("rope_scaling: {e}")))?,
            None => Scaling::default(),
        };
        let need = |value: Option<f64>, key: &str| {
            value.ok_or_else(|| Error::Config(format!("rope_scaling: {key} is missing")))
        };
        let mut inv_freq = plain(dims, theta);
        let mut magnitude = 1.0;
        match scaling.rope_type.as_deref().or(scaling.older_type.as_deref()) {
            None | Some("default" | "mrope") => {}
            Some("linear") => {
                let factor = need(scaling.factor, "factor")?;
                inv_freq.iter_mut().for_each(|f| *f /= factor);
            }
            Some("llama3") => {
                let factor = need(scaling.factor, "factor")?;
                let low = need(scaling.low_freq_factor, "low_freq_factor")?;
                let high = need(scaling.high_freq_factor, "high_freq_factor")?;
                let original = need(scaling.original_max_position_embeddings, "original_max_position_embeddings")?;
                inv_freq.iter_mut().for_each(|f| *f = llama3(*f, factor, low, high, original));
            }
            // Two sets of factors would turn stored keys wrong once a sequence outgrows the first; one set is what GGUF
            // files carry.
            Some("longrope") if scaling.short_factor == scaling.long_factor => {
                let factors = scaling.long_factor.filter(|f| f.len() == inv_freq.len()).ok_or_else(|| {
                    Error::Config(format!("rope_scaling: long_factor must hold {} numbers", inv_freq.len()))
                })?;
                inv_freq.iter_mut().zip(factors).for_each(|(f, factor)| *f /= factor);
                magnitude = need(scaling.attention_factor, "attention_factor")?;
            }
            Some("yarn") => {
                let factor = need(scaling.factor, "factor")?;
                let original = need(
                    scaling.original_max_position_embeddings.or(max_positions),
                    "original_max_position_embeddings",
                )?;
                yarn(&mut inv_freq, dims, theta, factor, original, &scaling);
                magnitude = yarn_magnitude(factor, &scaling);
            }
            Some(other) => {
                return Err(Error::Config(format!(
                    "rope_scaling: type {other:?} is not supported; known: default, linear, llama3, yarn, \
                     and longrope whose short and long factors are the same"
                )));
            }
        }
        let axes = match &scaling.mrope_section {
            Some(sections) => mrope_axes(sections, scaling.mrope_interleaved, inv_freq.len())?,
            None => Vec::new(),
        };
        #[allow(clippy::cast_possible_truncation)]
        Ok(Self { inv_freq: narrow(inv_freq), magnitude: magnitude as f32, axes })
    }
}

#[allow(clippy::cast_possible_truncation)]
fn narrow(values: Vec<f64>) -> Vec<f32> {
    values.into_iter().map(|v| v as f32).collect()
}

/// The axis of each pair in multimodal rotary embedding (M-RoPE; Qwen2-VL, arXiv:2409.12191): one axis after the other, or in
/// turns as long as an axis has pairs left, and time for the rest (Qwen3-VL).
fn mrope_axes(sections: &[usize], interleaved: bool, pairs: usize) -> Result<Vec<u8>> {
    let &[_, height, width] = sections else {
        return Err(Error::Config(format!("rope_scaling: mrope_section is {sections:?}: it must be three numbers")));
    };
    if sections.iter().sum::<usize>() != pairs {
        return Err(Error::Config(format!("rope_scaling: mrope_section {sections:?} must add up to {pairs} pairs")));
    }
    if !interleaved {
        return Ok((0u8..).zip(sections).flat_map(|(axis, &count)| std::iter::repeat_n(axis, count)).collect());
    }
    let axis = |pair: usize| match pair % 3 {
        1 if pair < 3 * height => 1,
        2 if pair < 3 * width => 2,
        _ => 0,
    };
    Ok((0..pairs).map(axis).collect())
}

fn plain(dims: usize, theta: f64) -> Vec<f64> {
    (0..dims / 2).map(|i| theta.powf(-(2.0 * i as f64) / dims as f64)).collect()
}

/// Llama 3.1's scaling: low frequencies are stretched by `factor`, high ones stay, those between are blended.
fn llama3(inv_freq: f64, factor: f64, low: f64, high: f64, original: f64) -> f64 {
    let wavelength = TAU / inv_freq;
    if wavelength < original / high {
        inv_freq
    } else if wavelength > original / low {
        inv_freq / factor
    } else {
        let smooth = (original / wavelength - low) / (high - low);
        (1.0 - smooth) * inv_freq / factor + smooth * inv_freq
    }
}

/// YaRN (Peng et al., arXiv:2309.00071), equations 17 to 23: "NTK by parts".
fn yarn(inv_freq: &mut [f64], dims: usize, theta: f64, factor: f64, original: f64, scaling: &Scaling) {
    let dims = dims as f64;
    let pair_turning = |turns: f64| dims * (original / (turns * TAU)).ln() / (2.0 * theta.ln());
    let mut low = pair_turning(scaling.beta_fast.unwrap_or(32.0));
    let mut high = pair_turning(scaling.beta_slow.unwrap_or(1.0));
    if scaling.truncate.unwrap_or(true) {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, high) = (low.max(0.0), high.min(dims - 1.0));
    let span = if high > low { high - low } else { 0.001 };
    for (i, f) in inv_freq.iter_mut().enumerate() {
        let stretched = ((i as f64 - low) / span).clamp(0.0, 1.0);
        *f = *f / factor * stretched + *f * (1.0 - stretched);
    }
}

fn yarn_magnitude(factor: f64, scaling: &Scaling) -> f64 {
    if let Some(given) = scaling.attention_factor {
        return given;
    }
    let grow = |mscale: f64| if factor <= 1.0 { 1.0 } else { 0.1 * mscale * factor.ln() + 1.0 };
    match (scaling.mscale, scaling.mscale_all_dim) {
        (Some(mscale), Some(all)) if all != 0.0 => grow(mscale) / grow(all),
        _ => grow(1.0),
    }
}

impl Rope {
    /// A layer with these frequencies; it rotates the first `2 · inv_freq.len()` elements of each head.
    ///
    /// # Errors
    /// MLX's own.
    pub fn new(ops: Ops, config: &RopeConfig) -> Result<Self> {
        let periods: Vec<f32> = config.inv_freq.iter().map(|f| 1.0 / f).collect();
        let frequencies = RopeFrequencies {
            inv_freq: config.inv_freq.as_slice().into(),
            periods: Tensor::from_slice(&periods, &[dim(periods.len())]),
            axes: config.axes.as_slice().into(),
            magnitude: config.magnitude,
        };
        Ok(Self { ops, frequencies })
    }

    /// Rotates every row by its token's position: tensors [tokens, heads, head_dim] keep their shapes.
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward<const N: usize>(&self, tensors: [&Tensor; N], batch: &Batch) -> Result<[Tensor; N]> {
        self.ops.rope(tensors, batch, &self.frequencies)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn llama3_keeps_high_frequencies_and_stretches_low_ones() {
        let scaling = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let scaled = RopeConfig::new(128, 500_000.0, Some(&scaling), None).unwrap();
        let plain = RopeConfig::plain(128, 500_000.0);
        assert_eq!(scaled.inv_freq[0], plain.inv_freq[0]);
        assert_eq!(scaled.inv_freq[63], plain.inv_freq[63] / 8.0);
        assert!(scaled.inv_freq[32] < plain.inv_freq[32] && scaled.inv_freq[32] > plain.inv_freq[32] / 8.0);
    }

    #[test]
    fn both_spellings_of_the_configuration_agree() {
        let old = json!({"rope_theta": 1e6, "rope_scaling": {"type": "linear", "factor": 4.0}});
        let new = json!({"rope_parameters": {"rope_theta": 1e6, "rope_type": "linear", "factor": 4.0}});
        assert_eq!(RopeConfig::from_config(&old, 64).unwrap(), RopeConfig::from_config(&new, 64).unwrap());
    }

    #[test]
    fn axes_of_pairs() {
        let axes = |scaling| RopeConfig::new(16, 1e4, Some(&scaling), None).map(|config| config.axes);
        let qwen2 = json!({"type": "mrope", "mrope_section": [2, 3, 3]});
        assert_eq!(axes(qwen2).unwrap(), [0, 0, 1, 1, 1, 2, 2, 2]);
        let qwen3 = json!({"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": true});
        assert_eq!(axes(qwen3).unwrap(), [0, 1, 2, 0, 1, 2, 0, 0]);
        assert!(axes(json!({"mrope_section": [2, 3]})).unwrap_err().to_string().contains("three numbers"));
        assert!(axes(json!({"mrope_section": [2, 3, 4]})).unwrap_err().to_string().contains("8 pairs"));
    }

    #[test]
    fn what_is_not_supported_is_named() {
        let error = |scaling| RopeConfig::new(64, 1e4, Some(&scaling), None).unwrap_err().to_string();
        assert!(error(json!({"rope_type": "dynamic"})).contains("\"dynamic\" is not supported"));
        assert!(error(json!({"rope_type": "llama3"})).contains("factor is missing"));
        let factors = |short: f64| {
            json!({"rope_type": "longrope", "short_factor": vec![short; 32],
            "long_factor": vec![2.0; 32], "attention_factor": 1.0})
        };
        assert!(error(factors(1.0)).contains("\"longrope\" is not supported"));
        let halved: Vec<_> = RopeConfig::plain(64, 1e4).inv_freq.iter().map(|f| f / 2.0).collect();
        assert_eq!(RopeConfig::new(64, 1e4, Some(&factors(2.0)), None).unwrap().inv_freq, halved);
    }
}
