//! `vllm-mlx info`.

use std::{collections::BTreeMap, io::Write as _};

use serde_json::{Value, json};
use vllm_checkpoint::{Checkpoint, Storage};
use vllm_media::Processor;
use vllm_platform::{DeviceKind, KvDtype, MemoryInfo};

use super::{
    args::{KvCacheDtype, ModelArgs, kv_cache_dtype},
    progress,
    report::mib,
};
use crate::{
    model::{open_platform, resolve},
    vision::modalities,
};

/// Flags of `info`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// What keys and values are to be stored as: auto, f32, f16, bf16 or int8
    #[arg(long, value_name = "DTYPE", default_value = "auto", value_parser = kv_cache_dtype)]
    kv_cache_dtype: KvCacheDtype,
    /// Print a JSON object
    #[arg(long)]
    json: bool,
}

/// Prints what the files say.
///
/// # Errors
/// One line each: files, device.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = resolve(&args.model.model, &args.model.source.hub(), &progress::bars())?;
    let checkpoint = Checkpoint::open(&path)?;
    let platform = open_platform()?;
    let device = args.model.source.device.resolve(&platform.devices())?;
    let architecture = checkpoint.architecture()?.to_owned();
    // The CPU takes f16 by itself, and other devices keep the model's own 16 bits.
    let default_kv = KvDtype::F16;
    let facts = Facts {
        path: path.display().to_string(),
        supported: platform.architectures().contains(&architecture.as_str()),
        known: platform.architectures(),
        architecture,
        takes: Processor::load(&checkpoint).map(|processor| modalities(processor.as_ref())).map_err(|e| e.to_string()),
        weights: Weights::of(&checkpoint)?,
        shape: Shape::of(checkpoint.config(), args.kv_cache_dtype.0.unwrap_or(default_kv)),
        device,
        memory: platform.memory(device)?,
    };
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", facts.json())?
    } else {
        write!(out, "{}", facts.text())?
    }
    Ok(())
}

struct Facts {
    path: String,
    architecture: String,
    supported: bool,
    known: Vec<&'static str>,
    /// What may stand in its prompts, or why that isn't known.
    takes: Result<Vec<&'static str>, String>,
    weights: Weights,
    shape: Shape,
    device: DeviceKind,
    memory: MemoryInfo,
}

impl Facts {
    /// Weights and the KV of one sequence of full length.
    fn needed(&self) -> u64 {
        let context = self.shape.context.unwrap_or(0) as u64;
        self.weights.bytes + context * self.shape.kv_bytes_per_token.unwrap_or(0)
    }

    fn verdict(&self) -> String {
        let (limit, needed) = (self.memory.limit, self.needed());
        if !self.supported {
            return format!("no: {} is not supported (supported: {})", self.architecture, self.known.join(", "));
        }
        if needed <= limit {
            return format!("yes: {} of {} with one full context", mib(needed), mib(limit));
        }
        match self.shape.kv_bytes_per_token {
            Some(per_token) if self.weights.bytes < limit && per_token > 0 => {
                let tokens = (limit - self.weights.bytes) / per_token;
                format!("with a shorter context: {} for {tokens} tokens (--max-model-len)", mib(limit))
            }
            _ => format!("no: {} needed, {} there", mib(needed), mib(limit)),
        }
    }

    fn text(&self) -> String {
        let unknown = || "not given".to_owned();
        let context = self.shape.context.map_or_else(unknown, |tokens| format!("{tokens} tokens"));
        let kv = self
            .shape
            .kv_bytes_per_token
            .map_or_else(unknown, |bytes| format!("{bytes} bytes in {}", self.shape.kv_dtype));
        let rows = [
            ("path", self.path.clone()),
            ("architecture", self.architecture.clone()),
            ("takes", self.takes.as_ref().map_or_else(|why| format!("unknown: {why}"), |takes| takes.join(", "))),
            ("parameters", count(self.weights.parameters)),
            ("quantization", self.weights.kinds()),
            ("weights", mib(self.weights.bytes)),
            ("context", context),
            ("KV per token", kv),
            ("fits", self.verdict()),
        ];
        rows.iter().map(|(name, value)| format!("{name:<14}{value}\n")).collect()
    }

    fn json(&self) -> Value {
        json!({
            "path": self.path,
            "architecture": self.architecture,
            "supported": self.supported,
            "modalities": self.takes.as_ref().ok(),
            "parameters": self.weights.parameters,
            "quantization": self.weights.kinds(),
            "weight_bytes": self.weights.bytes,
            "context_length": self.shape.context,
            "kv_cache_dtype": self.shape.kv_dtype,
            "kv_bytes_per_token": self.shape.kv_bytes_per_token,
            "device": self.device,
            "memory_limit": self.memory.limit,
            "memory_needed": self.needed(),
            "fits": self.supported && self.needed() <= self.memory.limit,
        })
    }
}

/// What the tensors are.
struct Weights {
    parameters: u64,
    bytes: u64,
    /// Parameters by the way they are stored.
    by_kind: BTreeMap<String, u64>,
}

impl Weights {
    fn of(checkpoint: &Checkpoint) -> anyhow::Result<Self> {
        let mut weights = Self { parameters: 0, bytes: 0, by_kind: BTreeMap::new() };
        for name in checkpoint.tensor_names() {
            let spec = checkpoint.spec(name)?;
            weights.parameters += spec.elements();
            weights.bytes += spec.file_bytes;
            let kind = match spec.storage {
                Storage::Dense(dtype) => dtype.name().to_lowercase(),
                Storage::Quantized(params) => {
                    format!("{} {} bit, group {}", params.mode.name(), params.bits, params.group_size)
                }
            };
            *weights.by_kind.entry(kind).or_default() += spec.elements();
        }
        Ok(weights)
    }

    /// Most frequent first, with their shares.
    fn kinds(&self) -> String {
        let mut kinds: Vec<_> = self.by_kind.iter().collect();
        kinds.sort_by(|a, b| b.1.cmp(a.1));
        let share = |n: u64| 100.0 * n as f64 / self.parameters.max(1) as f64;
        let kinds: Vec<String> = kinds.iter().map(|&(kind, &n)| format!("{kind} ({:.1} %)", share(n))).collect();
        kinds.join("; ")
    }
}

/// What `config.json` says that matters here.
struct Shape {
    context: Option<usize>,
    kv_dtype: KvDtype,
    kv_bytes_per_token: Option<u64>,
}

impl Shape {
    fn of(config: &Value, kv_dtype: KvDtype) -> Self {
        let text = config.get("text_config").unwrap_or(config);
        let number = |name: &str| text.get(name).or_else(|| config.get(name)).and_then(Value::as_u64);
        let heads = number("num_attention_heads");
        let head_dim = number("head_dim").or_else(|| Some(number("hidden_size")? / heads?.max(1)));
        let kv_heads = number("num_key_value_heads").or(heads);
        let head = head_dim.map(|dim| kv_dtype.head_bytes(dim as usize) as u64);
        let kv_bytes_per_token = number("num_hidden_layers").zip(kv_heads).zip(head);
        Self {
            context: number("max_position_embeddings").map(|n| n as usize),
            kv_dtype,
            kv_bytes_per_token: kv_bytes_per_token.map(|((layers, heads), head)| 2 * layers * heads * head),
        }
    }
}

/// `134,515,008 (135 M)`.
fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    let short = match n {
        1_000_000_000.. => format!(" ({:.1} B)", n as f64 / 1e9),
        1_000_000.. => format!(" ({:.0} M)", n as f64 / 1e6),
        _ => String::new(),
    };
    grouped + &short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_from_configs() {
        let llama = json!({"num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "hidden_size": 576, "max_position_embeddings": 8192});
        let nested = json!({"text_config": {"num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 256,
            "hidden_size": 640}});
        let cases = [
            ("grouped heads", &llama, KvDtype::F32, Some(8192), Some(30 * 3 * 64 * 2 * 4)),
            ("half precision", &llama, KvDtype::F16, Some(8192), Some(30 * 3 * 64 * 2 * 2)),
            ("bytes and a scale", &llama, KvDtype::Int8, Some(8192), Some(30 * 3 * (64 + 4) * 2)),
            ("head_dim given, nested", &nested, KvDtype::F32, None, Some(2 * 4 * 256 * 2 * 4)),
            ("nothing", &json!({}), KvDtype::F32, None, None),
        ];
        for (name, config, dtype, context, per_token) in cases {
            let shape = Shape::of(config, dtype);
            assert_eq!((shape.context, shape.kv_bytes_per_token), (context, per_token), "{name}");
        }
    }

    #[test]
    fn counts() {
        assert_eq!(count(134_515_008), "134,515,008 (135 M)");
        assert_eq!(count(999), "999");
        assert_eq!(count(8_030_261_248), "8,030,261,248 (8.0 B)");
    }
}
