//! How a GGUF file stretches rotary embeddings, in the words of Hugging Face's `rope_scaling`.

use std::f64::consts::TAU;

use serde_json::{Value, json};

use super::header::TensorEntry;
use super::metadata::Metadata;
use super::small_floats;

/// Context length of the models before Llama 3's scaling was applied, and the bounds of its blend.
const LLAMA3_ORIGINAL: f64 = 8192.0;
const LLAMA3_LOW: f64 = 1.0;
const LLAMA3_HIGH: f64 = 4.0;

pub(super) struct Inputs<'a> {
    pub(super) metadata: Metadata<'a>,
    /// Prefix of the family's keys.
    pub(super) family: &'a str,
    pub(super) tensors: &'a [TensorEntry],
    pub(super) theta: f64,
    /// Dimensions of a head that are rotated.
    pub(super) rotary: u64,
    /// Longest context the model takes.
    pub(super) context: u64,
}

impl Inputs<'_> {
    /// `rope_scaling`, or `None` where positions are not scaled.
    pub(super) fn scaling(&self) -> Result<Option<Value>, String> {
        let factors = |name: &str| small_floats(self.metadata.file, self.tensors, name);
        let key = |key: &str| format!("{}.rope.scaling.{key}", self.family);
        let original = self.metadata.unsigned(&key("original_context_length"))?;
        if let (Some(long), Some(short)) = (factors("rope_factors_long.weight"), factors("rope_factors_short.weight")) {
            let attention = self.metadata.float(&key("attn_factor"));
            return self.explicit(&short, &long, original.unwrap_or(self.context), attention).map(Some);
        }
        if let Some(factors) = factors("rope_freqs.weight") {
            if let Some(factor) = self.llama3_factor(&factors) {
                return Ok(Some(json!({
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": LLAMA3_LOW,
                    "high_freq_factor": LLAMA3_HIGH,
                    "original_max_position_embeddings": LLAMA3_ORIGINAL as u64,
                })));
            }
            return self.explicit(&factors, &factors, self.context, Some(1.0)).map(Some);
        }
        let factor = self.metadata.float(&key("factor"));
        Ok(match (self.metadata.string(&key("type")), factor) {
            (Some("linear"), Some(factor)) => Some(json!({"rope_type": "linear", "factor": factor})),
            (Some("yarn"), Some(factor)) => {
                let original = original.unwrap_or((self.context as f64 / factor) as u64);
                Some(json!({"rope_type": "yarn", "factor": factor, "original_max_position_embeddings": original}))
            }
            (None | Some("none"), _) => None,
            (Some(kind), _) => {
                return Err(format!(
                    "{} is \"{kind}\"{}",
                    key("type"),
                    "; supported are none, linear, yarn and tensors of factors"
                ));
            }
        })
    }

    /// A divisor for every rotated pair, given outright.
    fn explicit(&self, short: &[f32], long: &[f32], original: u64, attention: Option<f64>) -> Result<Value, String> {
        let pairs = self.rotary as usize / 2;
        for factors in [short, long] {
            if factors.len() != pairs || factors.iter().any(|f| !f.is_finite() || *f <= 0.0) {
                let found = factors.len();
                return Err(format!(
                    "rope factors: {found} numbers, wanted {pairs} positive ones (one a rotated pair)"
                ));
            }
        }
        let mut scaling = json!({
            "rope_type": "longrope",
            "short_factor": short,
            "long_factor": long,
            "original_max_position_embeddings": original,
        });
        if let Some(attention) = attention {
            scaling["attention_factor"] = json!(attention);
        }
        Ok(scaling)
    }

    /// The factor of Llama 3's scaling, if that is what `factors` are.
    fn llama3_factor(&self, factors: &[f32]) -> Option<f64> {
        let factor = f64::from(factors.iter().copied().fold(0.0, f32::max));
        let fits = factors.len() as u64 == self.rotary / 2
            && factors.iter().enumerate().all(|(pair, &found)| {
                let wanted = llama3_divisor(self.theta, self.rotary, pair, factor);
                (f64::from(found) - wanted).abs() <= 1e-3 * wanted
            });
        (fits && factor > 1.0).then_some(factor)
    }
}

/// By how much Llama 3.1 divides the frequency of a rotated pair: nothing for short waves, `factor` for waves longer
/// than the original context, a blend between. Source: the Llama 3.1 reference implementation.
fn llama3_divisor(theta: f64, rotary: u64, pair: usize, factor: f64) -> f64 {
    let frequency = theta.powf(-2.0 * pair as f64 / rotary as f64);
    let turns = LLAMA3_ORIGINAL * frequency / TAU;
    let blend = ((turns - LLAMA3_LOW) / (LLAMA3_HIGH - LLAMA3_LOW)).clamp(0.0, 1.0);
    1.0 / ((1.0 - blend) / factor + blend)
}
