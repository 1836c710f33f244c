//! Levels become numbers, and pictures patches, in one go over the pixels.

use std::fmt;

use serde::Serialize;

use super::resample::Pixels;

/// The number that each level of red, green and blue becomes.
#[derive(Clone, PartialEq)]
pub(super) struct Colours {
    numbers: Box<[[f32; 256]; 3]>,
}

impl Colours {
    /// `scale` times the level (else the level), less `mean` over `std` of the colour. Scale and mean are brought
    /// together before anything is rounded to f32, as torchvision's processors do.
    pub(super) fn new(scale: Option<f64>, normalise: Option<([f64; 3], [f64; 3])>) -> Self {
        let mut numbers = Box::new([[0.0; 256]; 3]);
        for (colour, numbers) in numbers.iter_mut().enumerate() {
            for (level, number) in numbers.iter_mut().enumerate() {
                *number = match normalise {
                    Some((mean, std)) => {
                        let levels = scale.map_or(1.0, |scale| 1.0 / scale) as f32;
                        (level as f32 - mean[colour] as f32 * levels) / (std[colour] as f32 * levels)
                    }
                    None => level as f32 * scale.unwrap_or(1.0) as f32,
                };
            }
        }
        Self { numbers }
    }

    /// Bytes that name them.
    pub(super) fn bytes(&self) -> impl Iterator<Item = u8> {
        self.numbers.iter().flatten().flat_map(|number| number.to_le_bytes())
    }
}

impl fmt::Debug for Colours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ends = self.numbers.iter().map(|numbers| (numbers[0], numbers[255]));
        f.debug_list().entries(ends).finish()
    }
}

/// How a picture is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) struct Patches {
    /// Pixels of a side.
    pub(super) side: usize,
    /// Patches of a side of the squares that become one token: those of a square follow each other. 1: row by row.
    pub(super) merge: usize,
    /// Pictures that a patch reaches through.
    pub(super) frames: usize,
}

/// A part of a picture that is cut by itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Window {
    pub(super) left: usize,
    pub(super) top: usize,
    pub(super) width: usize,
    pub(super) height: usize,
}

impl Window {
    pub(super) fn whole(pixels: &Pixels<'_>) -> Self {
        Self { left: 0, top: 0, width: pixels.width, height: pixels.height }
    }
}

impl Patches {
    /// Numbers of a patch.
    pub(super) fn len(self) -> usize {
        3 * self.frames * self.side * self.side
    }

    /// Rows and columns of a picture; what is left over at its right and bottom is not seen.
    pub(super) fn grid(self, width: usize, height: usize) -> [usize; 2] {
        [height / self.side, width / self.side]
    }

    /// Appends the patches of the same window of all `frames`; a single one stands for all.
    pub(super) fn cut(self, frames: &[Pixels<'_>], window: Window, colours: &Colours, patches: &mut Vec<f32>) {
        let [rows, columns] = self.grid(window.width, window.height);
        patches.reserve(rows * columns * self.len());
        let merge = self.merge;
        for block_row in 0..rows / merge {
            for block_column in 0..columns / merge {
                for inside in 0..merge * merge {
                    let row = block_row * merge + inside / merge;
                    let column = block_column * merge + inside % merge;
                    let at = [window.left + column * self.side, window.top + row * self.side];
                    self.patch(frames, at, colours, patches);
                }
            }
        }
    }

    fn patch(self, frames: &[Pixels<'_>], [left, top]: [usize; 2], colours: &Colours, patches: &mut Vec<f32>) {
        for (colour, numbers) in colours.numbers.iter().enumerate() {
            let start = patches.len();
            for frame in frames {
                for row in top..top + self.side {
                    let at = (row * frame.width + left) * 3;
                    let pixels = frame.rgb[at..at + self.side * 3].chunks_exact(3);
                    patches.extend(pixels.map(|pixel| numbers[usize::from(pixel[colour])]));
                }
            }
            let end = patches.len();
            for _ in frames.len()..self.frames {
                patches.extend_from_within(start..end);
            }
        }
    }
}
