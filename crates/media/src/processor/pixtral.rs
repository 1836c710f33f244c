//! Pixtral and Mistral 3: images in their own shape, a row of tokens for each row of patches. Source: Pixtral 12B
//! (arXiv:2410.07073).

use std::sync::Arc;

use super::one_size::{CLIP_MEAN, CLIP_STD};
use super::patches::{Colours, Patches};
use super::prepared::{Part, Prepared, Run};
use super::recipe::{Recipe, Step};
use super::resample::Filter;
use super::settings::{Files, Size};
use super::{Detail, Family, LOW_SIDE, ProcessorError};
use crate::{MediaError, Picture};

#[derive(Debug)]
pub(super) struct Pixtral {
    /// Longest sides, [width, height].
    longest: [usize; 2],
    /// Pixels of a side of what becomes a token.
    token_side: usize,
    patches: Patches,
    filter: Filter,
    colours: Arc<Colours>,
    pad: Arc<str>,
    row_end: String,
    end: String,
}

impl Pixtral {
    pub(super) fn read(files: &Files) -> Result<Self, ProcessorError> {
        let image = &files.image;
        image.class(&["PixtralImageProcessor"])?;
        image.refuse("do_resize", false)?;
        image.refuse("do_center_crop", true)?;
        let patch = files.vision.count("patch_size")?.unwrap_or(16);
        let merge = files.config.count("spatial_merge_size")?.unwrap_or(1);
        files.processor.agrees("patch_size", patch, "config.json's vision_config")?;
        files.processor.agrees("spatial_merge_size", merge, "config.json")?;
        let longest = match image.size("size", true)? {
            None => [1024; 2],
            Some(Size { longest: Some(longest), height: None, width: None, .. }) => [longest; 2],
            Some(Size { longest: None, height: Some(height), width: Some(width), .. }) => [width, height],
            Some(_) => return Err(image.fault("size must have longest_edge, or height and width")),
        };
        Ok(Self {
            longest,
            token_side: patch * merge,
            patches: Patches { side: patch, merge: 1, frames: 1 },
            filter: image.filter(Filter::Bicubic)?,
            colours: Arc::new(image.colours(CLIP_MEAN, CLIP_STD)?),
            pad: files.token("image_token", "[IMG]")?.into(),
            row_end: files.token("image_break_token", "[IMG_BREAK]")?,
            end: files.token("image_end_token", "[IMG_END]")?,
        })
    }

    /// Columns and rows of tokens.
    fn grid(&self, picture: &Picture, detail: Detail) -> [usize; 2] {
        let size = [picture.width(), picture.height()].map(f64::from);
        let longest = self.longest.map(|side| if detail == Detail::Low { side.min(LOW_SIDE) } else { side });
        let ratio = (size[0] / longest[0] as f64).max(size[1] / longest[1] as f64);
        let size = if ratio > 1.0 { size.map(|side| (side / ratio).floor()) } else { size };
        // The reference makes nothing of sides that vanish; here they become one token.
        size.map(|side| (side as usize).max(1).div_ceil(self.token_side))
    }
}

impl Family for Pixtral {
    fn placeholders(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn pads(&self) -> Vec<Arc<str>> {
        vec![self.pad.clone()]
    }

    fn image(&self, picture: &Picture, detail: Detail) -> Result<Prepared, MediaError> {
        let [columns, rows] = self.grid(picture, detail);
        let row = self.pad.repeat(columns);
        let mut text = format!("{row}{}", self.row_end).repeat(rows - 1);
        text.push_str(&row);
        text.push_str(&self.end);
        let run = |row: usize| Run { part: 0, first: row * columns, len: columns, grid: None, bidirectional: false };
        let to = [columns, rows].map(|tokens| tokens * self.token_side);
        let recipe = Recipe {
            steps: vec![Step::Resize { to, filter: self.filter }],
            tiles: None,
            patches: self.patches,
            colours: self.colours.clone(),
        };
        Ok(Prepared {
            placeholder: self.pad.clone(),
            text,
            pad: self.pad.clone(),
            runs: (0..rows).map(run).collect(),
            parts: vec![Part::new([picture.clone()], Arc::new(recipe), rows * columns)],
        })
    }
}
