//! From decoded pictures to a [`VisionInput`], written down before it is done.

use std::{num::NonZero, sync::Arc, thread};

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
        let Some(tiles) = self.tiles else {
            return self.cut(&[(&frames, Window::whole(&frames[0]))]);
        };
        let side = tiles.side;
        let corners = (0..frames[0].height / side)
            .flat_map(|row| (0..frames[0].width / side).map(move |column| (column * side, row * side)));
        let squares: Vec<Window> = corners.map(|(left, top)| Window { left, top, width: side, height: side }).collect();
        let whole: Vec<_> = frames.iter().map(|frame| frame.clone().resized(side, side, tiles.filter)).collect();
        let mut windows: Vec<(&[Pixels<'_>], Window)> = squares.into_iter().map(|square| (&*frames, square)).collect();
        windows.push((&whole, Window::whole(&whole[0])));
        self.cut(&windows)
    }

    /// The patches of all windows, one after the other.
    fn cut(&self, windows: &[(&[Pixels<'_>], Window)]) -> VisionInput {
        let grids: Vec<[usize; 2]> =
            windows.iter().map(|(_, window)| self.patches.grid(window.width, window.height)).collect();
        let count: usize = grids.iter().map(|[rows, columns]| rows * columns).sum();
        // Zeros that the system gives: their pages are first touched by the thread that fills them.
        let mut patches = vec![0.0; count * self.patches.len()];
        let mut bands = Vec::new();
        let mut rest = patches.as_mut_slice();
        for (&(frames, window), [rows, _]) in windows.iter().zip(&grids) {
            for band in 0..rows / self.patches.merge {
                let (numbers, after) = rest.split_at_mut(self.patches.band_len(window.width));
                bands.push(move || self.patches.cut(frames, window, band, &self.colours, numbers));
                rest = after;
            }
        }
        side_by_side(bands, count * self.patches.len());
        VisionInput { patches, patch_len: self.patches.len(), grids }
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

/// Numbers that are worth a thread.
const ENOUGH: usize = 1 << 20;

/// Does all of `work`, which gives so many numbers, on as many threads as that is worth.
fn side_by_side<W: FnOnce() + Send>(mut work: Vec<W>, numbers: usize) {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(numbers / ENOUGH).max(1);
    let share = work.len().div_ceil(threads);
    thread::scope(|scope| {
        while work.len() > share {
            let others = work.split_off(work.len() - share);
            scope.spawn(move || others.into_iter().for_each(|work| work()));
        }
        work.into_iter().for_each(|work| work());
    });
}
