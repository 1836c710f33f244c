//! Flags that commands share.

use anyhow::bail;
use clap::Args;
use vllm_checkpoint::hub::HubOptions;
use vllm_platform::{DeviceChoice, LoadOptions, SamplingParams};
use vllm_scheduler::EngineConfig;

use crate::model::{LoadSpec, SamplingDefaults};

/// Which model, where.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A folder, a GGUF file, or org/name on the Hugging Face hub
    pub model: String,
    /// Device to run on: auto, metal, cuda or cpu
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Use only what the hub's cache holds (also: HF_HUB_OFFLINE)
    #[arg(long)]
    pub offline: bool,
    /// Branch, tag or commit on the hub
    #[arg(long)]
    pub revision: Option<String>,
}

impl ModelArgs {
    /// How to reach the hub.
    pub fn hub(&self) -> HubOptions {
        let mut options = HubOptions::from_env();
        options.offline |= self.offline;
        options.revision = self.revision.clone().or(options.revision);
        options
    }
}

/// How to run it.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// Threads for work on the CPU [default: one for each physical core]
    #[arg(long, value_parser = at_least_one)]
    pub threads: Option<usize>,
    /// Longest sequence, prompt and answer together, in tokens [default: the model's own]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub max_model_len: Option<usize>,
    /// Memory for the KV cache, e.g. 512M or 8G [default: the platform decides]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub kv_cache_memory: Option<u64>,
    /// Most tokens computed in one step
    #[arg(long, value_name = "TOKENS", default_value_t = EngineConfig::default().max_num_batched_tokens, value_parser = at_least_one)]
    pub max_num_batched_tokens: usize,
}

/// What to load, with at most `max_num_seqs` sequences at once.
pub fn load_spec(model: &ModelArgs, runtime: &RuntimeArgs, max_num_seqs: usize) -> LoadSpec {
    LoadSpec {
        model: model.model.clone(),
        names: Vec::new(),
        hub: model.hub(),
        load: LoadOptions {
            device: model.device,
            threads: runtime.threads,
            max_model_len: runtime.max_model_len,
            kv_cache_bytes: runtime.kv_cache_memory,
            max_num_seqs,
            max_num_batched_tokens: runtime.max_num_batched_tokens,
            ..LoadOptions::default()
        },
        engine: EngineConfig {
            max_num_seqs,
            max_num_batched_tokens: runtime.max_num_batched_tokens,
            ..EngineConfig::default()
        },
    }
}

/// How to choose tokens. What isn't given is as the model's makers recommend, else greedy.
#[derive(Debug, Clone, Args)]
pub struct SamplingArgs {
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    pub max_tokens: usize,
    /// 0 takes the most probable token; higher is more varied
    #[arg(long)]
    temperature: Option<f32>,
    /// Choose among the most probable tokens that reach this probability together
    #[arg(long)]
    top_p: Option<f32>,
    /// Choose among this many most probable tokens
    #[arg(long)]
    top_k: Option<usize>,
    /// Choose among tokens at least this fraction as probable as the best
    #[arg(long)]
    min_p: Option<f32>,
    /// Above 1: repeat less
    #[arg(long)]
    repetition_penalty: Option<f32>,
    /// Makes the answer reproducible
    #[arg(long)]
    seed: Option<u64>,
    /// String that ends the answer (can be given several times)
    #[arg(long)]
    pub stop: Vec<String>,
}

impl SamplingArgs {
    /// With a model's defaults, checked against its vocabulary.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn params(&self, defaults: &SamplingDefaults, vocab: usize) -> anyhow::Result<SamplingParams> {
        let params = SamplingParams {
            temperature: self.temperature.or(defaults.temperature).unwrap_or(0.0),
            top_p: self.top_p.or(defaults.top_p).unwrap_or(1.0),
            top_k: self.top_k.or(defaults.top_k).unwrap_or(0),
            min_p: self.min_p.or(defaults.min_p).unwrap_or(0.0),
            repetition_penalty: self.repetition_penalty.or(defaults.repetition_penalty).unwrap_or(1.0),
            seed: self.seed,
            ..SamplingParams::default()
        };
        params.validate(vocab)?;
        if self.stop.iter().any(String::is_empty) {
            bail!("--stop is an empty string");
        }
        Ok(params)
    }

    /// [`params`](Self::params) as far as they can be checked before the model is there.
    ///
    /// # Errors
    /// A parameter out of its range.
    pub fn check(&self) -> anyhow::Result<()> {
        self.params(&SamplingDefaults::default(), 0).map(drop)
    }
}

/// `512M`, `2GiB`, `1048576`.
pub fn bytes(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let shift = match unit.trim().to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return Err(format!("unknown unit {unit:?}: use K, M, G or T (powers of 1024)")),
    };
    let number: f64 = number.parse().map_err(|_| "not a number of bytes: use e.g. 512M or 8G".to_owned())?;
    let bytes = number * (1u64 << shift) as f64;
    if !(1.0..=1e18).contains(&bytes) {
        return Err("out of range".into());
    }
    Ok(bytes as u64)
}

/// A count that isn't 0.
pub fn at_least_one(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("must be at least 1".into()),
        Ok(number) => Ok(number),
        Err(_) => Err("must be a whole number".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_sizes() {
        let cases = [
            ("1", Some(1)),
            ("512M", Some(512 << 20)),
            ("1.5g", Some(3 << 29)),
            ("2GiB", Some(2 << 30)),
            ("3 kb", Some(3 << 10)),
            ("", None),
            ("0", None),
            ("-1G", None),
            ("1X", None),
            ("9999999T", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(bytes(text).ok(), wanted, "{text:?}");
        }
    }
}
