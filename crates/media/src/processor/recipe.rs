//! From decoded pictures to a [`VisionInput`], written down before it is done.

use std::sync::Arc;

use serde::Serialize;
use sha2::{Digest, Sha256};
use vllm_platform::{ContentHash, VisionInput};

use super::patches::{Colours, Patches, Window};
use super::resample::{Filter, Pixels};
use crate::Picture;

/// All that is done to a picture. What it gives depends on nothing else, so that it can be part of a key.
#[derive(Debug, Clone)]
pub(super) struct Recipe {
    pub(super) steps: Vec<Step>,
    pub(super) tiles: Option<Tiles>,
    pub(super) patches: Patches,
    pub(super) colours: Arc<Colours>,
}

/// Sides are [width, height].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Step {
    /// To this size.
    Resize { to: [usize; 2], filter: Filter },
    /// To a size of which only the middle is kept.
    ResizeMiddle { to: [usize; 2], middle: [usize; 2], filter: Filter },
}

/// Squares that a picture is cut into, row by row, with all of it in the size of one behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Tiles {
    pub(super) side: usize,
    pub(super) filter: Filter,
}

impl Recipe {
    /// Names what comes of these pictures.
    pub(super) fn key(&self, pictures: &[Picture]) -> ContentHash {
        let mut hasher = Sha256::new();
        hasher.update(b"vllm-media patches 1");
        let words = serde_json::to_vec(&(&self.steps, &self.tiles, &self.patches)).expect("numbers and names");
        hasher.update((words.len() as u64).to_le_bytes());
        hasher.update(words);
        hasher.update(self.colours.bytes().collect::<Vec<_>>());
        pictures.iter().for_each(|picture| hasher.update(picture.hash().0));
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        ContentHash(hash)
    }

    /// Does it: to the frames that patches reach through, or to one picture that stands for all of them.
    pub(super) fn cook(&self, pictures: &[Picture]) -> VisionInput {
        let frames: Vec<Pixels<'_>> = pictures.iter().map(|picture| self.stepped(picture)).collect();
        let mut input = VisionInput { patches: vec![], patch_len: self.patches.len(), grids: vec![] };
        let mut cut = |frames: &[Pixels<'_>], window: Window| {
            self.patches.cut(frames, window, &self.colours, &mut input.patches);
            input.grids.push(self.patches.grid(window.width, window.height));
        };
        let Some(tiles) = self.tiles else {
            cut(&frames, Window::whole(&frames[0]));
            return input;
        };
        let side = tiles.side;
        for row in 0..frames[0].height / side {
            for column in 0..frames[0].width / side {
                cut(&frames, Window { left: column * side, top: row * side, width: side, height: side });
            }
        }
        let whole: Vec<_> = frames.into_iter().map(|frame| frame.resized(side, side, tiles.filter)).collect();
        cut(&whole, Window::whole(&whole[0]));
        input
    }

    fn stepped<'p>(&self, picture: &'p Picture) -> Pixels<'p> {
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let pixels = Pixels { width, height, rgb: picture.pixels().into() };
        self.steps.iter().fold(pixels, |pixels, step| match *step {
            Step::Resize { to: [width, height], filter } => pixels.resized(width, height, filter),
            Step::ResizeMiddle { to, middle, filter } => pixels.resized_middle(to, middle, filter),
        })
    }
}
