//! Idefics3 and SmolVLM: SigLIP over tiles, and a projection of each block of patches, side by side, to one token of a Llama.
//!
//! Sources: Laurençon et al., arXiv:2408.12637; Marafioti et al., arXiv:2504.05299. Layer names as in the Hugging Face checkpoints,
//! in mlx-vlm's too.

use serde::Deserialize;
use serde_json::{Value, json};
use vllm_platform_mlx::{
    Bias, LoadContext, Result, Tensor, inventory,
    kv::Attending,
    model::LayerSpec,
    nn::{LayerNorm, Linear},
    vision::{Pictures, VisionFamily, VisionModel},
};

use crate::{
    language::{language, width, with_defaults},
    rows,
    siglip::{self, Siglip},
};

inventory::submit! {
    VisionFamily::new("Idefics3ForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Idefics3::load(ctx)?)))
}
inventory::submit! {
    VisionFamily::new("SmolVLMForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Idefics3::load(ctx)?)))
}

const NAMES: &[(&str, &str)] = &[
    ("model.text_model.", "model."),
    ("model.vision_model.", "vision.tower."),
    ("model.connector.", "vision.connector."),
    // mlx-vlm's.
    ("language_model.lm_head.", "lm_head."),
    ("language_model.", "model."),
    ("vision_model.", "vision.tower."),
    ("connector.", "vision.connector."),
];

#[derive(Deserialize)]
struct Config {
    #[serde(default = "two")]
    scale_factor: usize,
    vision_config: Value,
}

fn two() -> usize {
    2
}

struct Idefics3 {
    encoder: Siglip,
    blocks: usize,
    norm: LayerNorm,
    /// Rows, and columns, of positions that were learned.
    positions: usize,
    /// Rows, and columns, of patches that become one token.
    side: usize,
    projection: Linear,
    width: usize,
}

impl Idefics3 {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        let width = width(ctx.config_json(), "llama")?;
        let defaults = json!({"hidden_size": 1152, "num_attention_heads": 16, "patch_size": 32});
        let vision = siglip::config(&with_defaults(config.vision_config.as_object(), defaults))?;
        let (tower, side) = (ctx.at("vision.tower"), config.scale_factor);
        let (hidden, blocks) = (vision.hidden_size, vision.num_hidden_layers);
        Ok(Self {
            norm: tower.layer_norm("post_layernorm", hidden, vision.layer_norm_eps)?,
            positions: vision.side(),
            encoder: Siglip::load(&tower, vision, blocks)?,
            blocks,
            side,
            projection: ctx.linear(
                "vision.connector.modality_projection.proj",
                hidden * side * side,
                width,
                Bias::None,
            )?,
            width,
        })
    }
}

impl VisionModel for Idefics3 {
    fn layers(&self) -> Vec<LayerSpec> {
        self.encoder.layers()
    }

    fn width(&self) -> usize {
        self.width
    }

    fn patch_len(&self) -> usize {
        self.encoder.patch_len()
    }

    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let positions = siglip::positions(&pictures.grids, self.positions);
        let states = self.encoder.states_at(&positions, pictures, &[self.blocks], kv)?;
        let tokens = rows::blocks(&states[0], &pictures.grids, self.side)?;
        let features = kv.by_rows(&tokens, |patches| {
            Ok([self.projection.forward(&self.norm.forward(patches)?.flatten(1, 2)?)?])
        })?;
        Ok(features.into())
    }
}
