//! LLaVA and those built like it: an encoder of one's choice (CLIP, SigLIP, Pixtral), states of one or some of its blocks, and two
//! projections to a language model of one's choice.
//!
//! Source: Liu et al., arXiv:2310.03744; layer names as in the Hugging Face checkpoints, in mlx-vlm's too.

use serde::Deserialize;
use serde_json::Value;
use vllm_platform_mlx::{
    Activation, Bias, Error, LoadContext, Ops, Result, Tensor, inventory,
    kv::Attending,
    mlx_rs::ops::concatenate,
    model::LayerSpec,
    nn::Linear,
    vision::{Pictures, VisionFamily, VisionModel},
};

use crate::{
    clip::{self, Clip},
    config::activation,
    language::{language, width},
    pixtral::{self, Pixtral},
    rows,
    siglip::{self, Siglip},
};

inventory::submit! {
    VisionFamily::new("LlavaForConditionalGeneration", language, NAMES, |ctx| Ok(Box::new(Llava::load(ctx)?)))
}

/// As published and as mlx-vlm writes them, and as transformers 5 does; it dropped `vision_model` later.
pub(crate) const NAMES: &[(&str, &str)] = &[
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("model.language_model.", "model."),
    ("vision_tower.vision_model.", "vision.tower."),
    ("vision_tower.", "vision.tower."),
    ("model.vision_tower.vision_model.", "vision.tower."),
    ("model.vision_tower.", "vision.tower."),
    ("multi_modal_projector.", "vision.projector."),
    ("model.multi_modal_projector.", "vision.projector."),
];

#[derive(Deserialize)]
struct Config {
    vision_config: Value,
    #[serde(default = "last_but_one")]
    vision_feature_layer: Layers,
    #[serde(default)]
    vision_feature_select_strategy: Strategy,
    #[serde(flatten)]
    projector: ProjectorConfig,
}

/// The projector's part of the root of a `config.json`.
#[derive(Deserialize)]
pub(crate) struct ProjectorConfig {
    #[serde(default = "gelu")]
    projector_hidden_act: String,
    multimodal_projector_bias: Option<bool>,
}

/// `vision_feature_layer`: states after how many blocks, from the end if negative (−1: after the last).
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Layers {
    One(i64),
    Several(Vec<i64>),
}

impl Layers {
    /// After how many of so many blocks.
    pub fn resolve(&self, blocks: usize) -> Result<Vec<usize>> {
        let given = match self {
            Self::One(layer) => std::slice::from_ref(layer),
            Self::Several(layers) => layers,
        };
        let states = i64::try_from(blocks).unwrap_or(i64::MAX - 1) + 1;
        let resolve = |&layer: &i64| {
            let state = if layer < 0 { states + layer } else { layer };
            usize::try_from(state).ok().filter(|&state| state <= blocks)
        };
        let resolved: Option<Vec<_>> = given.iter().map(resolve).collect();
        resolved
            .filter(|layers| !layers.is_empty())
            .ok_or_else(|| Error::Config(format!("vision_feature_layer is {given:?}: the encoder has {blocks} blocks")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
enum Strategy {
    /// Without the first token of each picture: CLIP's for the picture as a whole.
    #[default]
    Default,
    Full,
}

fn last_but_one() -> Layers {
    Layers::One(-2)
}

fn gelu() -> String {
    "gelu".into()
}

/// Two projections with an activation between them, to the language model's width.
pub(crate) struct Projector {
    ops: Ops,
    first: Linear,
    activation: Activation,
    second: Linear,
    pub width: usize,
}

impl Projector {
    /// `bias`: where the configuration doesn't say.
    pub fn load(
        ctx: &LoadContext<'_>,
        config: &ProjectorConfig,
        [inputs, width]: [usize; 2],
        bias: bool,
    ) -> Result<Self> {
        let bias = Bias::from(config.multimodal_projector_bias.unwrap_or(bias));
        let ctx = ctx.at("vision.projector");
        Ok(Self {
            ops: ctx.ops(),
            first: ctx.linear("linear_1", inputs, width, bias)?,
            activation: activation(&config.projector_hidden_act)?,
            second: ctx.linear("linear_2", width, width, bias)?,
            width,
        })
    }

    /// [tokens, inputs] → [tokens, width].
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.second.forward(&self.ops.activate(&self.first.forward(x)?, self.activation)?)
    }
}

enum Encoder {
    Clip(Clip),
    Siglip(Siglip),
    Pixtral(Pixtral),
}

impl Encoder {
    /// By `vision_config`'s `model_type`: the encoder as far as it is needed, its hidden size, and after how many blocks its
    /// states are wanted.
    fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<(Self, usize, Vec<usize>)> {
        let vision = &config.vision_config;
        let needed = |blocks: usize| -> Result<_> {
            let after = config.vision_feature_layer.resolve(blocks)?;
            Ok((after.iter().copied().max().unwrap_or(blocks), after))
        };
        // What comes after the blocks makes one vector of a picture.
        ctx.ignore(|name| name.starts_with("post_layernorm."));
        match vision.get("model_type").and_then(Value::as_str).unwrap_or("clip_vision_model") {
            "clip_vision_model" => {
                let config = clip::config(vision)?;
                let (hidden, (blocks, after)) = (config.hidden_size, needed(config.num_hidden_layers)?);
                Ok((Self::Clip(Clip::load(ctx, config, blocks)?), hidden, after))
            }
            "siglip_vision_model" => {
                let config = siglip::config(vision)?;
                let (hidden, (blocks, after)) = (config.hidden_size, needed(config.num_hidden_layers)?);
                Ok((Self::Siglip(Siglip::load(ctx, config, blocks)?), hidden, after))
            }
            "pixtral" => {
                let config = pixtral::Config::new(vision)?;
                let (blocks, after) = needed(config.num_hidden_layers)?;
                Ok((Self::Pixtral(Pixtral::load(ctx, &config, blocks)?), config.hidden_size, after))
            }
            other => Err(Error::Config(format!(
                "vision_config.model_type is {other:?}; known are clip_vision_model, siglip_vision_model and pixtral"
            ))),
        }
    }

    /// Tokens of each picture before those of its patches.
    fn extra(&self) -> usize {
        usize::from(matches!(self, Self::Clip(_)))
    }

    fn states(&self, pictures: &Pictures, after: &[usize], kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        match self {
            Self::Clip(encoder) => encoder.states(pictures, after, kv),
            Self::Siglip(encoder) => encoder.states(pictures, after, kv),
            Self::Pixtral(encoder) => encoder.states(pictures, after, kv),
        }
    }
}

struct Llava {
    encoder: Encoder,
    after: Vec<usize>,
    strategy: Strategy,
    projector: Projector,
}

impl Llava {
    fn load(ctx: &LoadContext<'_>) -> Result<Self> {
        let config: Config = ctx.config()?;
        let (encoder, hidden, after) = Encoder::load(&ctx.at("vision.tower"), &config)?;
        let strategy = config.vision_feature_select_strategy;
        if strategy == Strategy::Default && encoder.extra() == 0 {
            return Err(Error::Config(
                "vision_feature_select_strategy is default, which leaves a picture's first token out: only CLIP has one \
                 that is no patch"
                    .into(),
            ));
        }
        let sizes = [hidden * after.len(), width(ctx.config_json(), "llama")?];
        let projector = Projector::load(ctx, &config.projector, sizes, true)?;
        Ok(Self { encoder, after, strategy, projector })
    }

    /// The rows of states that become tokens, if not all do.
    fn chosen(&self, grids: &[[usize; 2]]) -> Option<Vec<u32>> {
        if self.strategy == Strategy::Full {
            return None;
        }
        let mut chosen = Vec::new();
        let mut first = 0;
        for patches in rows::lengths(grids).into_iter().filter_map(|len| u32::try_from(len).ok()) {
            chosen.extend(first + 1..=first + patches);
            first += 1 + patches;
        }
        Some(chosen)
    }
}

impl VisionModel for Llava {
    fn layers(&self) -> Vec<LayerSpec> {
        match &self.encoder {
            Encoder::Clip(encoder) => encoder.layers(),
            Encoder::Siglip(encoder) => encoder.layers(),
            Encoder::Pixtral(encoder) => encoder.layers(),
        }
    }

    fn width(&self) -> usize {
        self.projector.width
    }

    fn patch_len(&self) -> usize {
        match &self.encoder {
            Encoder::Clip(encoder) => encoder.patch_len(),
            Encoder::Siglip(encoder) => encoder.patch_len(),
            Encoder::Pixtral(encoder) => encoder.patch_len(),
        }
    }

    fn forward(&self, pictures: &Pictures, kv: &mut Attending<'_>) -> Result<Vec<Tensor>> {
        let mut x = concatenate(&self.encoder.states(pictures, &self.after, kv)?, 1)?;
        if let Some(chosen) = self.chosen(&pictures.grids) {
            x = rows::pick(&x, &chosen)?;
        }
        let features = kv.by_rows(&x, |x| Ok([self.projector.forward(x)?]))?;
        Ok(features.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_from_either_end() {
        let resolve = |layers: &Layers| layers.resolve(24).map_err(|error| error.to_string());
        assert_eq!(resolve(&last_but_one()), Ok(vec![23]));
        assert_eq!(resolve(&Layers::Several(vec![-1, 0, 12, -25])), Ok(vec![24, 0, 12, 0]));
        for wrong in [Layers::One(25), Layers::One(-26), Layers::Several(vec![])] {
            assert!(resolve(&wrong).expect_err("no such block").contains("the encoder has 24 blocks"), "{wrong:?}");
        }
    }
}
