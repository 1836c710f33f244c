//! GGUF metadata → a Hugging Face `config.json`.
//!
//! Source: llama.cpp's `convert_hf_to_gguf.py` and `llama-model.cpp`, read backwards (as facts), and the configuration
//! classes of `transformers`.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Map, Value, json};

use super::header::TensorEntry;
use super::kind::Becomes;
use super::metadata::Metadata;
use super::names::Family;
use super::rope;
use crate::tensor::QuantParams;

/// Layers of the one Gemma 3 size whose attention scale is not its head's (27B).
const GEMMA3_27B_LAYERS: u64 = 62;

/// What a configuration is made from.
pub(super) struct Inputs<'a> {
    pub(super) family: Family,
    pub(super) metadata: Metadata<'a>,
    pub(super) tensors: &'a [TensorEntry],
    /// Hugging Face name → tensor.
    pub(super) places: &'a HashMap<String, usize>,
}

impl Inputs<'_> {
    pub(super) fn config(&self) -> Result<Value, String> {
        if let Some(experts @ 1..) = self.unsigned("expert_count")? {
            let family = self.family.name();
            return Err(format!("a mixture of {experts} experts, which is not supported for architecture {family}"));
        }
        let hidden = self.required("embedding_length")?;
        let layers = self.required("block_count")?;
        let heads = self.required("attention.head_count")?;
        if heads == 0 || hidden == 0 {
            return Err("attention.head_count and embedding_length must not be zero".to_owned());
        }
        let kv_heads = self.unsigned("attention.head_count_kv")?.unwrap_or(heads);
        let head_dim = self.unsigned("attention.key_length")?.unwrap_or(hidden / heads);
        let context = self.required("context_length")?;
        let epsilon = self
            .float("attention.layer_norm_rms_epsilon")
            .ok_or_else(|| self.missing("attention.layer_norm_rms_epsilon"))?;
        let (model_type, architecture, activation, theta) = match self.family {
            Family::Llama => ("llama", "LlamaForCausalLM", "silu", 10_000.0),
            Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM", "silu", 10_000.0),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM", "silu", 10_000.0),
            Family::Gemma3 => ("gemma3_text", "Gemma3ForCausalLM", "gelu_pytorch_tanh", 1_000_000.0),
        };
        let theta = self.float("rope.freq_base").unwrap_or(theta);
        let mut config = json!({
            "model_type": model_type,
            "architectures": [architecture],
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "intermediate_size": self.required("feed_forward_length")?,
            "num_attention_heads": heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "rms_norm_eps": epsilon,
            "vocab_size": self.vocab_size()?,
            "rope_theta": theta,
            "max_position_embeddings": context,
            "tie_word_embeddings": !self.places.contains_key("lm_head.weight"),
            "torch_dtype": "float16",
        });
        let key = if self.family == Family::Gemma3 { "hidden_activation" } else { "hidden_act" };
        config[key] = activation.into();
        let rope = rope::Inputs {
            metadata: self.metadata,
            family: self.family.name(),
            tensors: self.tensors,
            theta,
            rotary: self.unsigned("rope.dimension_count")?.unwrap_or(head_dim),
            context,
        };
        if let Some(scaling) = rope.scaling()? {
            config["rope_scaling"] = scaling;
        }
        if rope.rotary < head_dim {
            config["partial_rotary_factor"] = json!(rope.rotary as f64 / head_dim as f64);
        }
        let window = self.unsigned("attention.sliding_window")?;
        match self.family {
            Family::Gemma3 => {
                // The 27B model scales its scores by its width, every other size by its head.
                let scalar = if layers == GEMMA3_27B_LAYERS { hidden / heads } else { head_dim };
                config["query_pre_attn_scalar"] = scalar.into();
                config["sliding_window"] = window.map_or(Value::Null, Value::from);
                config["sliding_window_pattern"] =
                    self.unsigned("attention.sliding_window_pattern")?.unwrap_or(6).into();
                config["rope_local_base_freq"] = json!(self.float("rope.freq_base_swa").unwrap_or(10_000.0));
                config["final_logit_softcapping"] =
                    self.float("final_logit_softcapping").map_or(Value::Null, |x| json!(x));
                // Trained in bfloat16, with activations that overflow a half.
                config["torch_dtype"] = "bfloat16".into();
            }
            Family::Qwen2 | Family::Qwen3 => {
                config["use_sliding_window"] = window.is_some().into();
                config["sliding_window"] = window.map_or(Value::Null, Value::from);
            }
            Family::Llama => {
                config["sliding_window"] = window.map_or(Value::Null, Value::from);
                let has = |name: &str| self.places.contains_key(name);
                config["attention_bias"] = has("model.layers.0.self_attn.q_proj.bias").into();
                config["mlp_bias"] = has("model.layers.0.mlp.gate_proj.bias").into();
            }
        }
        for role in ["bos", "eos"] {
            if let Some(id) = self.metadata.id(&format!("tokenizer.ggml.{role}_token_id")) {
                config[format!("{role}_token_id")] = id.into();
            }
        }
        if let Some(quantization) = self.quantization() {
            config["quantization"] = quantization;
        }
        Ok(config)
    }

    /// MLX's `quantization`: the commonest parameters, then every module that differs (`false` for plain numbers).
    fn quantization(&self) -> Option<Value> {
        let mut modules = BTreeMap::new();
        let mut counts: Vec<(QuantParams, usize)> = Vec::new();
        for (name, &place) in self.places {
            let tensor = &self.tensors[place];
            let (Some(module), true) = (name.strip_suffix(".weight"), tensor.shape.len() >= 2) else { continue };
            let params = match tensor.kind.becomes() {
                Becomes::Affine(params) => Some(params),
                Becomes::Dense(_) | Becomes::Half => None,
            };
            modules.insert(module, params);
            if let Some(params) = params {
                match counts.iter_mut().find(|(p, _)| *p == params) {
                    Some((_, count)) => *count += 1,
                    None => counts.push((params, 1)),
                }
            }
        }
        let (default, _) = *counts.iter().max_by_key(|(params, count)| (*count, params.bits))?;
        let as_json = |params: QuantParams| match json!({"group_size": params.group_size, "bits": params.bits}) {
            Value::Object(object) => object,
            _ => Map::new(),
        };
        let mut quantization = as_json(default);
        quantization.insert("mode".to_owned(), default.mode.name().into());
        for (module, params) in modules.into_iter().filter(|(_, params)| *params != Some(default)) {
            let entry = params.map_or(Value::Bool(false), |params| Value::Object(as_json(params)));
            quantization.insert(module.to_owned(), entry);
        }
        Some(Value::Object(quantization))
    }

    /// Rows of the embedding, which may be more than the tokens that have names.
    fn vocab_size(&self) -> Result<u64, String> {
        let embedding = self.places.get("model.embed_tokens.weight").map(|&place| &self.tensors[place].shape);
        match (embedding.and_then(|shape| shape.first()), self.unsigned("vocab_size")?) {
            (Some(&rows), _) => Ok(rows as u64),
            (None, Some(size)) => Ok(size),
            (None, None) => Err("has neither a token_embd.weight nor a vocab_size".to_owned()),
        }
    }

    fn key(&self, key: &str) -> String {
        format!("{}.{key}", self.family.name())
    }

    fn missing(&self, key: &str) -> String {
        format!("metadata has no {}", self.key(key))
    }

    fn unsigned(&self, key: &str) -> Result<Option<u64>, String> {
        self.metadata.unsigned(&self.key(key))
    }

    fn required(&self, key: &str) -> Result<u64, String> {
        self.unsigned(key)?.ok_or_else(|| self.missing(key))
    }

    fn float(&self, key: &str) -> Option<f64> {
        self.metadata.float(&self.key(key))
    }
}

/// A `generation_config.json`: which tokens begin and end a text.
pub(super) fn generation(metadata: Metadata<'_>, eos_ids: &[u32]) -> Value {
    let mut config = json!({"eos_token_id": eos_ids});
    for (role, key) in [("bos_token_id", "bos"), ("pad_token_id", "padding")] {
        if let Some(id) = metadata.id(&format!("tokenizer.ggml.{key}_token_id")) {
            config[role] = id.into();
        }
    }
    config
}
