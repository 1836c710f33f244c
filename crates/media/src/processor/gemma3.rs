//! Gemma 3: SigLIP, at one size, pooled to a fixed number of tokens that see each other. Source: Gemma 3 technical report
//! (arXiv:2503.19786).

use std::sync::Arc;

use super::one_size::{Defaults, HALF, OneSize};
use super::prepared::{Prepared, Run};
use super::resample::Filter;
use super::settings::Files;
use super::{Detail, Family, ProcessorError};
use crate::{MediaError, Picture};

#[derive(Debug)]
pub(super) struct Gemma3 {
    size: OneSize,
    tokens: usize,
    begin: Arc<str>,
    end: String,
    pad: Arc<str>,
}

impl Gemma3 {
    pub(super) fn read(files: &Files) -> Result<Self, ProcessorError> {
        files.image.class(&["Gemma3ImageProcessor", "SiglipImageProcessor"])?;
        files.image.refuse("do_pan_and_scan", true)?;
        let defaults = Defaults { side: 224, shorter: false, filter: Filter::Bilinear, mean: HALF, std: HALF };
        let tokens = files.config.count("mm_tokens_per_image")?.unwrap_or(256);
        files.processor.agrees("image_seq_length", tokens, "config.json's mm_tokens_per_image")?;
        Ok(Self {
            size: OneSize::read(files, defaults)?,
            tokens,
            begin: files.token("boi_token", "<start_of_image>")?.into(),
            end: files.token("eoi_token", "<end_of_image>")?,
            pad: files.token("image_token", "<image_soft_token>")?.into(),
        })
    }
}

impl Family for Gemma3 {
    fn placeholders(&self) -> Vec<Arc<str>> {
        vec![self.begin.clone()]
    }

    fn pads(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn image(&self, picture: &Picture, _: Detail) -> Result<Prepared, MediaError> {
        let Self { begin, end, tokens, .. } = self;
        Ok(Prepared {
            placeholder: begin.clone(),
            text: format!("\n\n{begin}{}{end}\n\n", self.pad.repeat(*tokens)),
            pad: self.pad.clone(),
            runs: vec![Run { part: 0, first: 0, len: *tokens, grid: None, bidirectional: true }],
            parts: vec![self.size.part(picture, *tokens)],
        })
    }
}
