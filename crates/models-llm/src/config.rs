//! What the families' `config.json`s have in common, and the checks that make later arithmetic safe.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{Error, LoadContext, Result, model::LayerSpec, nn::RopeConfig};

/// Query heads, and the key/value heads they share in groups (Ainslie et al., arXiv:2305.13245).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Heads {
    pub query: usize,
    pub kv: usize,
    /// Elements of a head.
    pub dim: usize,
}

impl Heads {
    /// `kv` defaults to one for each query head, `dim` to the hidden size's share.
    pub fn new(hidden: usize, query: usize, kv: Option<usize>, dim: Option<usize>) -> Result<Self> {
        let kv = kv.unwrap_or(query);
        if query == 0 || kv == 0 || !query.is_multiple_of(kv) {
            return Err(Error::Config(format!(
                "num_attention_heads is {query}, num_key_value_heads {kv}: the first must be a multiple of the second"
            )));
        }
        let dim = match dim {
            Some(dim) => dim,
            None if hidden.is_multiple_of(query) => hidden / query,
            None => {
                return Err(Error::Config(format!(
                    "hidden_size is {hidden}: without a head_dim it must be a multiple of num_attention_heads, {query}"
                )));
            }
        };
        if dim == 0 || !dim.is_multiple_of(2) {
            return Err(Error::Config(format!("head_dim is {dim}: it must be even, RoPE turns pairs")));
        }
        Ok(Self { query, kv, dim })
    }

    /// Elements of a row of queries.
    pub fn query_size(self) -> usize {
        self.query * self.dim
    }

    /// Elements of a row of keys, or of values.
    pub fn kv_size(self) -> usize {
        self.kv * self.dim
    }

    /// What the KV cache holds for layers with these windows.
    pub fn layers(self, windows: &[Option<usize>]) -> Vec<LayerSpec> {
        windows.iter().map(|&window| LayerSpec { kv_heads: self.kv, head_dim: self.dim, window }).collect()
    }
}

/// An entry of `layer_types`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LayerType {
    FullAttention,
    SlidingAttention,
}

/// Each layer's window, from `layer_types` if there are any, else by `otherwise` (the layer's index → does it slide).
pub(crate) fn windows(
    layers: usize,
    layer_types: Option<&[LayerType]>,
    sliding_window: Option<usize>,
    otherwise: impl Fn(usize) -> bool,
) -> Result<Vec<Option<usize>>> {
    if let Some(types) = layer_types
        && types.len() != layers
    {
        return Err(Error::Config(format!("layer_types has {} entries, num_hidden_layers is {layers}", types.len())));
    }
    let slides =
        |layer| layer_types.map_or_else(|| otherwise(layer), |types| types[layer] == LayerType::SlidingAttention);
    (0..layers)
        .map(|layer| match (slides(layer), sliding_window) {
            (false, _) => Ok(None),
            (true, Some(window)) if window > 0 => Ok(Some(window)),
            (true, given) => Err(Error::Config(format!(
                "layer {layer} slides, but sliding_window is {}",
                given.map_or("missing".into(), |w| w.to_string())
            ))),
        })
        .collect()
}

/// Frequencies for whole heads: none of these families turns only a part of each.
pub(crate) fn rope(ctx: &LoadContext<'_>, heads: Heads) -> Result<RopeConfig> {
    let config = ctx.config_json();
    let place = config.get("rope_parameters").filter(|p| p.get("partial_rotary_factor").is_some()).unwrap_or(config);
    match place.get("partial_rotary_factor").and_then(Value::as_f64) {
        Some(part) if part != 1.0 => {
            Err(Error::Config(format!("partial_rotary_factor is {part}; this architecture rotates whole heads")))
        }
        _ => RopeConfig::from_config(config, heads.dim),
    }
}

/// The activation must be the one this family is written with.
pub(crate) fn check_activation(key: &str, found: Option<&str>, known: &[&str]) -> Result<()> {
    match found {
        Some(other) if !known.contains(&other) => {
            Err(Error::Config(format!("{key} is {other:?}; this architecture has {:?}", known[0])))
        }
        _ => Ok(()),
    }
}

/// Tokens that the model takes: what it was trained for, or what YaRN stretches that to.
///
/// YaRN's recipe is to add `rope_scaling` to a `config.json` and to leave `max_position_embeddings` alone.
pub(crate) fn context_length(ctx: &LoadContext<'_>, trained: usize) -> usize {
    let config = ctx.config_json();
    let present = |key| config.get(key).filter(|v: &&Value| !v.is_null());
    let Some(scaling) = present("rope_parameters").or_else(|| present("rope_scaling")) else { return trained };
    let kind = ["rope_type", "type"].iter().find_map(|key| scaling.get(key)?.as_str());
    let number = |key| scaling.get(key).and_then(Value::as_f64);
    let (Some("yarn"), Some(factor)) = (kind, number("factor")) else { return trained };
    let original = number("original_max_position_embeddings").unwrap_or(trained as f64);
    // Saturates; the result only bounds lengths.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    trained.max((original * factor) as usize)
}
