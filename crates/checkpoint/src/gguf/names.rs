//! GGUF's tensor names → Hugging Face's.
//!
//! Source: llama.cpp's `gguf-py/gguf/tensor_mapping.py` (as facts).

/// The model families whose GGUF files we read, by `general.architecture`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    Llama,
    Qwen2,
    Qwen3,
    Gemma3,
}

impl Family {
    /// Every `general.architecture` that is read.
    pub(super) const KNOWN: &str = "llama, qwen2, qwen3, gemma3";

    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "llama" => Self::Llama,
            "qwen2" => Self::Qwen2,
            "qwen3" => Self::Qwen3,
            "gemma3" => Self::Gemma3,
            _ => return None,
        })
    }

    /// The family's name as metadata keys begin with it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Llama => "llama",
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Whether the file's query and key rows are interleaved, as llama.cpp's rotary embedding wants them for this family.
    pub(super) fn interleaves_rope(self) -> bool {
        self == Self::Llama
    }

    /// Whether the file's norm weights hold `1 + w`.
    pub(super) fn bakes_one_into_norms(self) -> bool {
        self == Self::Gemma3
    }

    /// The Hugging Face name of a tensor; one that has none keeps its own, so that it is reported as surplus.
    pub(super) fn hugging_face_name(self, name: &str) -> String {
        self.renamed(name).unwrap_or_else(|| name.to_owned())
    }

    fn renamed(self, name: &str) -> Option<String> {
        let (stem, suffix) = name.rsplit_once('.')?;
        let Some(rest) = stem.strip_prefix("blk.") else {
            let module = match stem {
                "token_embd" => "model.embed_tokens",
                "output_norm" => "model.norm",
                "output" => "lm_head",
                _ => return None,
            };
            return Some(format!("{module}.{suffix}"));
        };
        let (layer, part) = rest.split_once('.')?;
        layer.parse::<u32>().ok()?;
        let module = match (part, self) {
            ("attn_norm", _) => "input_layernorm",
            ("attn_q", _) => "self_attn.q_proj",
            ("attn_k", _) => "self_attn.k_proj",
            ("attn_v", _) => "self_attn.v_proj",
            ("attn_output", _) => "self_attn.o_proj",
            ("attn_q_norm", Self::Qwen3 | Self::Gemma3) => "self_attn.q_norm",
            ("attn_k_norm", Self::Qwen3 | Self::Gemma3) => "self_attn.k_norm",
            ("ffn_gate", _) => "mlp.gate_proj",
            ("ffn_up", _) => "mlp.up_proj",
            ("ffn_down", _) => "mlp.down_proj",
            ("ffn_norm", Self::Gemma3) => "pre_feedforward_layernorm",
            ("ffn_norm", _) => "post_attention_layernorm",
            ("post_attention_norm", Self::Gemma3) => "post_attention_layernorm",
            ("post_ffw_norm", Self::Gemma3) => "post_feedforward_layernorm",
            _ => return None,
        };
        Some(format!("model.layers.{layer}.{module}.{suffix}"))
    }
}

#[cfg(test)]
mod tests {
    use super::Family::{self, Gemma3, Llama, Qwen2, Qwen3};

    #[test]
    fn names_follow_the_family() {
        let cases: [(Family, &str, &str); 9] = [
            (Llama, "token_embd.weight", "model.embed_tokens.weight"),
            (Llama, "blk.12.ffn_norm.weight", "model.layers.12.post_attention_layernorm.weight"),
            (Gemma3, "blk.12.ffn_norm.weight", "model.layers.12.pre_feedforward_layernorm.weight"),
            (Gemma3, "blk.0.post_attention_norm.weight", "model.layers.0.post_attention_layernorm.weight"),
            (Qwen2, "blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias"),
            (Qwen3, "blk.0.attn_q_norm.weight", "model.layers.0.self_attn.q_norm.weight"),
            (Llama, "blk.0.ffn_gate_exps.weight", "blk.0.ffn_gate_exps.weight"),
            (Llama, "blk.x.attn_q.weight", "blk.x.attn_q.weight"),
            (Llama, "odd", "odd"),
        ];
        for (family, gguf, wanted) in cases {
            assert_eq!(family.hugging_face_name(gguf), wanted, "{family:?} {gguf}");
        }
    }
}
