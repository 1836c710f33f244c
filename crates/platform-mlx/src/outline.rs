//! What a checkpoint is made of, for whoever spreads its layers over machines.

use std::ops::Range;

use serde_json::Value;
use vllm_platform::ModelOutline;

use crate::{Error, Result, fingerprint::outline_fingerprint, load::View, model::Family};

/// Which layer a tensor belongs to; `None`: what comes before or after them.
pub(crate) fn layer_of(name: &str) -> Option<usize> {
    let name = name.strip_prefix("model.").unwrap_or(name);
    name.strip_prefix("layers.")?.split('.').next()?.parse().ok()
}

/// The outline of a checkpoint of `family`.
///
/// # Errors
/// If the family's layers can't be apart, or the checkpoint has none or a tensor of a form that isn't known.
pub(crate) fn outline(view: &View<'_>, family: &Family, known: &str) -> Result<ModelOutline> {
    if view.media_levels > 0 {
        let name = &view.architecture;
        return Err(Error::Option(format!(
            "{name} here is the language part of a model that sees: no pipeline takes it"
        )));
    }
    if !family.stages {
        let name = &view.architecture;
        return Err(Error::Option(format!("{name} can't be spread over machines; these can: {known}")));
    }
    let (mut layers, mut before, mut after) = (Vec::new(), 0, 0);
    for name in view.names() {
        let bytes = view.bytes(name)?;
        match layer_of(name) {
            Some(layer) => {
                if layers.len() <= layer {
                    layers.resize(layer + 1, 0);
                }
                layers[layer] += bytes;
            }
            None if name.contains("embed_tokens") => before += bytes,
            None => after += bytes,
        }
    }
    let wanted = view.config.get("num_hidden_layers").and_then(Value::as_u64);
    if wanted != Some(layers.len() as u64) {
        let wanted = wanted.map_or("missing".into(), |wanted| wanted.to_string());
        return Err(Error::Config(format!("num_hidden_layers is {wanted}, and there are {} layers", layers.len())));
    }
    let tied = view.config.get("tie_word_embeddings").and_then(Value::as_bool);
    if tied.unwrap_or(!view.has("lm_head.weight")) {
        after += before;
    }
    Ok(ModelOutline {
        architecture: view.architecture.clone(),
        fingerprint: outline_fingerprint(view)?,
        layers,
        before,
        after,
    })
}

/// That a model of so many layers has these.
///
/// # Errors
/// [`Error::Option`] if it hasn't, or there are none.
pub(crate) fn check_layers(layers: &Range<usize>, outline: &ModelOutline) -> Result<()> {
    let all = outline.layers.len();
    if layers.start < layers.end && layers.end <= all {
        return Ok(());
    }
    Err(Error::Option(format!("layers {} to {} of {all} were asked for", layers.start, layers.end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_belongs_to_the_layer_in_its_name() {
        for (name, wanted) in [
            ("model.layers.12.mlp.up_proj.weight", Some(12)),
            ("layers.0.input_layernorm.weight", Some(0)),
            ("model.embed_tokens.weight", None),
            ("model.norm.weight", None),
            ("lm_head.weight", None),
            ("model.layers.x.weight", None),
        ] {
            assert_eq!(layer_of(name), wanted, "{name}");
        }
    }
}
