//! What a family of models that see implements, and where it registers.
//!
//! Such a checkpoint has two parts: a vision encoder with its projector, which is the family's own, and a language model, which is
//! one that is known without eyes. They are loaded apart, each under the names that a checkpoint of its own would have, and run on
//! threads of their own.

use serde_json::Value;
use vllm_checkpoint::Checkpoint;
use vllm_platform::inventory;

use crate::{LoadContext, Result, Tensor, kv::Attending, load::View, model::LayerSpec};

/// What the names of a vision part begin with.
const VISION: &str = "vision.";

/// Pictures to look at.
pub struct Pictures {
    /// [patches, patch_len], f32. The numbers of a patch are ordered by channel, frame, row, column.
    pub patches: Tensor,
    /// Rows and columns of patches of each picture; they stand one after the other.
    pub grids: Vec<[usize; 2]>,
}

/// A vision encoder with its projector. Written once for all devices, like a [`CausalLm`](crate::model::CausalLm).
pub trait VisionModel {
    /// The attention layers, first to last.
    fn layers(&self) -> Vec<LayerSpec>;

    /// Elements of a feature vector: the language model's hidden size.
    fn width(&self) -> usize;

    /// Levels of features: 1, and one for each block of the language model that is given its own (DeepStack).
    fn levels(&self) -> usize {
        1
    }

    /// Numbers of a patch.
    fn patch_len(&self) -> usize;

    /// The features of all pictures, one after the other: [tokens, width] for each level.
    ///
    /// What is computed row by row goes through [`Attending::by_rows`].
    ///
    /// # Errors
    /// If a grid doesn't suit the model; MLX's own.
    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>>;
}

/// The language part of a model that sees.
#[derive(Debug, Clone, PartialEq)]
pub struct Language {
    /// The architecture of the language model, as if its checkpoint were its own.
    pub architecture: String,
    /// Its `config.json`.
    pub config: Value,
    /// Levels of the features it takes.
    pub levels: usize,
}

/// A family of models that see: one architecture name, what its language model is, and how to load the encoder.
pub struct VisionFamily {
    /// As in `config.json`'s `architectures`.
    pub architecture: &'static str,
    language: fn(&Value) -> Result<Language>,
    names: &'static [(&'static str, &'static str)],
    load: fn(&LoadContext<'_>) -> Result<Box<dyn VisionModel>>,
}

impl VisionFamily {
    /// A family whose `config.json` has the language part that `language` finds there.
    ///
    /// `names` are beginnings of tensor names in files, each with what the part's own name has in its place: of the vision part
    /// `vision.…`, of the language part what its architecture has (`model.…`, `lm_head.…`). The first that fits counts; a
    /// name that none fits stays as it is.
    #[must_use]
    pub const fn new(
        architecture: &'static str,
        language: fn(&Value) -> Result<Language>,
        names: &'static [(&'static str, &'static str)],
        load: fn(&LoadContext<'_>) -> Result<Box<dyn VisionModel>>,
    ) -> Self {
        Self { architecture, language, names, load }
    }

    /// A tensor's name in its part.
    fn rename(&self, name: &str) -> String {
        let renamed = self.names.iter().find_map(|(from, to)| Some(format!("{to}{}", name.strip_prefix(from)?)));
        renamed.unwrap_or_else(|| name.into())
    }

    /// The language part of a checkpoint.
    ///
    /// # Errors
    /// If `config.json` lacks what the family needs.
    pub(crate) fn language<'a>(&self, checkpoint: &'a Checkpoint) -> Result<View<'a>> {
        let Language { architecture, config, levels } = (self.language)(checkpoint.config())?;
        let named = |name: &str| Some(self.rename(name)).filter(|name| !name.starts_with(VISION));
        Ok(View::part(checkpoint, config, architecture, named)?.with_media_levels(levels))
    }

    /// The vision part of a checkpoint. Its configuration is the whole.
    ///
    /// # Errors
    /// If a tensor's form isn't known.
    pub(crate) fn vision<'a>(&self, checkpoint: &'a Checkpoint) -> Result<View<'a>> {
        let named = |name: &str| Some(self.rename(name)).filter(|name| name.starts_with(VISION));
        View::part(checkpoint, checkpoint.config().clone(), self.architecture.into(), named)
    }

    /// Loads the encoder from its [`View`].
    pub(crate) fn load(&self, ctx: &LoadContext<'_>) -> Result<Box<dyn VisionModel>> {
        (self.load)(ctx)
    }
}

inventory::collect!(VisionFamily);

/// Families of models that see, linked into this binary, sorted by name.
#[must_use]
pub fn vision_families() -> Vec<&'static VisionFamily> {
    let mut families: Vec<_> = inventory::iter::<VisionFamily>().collect();
    families.sort_by_key(|family| family.architecture);
    families
}

/// The family of a checkpoint, if it is of one that sees.
pub(crate) fn family_of(checkpoint: &Checkpoint) -> Result<Option<&'static VisionFamily>> {
    let name = checkpoint.architecture()?;
    Ok(vision_families().into_iter().find(|family| family.architecture == name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_their_parts() {
        let names = &[("model.language_model.", "model."), ("visual.", "vision."), ("model.visual.", "vision.")];
        let language = |_: &Value| Err(crate::Error::Config("not asked for".into()));
        let family =
            VisionFamily::new("Seeing", language, names, |_| Err(crate::Error::Config("not asked for".into())));
        for (in_file, in_part) in [
            ("model.language_model.norm.weight", "model.norm.weight"),
            ("visual.merger.weight", "vision.merger.weight"),
            ("model.visual.merger.weight", "vision.merger.weight"),
            ("model.layers.0.mlp.weight", "model.layers.0.mlp.weight"),
            ("lm_head.weight", "lm_head.weight"),
        ] {
            assert_eq!(family.rename(in_file), in_part);
        }
    }
}
