//! LLaVA 1.5: CLIP (or SigLIP) at one size, a token for each patch. Source: arXiv:2310.03744.

use std::sync::Arc;

use super::one_size::{CLIP_MEAN, CLIP_STD, Defaults, HALF, OneSize};
use super::prepared::{Prepared, Run};
use super::resample::Filter;
use super::settings::Files;
use super::{Detail, Family, ProcessorError};
use crate::{MediaError, Picture};

#[derive(Debug)]
pub(super) struct Llava {
    size: OneSize,
    tokens: usize,
    pad: Arc<str>,
}

impl Llava {
    /// `vision` is the tower's `model_type`.
    pub(super) fn read(files: &Files, vision: &str) -> Result<Self, ProcessorError> {
        const CLIP: [&str; 3] = ["CLIPImageProcessor", "CLIPFeatureExtractor", "LlavaImageProcessor"];
        const SIGLIP: &str = "SiglipImageProcessor";
        // CLIP's tower has a vector for the whole image before those of the patches.
        let whole = match vision {
            "clip_vision_model" => 1,
            "siglip_vision_model" => 0,
            _ => return Err(files.vision.fault(format!("model_type {vision:?} isn't supported for llava; supported: clip_vision_model, siglip_vision_model, pixtral"))),
        };
        let class = files.image.class(&[CLIP[0], CLIP[1], CLIP[2], SIGLIP])?;
        let siglip = class.map_or(whole == 0, |class| class == SIGLIP);
        let (mean, std) = if siglip { (HALF, HALF) } else { (CLIP_MEAN, CLIP_STD) };
        let defaults = Defaults { side: 224, shorter: !siglip, filter: Filter::Bicubic, mean, std };
        let size = OneSize::read(files, defaults)?;
        let key = "vision_feature_select_strategy";
        let strategy = files.config.text(key)?.unwrap_or("default");
        if files.processor.text(key)?.is_some_and(|other| other != strategy) {
            return Err(files.processor.fault(format!("{key} isn't that of config.json, {strategy:?}")));
        }
        // By "default" the first of the tower's vectors is left out, whatever it stands for.
        let tokens = match strategy {
            "default" => size.patches() + whole - 1,
            "full" => size.patches() + whole,
            _ => return Err(files.config.fault(format!("{key} is {strategy:?}, wanted \"default\" or \"full\""))),
        };
        Ok(Self { size, tokens, pad: files.token("image_token", "<image>")?.into() })
    }
}

impl Family for Llava {
    fn placeholders(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn pads(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn image(&self, picture: &Picture, _: Detail) -> Result<Prepared, MediaError> {
        Ok(Prepared {
            placeholder: self.pad.clone(),
            text: self.pad.repeat(self.tokens),
            pad: self.pad.clone(),
            runs: vec![Run { part: 0, first: 0, len: self.tokens, grid: None, bidirectional: false }],
            parts: vec![self.size.part(picture, self.tokens)],
        })
    }
}
