//! Gemma 3 with eyes: SigLIP over pictures of one size, averaged block by block to 256 tokens that see each other in the language
//! model.
//!
//! Source: Gemma team, arXiv:2503.19786; layer names as in the Hugging Face checkpoints, in mlx-vlm's too.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Error, LoadContext, Result, Tensor, inventory,
    kv::Attending,
    model::LayerSpec,
    nn::{LayerNorm, Linear, RmsNorm},
    vision::{Language, Pictures, VisionFamily, VisionModel},
};

use crate::{
    language::{text_part, width},
    llava::NAMES,
    rows,
    siglip::{self, Siglip},
};

inventory::submit! {
    VisionFamily::new("Gemma3ForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Gemma3::load(ctx)?)))
}

fn language(config: &Value) -> Result<Language> {
    let (architecture, config) = text_part(config, "gemma3_text")?;
    Ok(Language { architecture: architecture.into(), config, levels: 1 })
}

#[derive(Deserialize)]
struct Config {
    #[serde(default = "tokens_per_image")]
    mm_tokens_per_image: usize,
    vision_config: Value,
}

fn tokens_per_image() -> usize {
    256
}

struct Gemma3 {
    encoder: Siglip,
    blocks: usize,
    norm: LayerNorm,
    /// Rows, and columns, of patches that become one token.
    side: usize,
    token_norm: RmsNorm,
    projection: Linear,
    width: usize,
}

impl Gemma3 {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        let vision = siglip::config(&config.vision_config)?;
        let (patches, tokens) = (vision.side(), config.mm_tokens_per_image.isqrt());
        if tokens == 0 || tokens * tokens != config.mm_tokens_per_image || !patches.is_multiple_of(tokens) {
            return Err(Error::Config(format!(
                "mm_tokens_per_image is {}: {patches} by {patches} patches don't become as many",
                config.mm_tokens_per_image
            )));
        }
        let (tower, projector) = (ctx.at("vision.tower"), ctx.at("vision.projector"));
        let (hidden, eps, blocks) = (vision.hidden_size, vision.layer_norm_eps, vision.num_hidden_layers);
        let width = width(ctx.config_json(), "gemma3_text")?;
        Ok(Self {
            norm: tower.layer_norm("post_layernorm", hidden, eps)?,
            encoder: Siglip::load(&tower, vision, blocks)?,
            blocks,
            side: patches / tokens,
            token_norm: projector.rms_norm_plus_one("mm_soft_emb_norm", hidden, eps)?,
            projection: projector.transposed("mm_input_projection_weight", hidden, width)?,
            width,
        })
    }
}

impl VisionModel for Gemma3 {
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
        let states = self.encoder.states(pictures, &[self.blocks], kv)?;
        let tokens = rows::blocks(&states[0], &pictures.grids, self.side)?;
        let features = kv.by_rows(&tokens, |patches| {
            let mean = self.norm.forward(patches)?.mean_axis(1, false)?;
            Ok([self.projection.forward(&self.token_norm.forward(&mean)?)?])
        })?;
        Ok(features.into())
    }
}
