//! Resizing as Pillow and torchvision do it.
//!
//! Both run a pass along the rows, round to whole levels, clamp, and run a pass along the columns. The order shows: behind
//! a sharp edge the first pass overshoots and is clamped, and noise resized in the other order comes out up to 59 levels
//! apart. `fast_image_resize` takes the columns first when asked for both at once, so it is asked for one at a time, and
//! then gives the very levels of torchvision, which is what transformers uses by default.

use std::borrow::Cow;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::U8x3;
use fast_image_resize::{FilterType, ResizeAlg, ResizeOptions, Resizer};
use serde::Serialize;

/// Pixels that rows may have between the passes. A picture of a few columns and millions of rows would need gigabytes; of
/// such the columns go first.
const MAX_BETWEEN: u64 = 1 << 26;

/// How levels between pixels are guessed. All widen over the pixels that fall together when a picture shrinks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(super) enum Filter {
    /// Over 2 pixels.
    Bilinear,
    /// Over 4 pixels, with a = -0.5 (Catmull and Rom).
    Bicubic,
    /// Over 6 pixels.
    Lanczos,
}

/// A picture on its way: [height, width, 3].
#[derive(Debug, Clone)]
pub(super) struct Pixels<'p> {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rgb: Cow<'p, [u8]>,
}

/// Start and length of a part in one direction, in pixels; not always whole ones.
type Extent = (f64, f64);

impl Pixels<'_> {
    /// All of it in another size.
    pub(super) fn resized(self, width: usize, height: usize, filter: Filter) -> Self {
        let all = [self.width, self.height].map(|side| (0.0, side as f64));
        self.resampled(all, [width, height], filter)
    }

    /// The middle of what [`resized`](Self::resized) would give, with black around it where that is smaller. No more than
    /// the middle is computed, however long the picture is; the weights of the filter are rounded a little differently then.
    pub(super) fn resized_middle(self, resized: [usize; 2], middle: [usize; 2], filter: Filter) -> Self {
        let source = [self.width as f64, self.height as f64];
        let seen = [0, 1].map(|axis| resized[axis].min(middle[axis]));
        let extents = [0, 1].map(|axis| {
            if seen[axis] == resized[axis] {
                return (0.0, source[axis]);
            }
            let scale = source[axis] / resized[axis] as f64;
            let start = ((resized[axis] - seen[axis]) / 2) as f64 * scale;
            (start, seen[axis] as f64 * scale)
        });
        let part = self.resampled(extents, seen, filter);
        if seen == middle {
            return part;
        }
        let [left, top] = [0, 1].map(|axis| (middle[axis] - seen[axis]) / 2);
        let mut rgb = vec![0; middle[0] * middle[1] * 3];
        for (row, line) in part.rgb.chunks_exact(seen[0] * 3).enumerate() {
            let at = ((top + row) * middle[0] + left) * 3;
            rgb[at..at + line.len()].copy_from_slice(line);
        }
        Pixels { width: middle[0], height: middle[1], rgb: rgb.into() }
    }

    fn resampled(self, [across, down]: [Extent; 2], [width, height]: [usize; 2], filter: Filter) -> Self {
        let whole = |length: usize| (0.0, length as f64);
        let [source_width, source_height] = [self.width, self.height];
        if (width * source_height) as u64 <= MAX_BETWEEN {
            let rows = self.pass(across, whole(source_height), [width, source_height], filter);
            rows.pass(whole(width), down, [width, height], filter)
        } else {
            let columns = self.pass(whole(source_width), down, [source_width, height], filter);
            columns.pass(across, whole(height), [width, height], filter)
        }
    }

    /// Resamples in one direction; the other keeps its length.
    fn pass(self, across: Extent, down: Extent, [width, height]: [usize; 2], filter: Filter) -> Self {
        if [width, height] == [self.width, self.height] && (across, down) == ((0.0, width as f64), (0.0, height as f64))
        {
            return self;
        }
        let filter = match filter {
            Filter::Bilinear => FilterType::Bilinear,
            Filter::Bicubic => FilterType::CatmullRom,
            Filter::Lanczos => FilterType::Lanczos3,
        };
        let options =
            ResizeOptions::new().resize_alg(ResizeAlg::Convolution(filter)).crop(across.0, down.0, across.1, down.1);
        let mut rgb = vec![0; width * height * 3];
        let source = TypedImageRef::<U8x3>::from_buffer(length(self.width), length(self.height), &self.rgb)
            .expect("as many bytes as pixels");
        let mut target =
            TypedImage::<U8x3>::from_buffer(length(width), length(height), &mut rgb).expect("as many bytes as pixels");
        // Typed, so that only this one of the crate's many pixel types is compiled.
        Resizer::new().resize_typed(&source, &mut target, &options).expect("a part of the picture");
        Pixels { width, height, rgb: rgb.into() }
    }
}

/// Sides come from a [`Picture`](crate::Picture) or from settings, both below 2³¹.
fn length(side: usize) -> u32 {
    u32::try_from(side).expect("a side below 2³¹")
}
