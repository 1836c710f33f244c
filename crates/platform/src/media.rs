//! Images and videos, between those who decode them, the encoder that looks at them, and the sequences they stand in.

use std::{fmt, sync::Arc};

use serde::Serialize;

use crate::{DeviceKind, MemoryInfo, Result};

/// Names content: what was decoded, and how it was processed. 128 bits of SHA-256, so that nobody can make up an image that
/// is taken for another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub [u8; 16]);

/// 32 hexadecimal digits.
impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Pictures as a [`VisionEncoder`] takes them: cut into patches.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VisionInput {
    /// [patches, patch_len]. The numbers of a patch are ordered by channel, frame, row, column; the patches of a picture as
    /// the model's processor orders them.
    pub patches: Vec<f32>,
    /// Numbers of a patch.
    pub patch_len: usize,
    /// Rows and columns of patches of each picture. Pictures stand one after the other and don't see each other.
    pub grids: Vec<[usize; 2]>,
}

impl VisionInput {
    /// Patches of all pictures.
    #[must_use]
    pub fn num_patches(&self) -> usize {
        self.grids.iter().map(|[rows, columns]| rows * columns).sum()
    }
}

/// What an encoder gives for a [`VisionInput`]: a vector for each token that holds its place in a sequence.
#[derive(Clone, PartialEq)]
pub struct Features {
    /// [levels, tokens, width].
    numbers: Vec<f32>,
    levels: usize,
    width: usize,
}

impl Features {
    /// Takes [levels, tokens, width]. Level 0 stands in for the tokens' embeddings, level `i` is added to the hidden state
    /// after the language model's block `i - 1` (Qwen3-VL's DeepStack; other models have one level).
    ///
    /// # Panics
    /// If the numbers are not a multiple of `levels * width`.
    #[must_use]
    pub fn new(numbers: Vec<f32>, levels: usize, width: usize) -> Self {
        assert!(
            levels * width > 0 && numbers.len().is_multiple_of(levels * width),
            "{} numbers are not {levels} levels of vectors of {width}",
            numbers.len()
        );
        Self { numbers, levels, width }
    }

    /// Vectors of each level.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.numbers.len() / (self.levels * self.width)
    }

    /// Levels.
    #[must_use]
    pub fn levels(&self) -> usize {
        self.levels
    }

    /// Numbers of a vector.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// The vectors of a level, [tokens, width].
    ///
    /// # Panics
    /// If there is no such level.
    #[must_use]
    pub fn level(&self, level: usize) -> &[f32] {
        let len = self.numbers.len() / self.levels;
        &self.numbers[level * len..(level + 1) * len]
    }

    /// All numbers, [levels, tokens, width].
    #[must_use]
    pub fn numbers(&self) -> &[f32] {
        &self.numbers
    }

    /// Bytes in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of_val(self.numbers.as_slice())
    }
}

impl fmt::Debug for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Features[{}, {}, {}]", self.levels, self.tokens(), self.width)
    }
}

/// A stretch of a sequence whose tokens only hold the place of a picture's features.
#[derive(Debug, Clone, PartialEq)]
pub struct MediaSpan {
    /// Where it begins in the sequence, in tokens.
    pub start: usize,
    /// Tokens.
    pub len: usize,
    /// The vector of the features that stands in for its first token.
    pub first: usize,
    /// Where its tokens stand for the rotary embedding, in models that give height and width axes of their own.
    pub grid: Option<SpanGrid>,
    /// Whether its tokens see each other, not only those before them. It is computed in one step then.
    pub bidirectional: bool,
    /// The features; needed in steps that compute tokens of it.
    pub features: Option<Arc<Features>>,
}

impl MediaSpan {
    /// Position after its last token.
    #[must_use]
    pub fn end(&self) -> usize {
        self.start + self.len
    }
}

/// A picture's tokens, row by row, on the axes of a multimodal rotary embedding (M-RoPE; Qwen2-VL, arXiv:2409.12191).
///
/// With the span's base, the position that plain text would have there, token `i` stands at `base + time` in time,
/// `base + i / columns` in height and `base + i % columns` in width; what follows goes on after the greatest of them all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanGrid {
    /// Columns of tokens.
    pub columns: usize,
    /// Steps in time after the first picture of the same video; 0 for images.
    pub time: usize,
    /// Whether it is of the same video as the span right before it, and has that one's base.
    pub continues: bool,
}

/// Rotary positions, in time, height and width, of the `len` tokens of a sequence from index `start` on; `spans` are all
/// media of the sequence in order. Without grids they are the indices.
///
/// ```
/// use vllm_platform::{MediaSpan, SpanGrid, rope_positions};
///
/// // Two tokens of text, a picture of 2 by 3, more text.
/// let grid = Some(SpanGrid { columns: 3, time: 0, continues: false });
/// let span = MediaSpan { start: 2, len: 6, first: 0, grid, bidirectional: false, features: None };
/// let positions = rope_positions(&[span], 1, 8);
/// assert_eq!(positions[..4], [[1, 1, 1], [2, 2, 2], [2, 2, 3], [2, 2, 4]]);
/// assert_eq!(positions[4..], [[2, 3, 2], [2, 3, 3], [2, 3, 4], [5, 5, 5]]);
/// ```
#[must_use]
pub fn rope_positions(spans: &[MediaSpan], start: usize, len: usize) -> Vec<[u32; 3]> {
    let end = start + len;
    let mut positions = Vec::with_capacity(len);
    // Text, from the index where the last span ended, is at `next` and counts on from there.
    let (mut index, mut next, mut base) = (0, 0, 0);
    let text = |positions: &mut Vec<[u32; 3]>, index: usize, until: usize, next: usize| {
        let wanted = index.max(start)..until.min(end);
        positions.extend(wanted.map(|at| [narrow(next + at - index); 3]));
    };
    for span in spans {
        if span.start >= end {
            break;
        }
        let Some(grid) = span.grid else { continue };
        text(&mut positions, index, span.start, next);
        if !grid.continues {
            base = next + span.start - index;
            next = base;
        }
        let columns = grid.columns.max(1);
        let inside = start.saturating_sub(span.start)..span.len.min(end - span.start);
        positions.extend(inside.map(|i| [grid.time, i / columns, i % columns].map(|offset| narrow(base + offset))));
        let farthest = grid.time.max(span.len.div_ceil(columns).saturating_sub(1)).max(columns - 1);
        (index, next) = (span.end(), next.max(base + farthest + 1));
    }
    text(&mut positions, index, end, next);
    positions
}

/// Contexts stay far below 2³².
#[allow(clippy::cast_possible_truncation)]
fn narrow(position: usize) -> u32 {
    debug_assert!(u32::try_from(position).is_ok(), "position {position} exceeds a u32");
    position as u32
}

/// A loaded vision encoder, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VisionInfo {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Device it runs on.
    pub device: DeviceKind,
    /// Parameters; a quantized weight counts as what it stands for.
    pub parameters: u64,
    /// Bytes of all weights as held in memory.
    pub weight_bytes: u64,
    /// E.g. `affine 4 bit, group 32`, or `bf16`.
    pub quantization: String,
    /// Numbers of a vector of its [`Features`]: the language model's hidden size.
    pub width: usize,
    /// Levels of its [`Features`].
    pub levels: usize,
    /// Numbers of a patch of its [`VisionInput`]s.
    pub patch_len: usize,
    /// Names weights, configuration and how features are computed: those stored under one name mean the same under the same
    /// name, in any process. 64 hexadecimal digits.
    pub fingerprint: String,
}

/// A loaded vision encoder with its projector. Lives on one thread, another one than the language model's.
pub trait VisionEncoder {
    /// The encoder in numbers.
    fn info(&self) -> &VisionInfo;

    /// Memory of the encoder's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// The features of all pictures of an input, one after the other.
    ///
    /// `pause` is called now and then, whenever nothing is under way on the device: it may block to let others have it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the encoder is ready for the next call.
    fn encode(&mut self, input: &VisionInput, pause: &mut dyn FnMut()) -> Result<Features>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, len: usize, grid: Option<(usize, usize, bool)>) -> MediaSpan {
        let grid = grid.map(|(columns, time, continues)| SpanGrid { columns, time, continues });
        MediaSpan { start, len, first: 0, grid, bidirectional: false, features: None }
    }

    #[test]
    fn positions_are_indices_without_grids() {
        let plain: Vec<[u32; 3]> = (3..9).map(|p| [p; 3]).collect();
        assert_eq!(rope_positions(&[], 3, 6), plain);
        assert_eq!(rope_positions(&[span(1, 4, None), span(6, 2, None)], 3, 6), plain);
    }

    #[test]
    fn any_part_is_a_part_of_the_whole() {
        // An image of 2 by 2, then a video of three pictures of 1 by 2, two steps apart.
        let video = |start, time, continues| span(start, 2, Some((2, time, continues)));
        let spans = [span(1, 4, Some((2, 0, false))), video(7, 0, false), video(9, 2, true), video(11, 4, true)];
        let whole = rope_positions(&spans, 0, 15);
        assert_eq!(whole[..7], [[0; 3], [1, 1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2], [3; 3], [4; 3]]);
        assert_eq!(whole[7..13], [[5, 5, 5], [5, 5, 6], [7, 5, 5], [7, 5, 6], [9, 5, 5], [9, 5, 6]]);
        assert_eq!(whole[13..], [[10; 3], [11; 3]]);
        for start in 0..15 {
            for len in 0..15 - start {
                assert_eq!(rope_positions(&spans, start, len), whole[start..start + len], "{len} from {start}");
            }
        }
    }

    #[test]
    fn features_by_level() {
        let features = Features::new((0..12u8).map(f32::from).collect(), 2, 3);
        assert_eq!((features.tokens(), features.levels(), features.width(), features.bytes()), (2, 2, 3, 48));
        assert_eq!(features.level(1), [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]);
    }
}
