//! Flags that commands share.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use vllm_checkpoint::hub::HubOptions;
use vllm_platform::{Activations, DeviceChoice, KvDtype, KvStoreChoice, LoadOptions, SamplingParams};
use vllm_scheduler::{EngineConfig, SsdOptions, VisionConfig};

use crate::model::{ChatDefaults, Formats, LoadSpec, SamplingDefaults};

/// Which model, where.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A folder, a GGUF file, or org/name on the Hugging Face hub
    pub model: String,
    #[command(flatten)]
    pub source: SourceArgs,
}

/// Where models come from, and where they run.
#[derive(Debug, Clone, Args)]
pub struct SourceArgs {
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

impl SourceArgs {
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
    /// Bind each of these threads to a core of its own (Linux): steadier where nothing else needs the cores
    #[arg(long)]
    pub pin_threads: bool,
    /// On the CPU: what activations are rounded to for weights of 4 and 8 bits: int16, int8 (faster with long prompts,
    /// less precise), or f32 (not at all)
    #[arg(long, value_name = "KIND", default_value = "int16", value_parser = activations)]
    pub activations: Activations,
    /// Longest sequence, prompt and answer together, in tokens [default: the model's own]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    pub max_model_len: Option<usize>,
    /// Most tokens computed in one step
    #[arg(long, value_name = "TOKENS", default_value_t = EngineConfig::default().max_num_batched_tokens, value_parser = at_least_one)]
    pub max_num_batched_tokens: usize,
    /// Most tokens of one prompt computed in one step; 0: as many as there is room for
    #[arg(long, value_name = "TOKENS", alias = "chunked-prefill-tokens", default_value_t = 0)]
    pub prefill_step_size: usize,
    #[command(flatten)]
    pub cache: CacheArgs,
}

/// Where and how the KV of prompts and answers is kept.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// Memory for the KV cache, e.g. 512M or 8G [default: what --gpu-memory-utilization leaves]
    #[arg(long, value_name = "BYTES", value_parser = bytes, conflicts_with = "cache_memory_mb")]
    kv_cache_memory: Option<u64>,
    /// The same in MiB
    #[arg(long, value_name = "MIB", value_parser = at_least_one)]
    cache_memory_mb: Option<usize>,
    /// Share of the device's memory for weights and KV cache together, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value_t = LoadOptions::default().memory_utilization, value_parser = share)]
    gpu_memory_utilization: f64,
    /// How KV is kept: auto, paged or contiguous
    #[arg(long, value_name = "STORE", default_value = "auto", value_parser = kv_store)]
    kv_store: KvStoreChoice,
    /// What keys and values are stored as: auto, f32, f16, bf16 or int8
    #[arg(long, value_name = "DTYPE", default_value = "auto", value_parser = kv_cache_dtype)]
    kv_cache_dtype: KvCacheDtype,
    /// The same as --kv-store paged: for commands written for the original
    #[arg(long, hide = true, conflicts_with = "kv_store")]
    use_paged_cache: bool,
    /// Find the beginnings of earlier prompts again instead of computing them (the default)
    #[arg(long, conflicts_with = "disable_prefix_cache")]
    enable_prefix_cache: bool,
    /// Compute every prompt from its start
    #[arg(long)]
    disable_prefix_cache: bool,
    /// Folder that keeps what the prefix cache has no room for, over restarts too
    #[arg(long, value_name = "DIR", conflicts_with = "disable_prefix_cache")]
    ssd_cache_dir: Option<PathBuf>,
    /// Most GiB in that folder
    #[arg(long, value_name = "GIB", default_value_t = 10.0, value_parser = positive)]
    ssd_cache_max_gb: f64,
    /// Store 8 bits a number there: smaller, and not exactly what was computed
    #[arg(long, requires = "ssd_cache_dir")]
    ssd_cache_quantize: bool,
    /// Memory for what models that see have seen in images, so that they need not look again; 0: none
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = bytes_or_none)]
    media_cache_size: u64,
}

/// Share of the SSD tier that is for features of images, in models that see: `1 / FEATURE_SHARE`. They are smaller than the KV of
/// their tokens in most models.
const FEATURE_SHARE: u64 = 4;

impl CacheArgs {
    fn bytes(&self) -> Option<u64> {
        self.kv_cache_memory.or(self.cache_memory_mb.map(|mib| (mib as u64).saturating_mul(1 << 20)))
    }

    fn ssd(&self) -> Option<SsdOptions> {
        let max_bytes = (self.ssd_cache_max_gb * f64::from(1 << 30)) as u64;
        let quantize = self.ssd_cache_quantize;
        self.ssd_cache_dir.clone().map(|dir| SsdOptions { dir, max_bytes, quantize })
    }

    /// What images are, once they were looked at.
    fn vision(&self) -> VisionConfig {
        let ssd = self.ssd().map(|ssd| SsdOptions { max_bytes: ssd.max_bytes / FEATURE_SHARE, ..ssd });
        VisionConfig { cache_bytes: usize::try_from(self.media_cache_size).unwrap_or(usize::MAX), ssd }
    }
}

/// What to load, with at most `max_num_seqs` sequences at once.
pub fn load_spec(model: &str, source: &SourceArgs, runtime: &RuntimeArgs, max_num_seqs: usize) -> LoadSpec {
    LoadSpec {
        model: model.to_owned(),
        names: Vec::new(),
        hub: source.hub(),
        load: LoadOptions {
            device: source.device,
            threads: runtime.threads,
            pin_threads: runtime.pin_threads,
            activations: runtime.activations,
            max_model_len: runtime.max_model_len,
            kv_cache_bytes: runtime.cache.bytes(),
            memory_utilization: runtime.cache.gpu_memory_utilization,
            media_cache_bytes: None,
            max_num_seqs,
            max_num_batched_tokens: runtime.max_num_batched_tokens,
            kv_cache_dtype: runtime.cache.kv_cache_dtype.0,
            kv_store: if runtime.cache.use_paged_cache { KvStoreChoice::Paged } else { runtime.cache.kv_store },
        },
        engine: EngineConfig {
            max_num_seqs,
            max_num_batched_tokens: runtime.max_num_batched_tokens,
            prefill_step_size: Some(runtime.prefill_step_size).filter(|&tokens| tokens > 0),
            prefix_cache: !runtime.cache.disable_prefix_cache,
            ssd: runtime.cache.ssd(),
            ..EngineConfig::default()
        },
        vision: Some(runtime.cache.vision()),
        formats: Formats::default(),
        sampling: SamplingDefaults::default(),
        chat: ChatDefaults::default(),
        pipeline: None,
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

/// The same, or 0.
pub fn bytes_or_none(text: &str) -> Result<u64, String> {
    if text == "0" { Ok(0) } else { bytes(text) }
}

/// A number above 0.
pub fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (f64::MIN_POSITIVE..=1e9).contains(&number) => Ok(number),
        Ok(_) => Err("must be above 0".into()),
        Err(_) => Err("must be a number".into()),
    }
}

/// A number above 0 and at most 1.
pub fn share(text: &str) -> Result<f64, String> {
    positive(text).ok().filter(|&share| share <= 1.0).ok_or_else(|| "must be above 0 and at most 1".into())
}

/// What activations are rounded to.
pub fn activations(text: &str) -> Result<Activations, String> {
    match text {
        "int16" => Ok(Activations::Int16),
        "int8" => Ok(Activations::Int8),
        "f32" => Ok(Activations::F32),
        _ => Err("use int16, int8 or f32".into()),
    }
}

fn kv_store(text: &str) -> Result<KvStoreChoice, String> {
    match text {
        "auto" => Ok(KvStoreChoice::Auto),
        "paged" => Ok(KvStoreChoice::Paged),
        "contiguous" => Ok(KvStoreChoice::Contiguous),
        _ => Err("use auto, paged or contiguous".into()),
    }
}

/// What keys and values are stored as; `None`: as suits the device. (A type of its own, for clap gives an `Option` another
/// meaning.)
#[derive(Debug, Clone, Copy)]
pub struct KvCacheDtype(pub Option<KvDtype>);

/// `auto` or a [`KvDtype`]; `float16` and `bfloat16` are what vLLM says.
pub fn kv_cache_dtype(text: &str) -> Result<KvCacheDtype, String> {
    let known = KvDtype::ALL.into_iter().find(|dtype| dtype.name() == text);
    match text {
        "auto" => Ok(KvCacheDtype(None)),
        "bfloat16" => Ok(KvCacheDtype(Some(KvDtype::Bf16))),
        "float16" => Ok(KvCacheDtype(Some(KvDtype::F16))),
        _ => known.map(|dtype| KvCacheDtype(Some(dtype))).ok_or_else(|| "use auto, f32, f16, bf16 or int8".into()),
    }
}

/// A time in seconds; 0 means never.
pub fn seconds(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if (0.0..=1e9).contains(&number) => Ok(number),
        Ok(_) => Err("must be at least 0".into()),
        Err(_) => Err("must be a number of seconds".into()),
    }
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

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        model: ModelArgs,
        #[command(flatten)]
        runtime: RuntimeArgs,
    }

    fn parse(flags: &[&str]) -> Result<LoadSpec, clap::Error> {
        let args = ["vllm-mlx", "model"].iter().chain(flags);
        let cli = <Cli as clap::Parser>::try_parse_from(args)?;
        Ok(load_spec(&cli.model.model, &cli.model.source, &cli.runtime, 4))
    }

    #[test]
    fn flags_reach_platform_and_engine() {
        let spec = parse(&[]).unwrap();
        assert_eq!((spec.load.kv_cache_bytes, spec.load.memory_utilization), (None, 0.9));
        assert_eq!((spec.engine.prefill_step_size, spec.engine.prefix_cache, spec.engine.ssd), (None, true, None));

        let flags = "--cache-memory-mb 64 --gpu-memory-utilization 0.5 --kv-store contiguous --max-num-batched-tokens \
            128 --chunked-prefill-tokens 32 --ssd-cache-dir /x --ssd-cache-max-gb 0.5 --ssd-cache-quantize";
        let spec = parse(&flags.split_whitespace().collect::<Vec<_>>()).unwrap();
        assert_eq!((spec.load.kv_cache_bytes, spec.load.memory_utilization), (Some(64 << 20), 0.5));
        assert_eq!((spec.load.kv_store, spec.load.max_num_batched_tokens), (KvStoreChoice::Contiguous, 128));
        assert_eq!((spec.engine.prefill_step_size, spec.engine.max_num_batched_tokens), (Some(32), 128));
        let ssd = SsdOptions { dir: "/x".into(), max_bytes: 1 << 29, quantize: true };
        assert_eq!(spec.engine.ssd, Some(ssd));
        for (name, wanted) in [("auto", None), ("int8", Some(KvDtype::Int8)), ("bfloat16", Some(KvDtype::Bf16))] {
            assert_eq!(parse(&["--kv-cache-dtype", name]).unwrap().load.kv_cache_dtype, wanted);
        }
        assert!(!parse(&["--disable-prefix-cache"]).unwrap().engine.prefix_cache);
        for (flags, wanted) in [
            (&[][..], Activations::Int16),
            (&["--activations", "int8"], Activations::Int8),
            (&["--activations", "f32"], Activations::F32),
        ] {
            assert_eq!(parse(flags).unwrap().load.activations, wanted);
        }
    }

    #[test]
    fn flags_that_contradict_or_are_out_of_range() {
        let cases: [&[&str]; 9] = [
            &["--enable-prefix-cache", "--disable-prefix-cache"],
            &["--disable-prefix-cache", "--ssd-cache-dir", "/x"],
            &["--ssd-cache-quantize"],
            &["--kv-cache-memory", "1G", "--cache-memory-mb", "1"],
            &["--gpu-memory-utilization", "0"],
            &["--gpu-memory-utilization", "1.5"],
            &["--ssd-cache-max-gb", "-1"],
            &["--kv-store", "heap"],
            &["--kv-cache-dtype", "fp4"],
        ];
        for flags in cases {
            assert!(parse(flags).is_err(), "{flags:?}");
        }
    }

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
