//! Mistral 3 (Small 3.1 and on): Pixtral's eyes, and each block of patches merged to one token.
//!
//! Layer names as in the Hugging Face checkpoints, in mlx-vlm's too.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Bias, Error, LoadContext, Result, Tensor, inventory,
    kv::Attending,
    model::LayerSpec,
    nn::{Linear, RmsNorm},
    vision::{Language, Pictures, VisionFamily, VisionModel},
};

use crate::{
    language::{text_part, width},
    llava::{Layers, NAMES, Projector, ProjectorConfig},
    pixtral::{self, Pixtral},
    rows,
};

inventory::submit! {
    VisionFamily::new("Mistral3ForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Mistral3::load(ctx)?)))
}

fn language(config: &Value) -> Result<Language> {
    let (architecture, config) = text_part(config, "mistral")?;
    Ok(Language { architecture: architecture.into(), config, levels: 1 })
}

#[derive(Deserialize)]
struct Config {
    vision_config: Value,
    #[serde(default = "last")]
    vision_feature_layer: Layers,
    #[serde(default = "two")]
    spatial_merge_size: usize,
    #[serde(flatten)]
    projector: ProjectorConfig,
}

fn last() -> Layers {
    Layers::One(-1)
}

fn two() -> usize {
    2
}

struct Mistral3 {
    encoder: Pixtral,
    /// States after how many blocks.
    after: usize,
    norm: RmsNorm,
    /// Rows, and columns, of patches that become one token.
    side: usize,
    merger: Linear,
    projector: Projector,
}

impl Mistral3 {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        let (_, text) = text_part(ctx.config_json(), "mistral")?;
        let eps = text["rms_norm_eps"].as_f64().unwrap_or(1e-5) as f32;
        let width = width(ctx.config_json(), "mistral")?;
        let vision = pixtral::Config::new(&config.vision_config)?;
        let (hidden, side) = (vision.hidden_size, config.spatial_merge_size);
        let [after] = config.vision_feature_layer.resolve(vision.num_hidden_layers)?[..] else {
            return Err(Error::Config(
                "vision_feature_layer has several: patches are merged of one block's states".into(),
            ));
        };
        let projector = ctx.at("vision.projector");
        Ok(Self {
            encoder: Pixtral::load(&ctx.at("vision.tower"), &vision, after)?,
            after,
            norm: projector.rms_norm("norm", hidden, eps)?,
            side,
            merger: projector.linear("patch_merger.merging_layer", hidden * side * side, hidden, Bias::None)?,
            projector: Projector::load(ctx, &config.projector, [hidden, width], false)?,
        })
    }
}

impl VisionModel for Mistral3 {
    fn layers(&self) -> Vec<LayerSpec> {
        self.encoder.layers()
    }

    fn width(&self) -> usize {
        self.projector.width
    }

    fn patch_len(&self) -> usize {
        self.encoder.patch_len()
    }

    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let states = self.encoder.states(pictures, &[self.after], kv)?;
        let tokens = rows::blocks(&states[0], &pictures.grids, self.side)?;
        let features = kv.by_rows(&tokens, |patches| {
            // The merger's inputs are ordered by element first, by patch second.
            let merged = self.norm.forward(patches)?.transpose_axes(&[0, 2, 1])?.flatten(1, 2)?;
            Ok([self.projector.forward(&self.merger.forward(&merged)?)?])
        })?;
        Ok(features.into())
    }
}
