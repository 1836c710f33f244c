//! What the frames of an animation are painted on.
//!
//! Ours and not the decoders': over the files in `tests/fixtures/animations` `image`'s PNG brings back what an earlier frame
//! should have taken away, and `image-webp`'s takes nothing away and changes pixels under transparent ones by one.

/// A part of the picture that a frame paints.
pub(super) struct Layer {
    pub left: usize,
    pub top: usize,
    pub width: usize,
    /// [height, width, 4].
    pub rgba: Vec<u8>,
    /// Whether what is under it shines through, or is replaced, transparency and all.
    pub blend: bool,
    pub dispose: Dispose,
}

/// What becomes of a frame before the next is painted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dispose {
    Keep,
    /// Its part is emptied.
    Clear,
    /// Its part becomes what it was.
    Restore,
}

/// A picture with transparency, empty at first.
pub(super) struct Canvas {
    width: usize,
    /// [height, width, 4].
    rgba: Vec<u8>,
    /// The part that the last frame painted, and what it was if that comes back; else empty it.
    undo: Option<(Part, Option<Vec<u8>>)>,
}

/// Rows and columns, within the canvas.
#[derive(Debug, Clone, Copy)]
struct Part {
    left: usize,
    top: usize,
    width: usize,
    height: usize,
}

impl Canvas {
    pub fn new(width: u32, height: u32) -> Self {
        let (width, height) = (width as usize, height as usize);
        Self { width, rgba: vec![0; width * height * 4], undo: None }
    }

    /// Paints a frame.
    pub fn paint(&mut self, layer: &Layer) {
        if let Some((part, before)) = self.undo.take() {
            for (row, at) in self.rows(part).enumerate() {
                match &before {
                    Some(before) => self.rgba[at..at + part.width * 4]
                        .copy_from_slice(&before[row * part.width * 4..][..part.width * 4]),
                    None => self.rgba[at..at + part.width * 4].fill(0),
                }
            }
        }
        // What hangs over the edge isn't seen.
        let stride = layer.width * 4;
        let height = self.rgba.len() / (self.width * 4);
        let part = Part {
            left: layer.left.min(self.width),
            top: layer.top.min(height),
            width: layer.width.min(self.width.saturating_sub(layer.left)),
            height: (layer.rgba.len() / stride.max(1)).min(height.saturating_sub(layer.top)),
        };
        self.undo = match layer.dispose {
            Dispose::Keep => None,
            Dispose::Clear => Some((part, None)),
            Dispose::Restore => {
                let before = self.rows(part).flat_map(|at| self.rgba[at..at + part.width * 4].iter().copied());
                Some((part, Some(before.collect())))
            }
        };
        for (row, at) in self.rows(part).enumerate() {
            let painted = &layer.rgba[row * stride..][..part.width * 4];
            let canvas = &mut self.rgba[at..at + part.width * 4];
            if layer.blend {
                for (under, over) in canvas.chunks_exact_mut(4).zip(painted.chunks_exact(4)) {
                    blend(under, over);
                }
            } else {
                canvas.copy_from_slice(painted);
            }
        }
    }

    /// [height, width, 4].
    pub fn rgba(&self) -> &[u8] {
        &self.rgba
    }

    /// Where the rows of a part begin.
    fn rows(&self, part: Part) -> impl Iterator<Item = usize> + use<> {
        let width = self.width;
        (part.top..part.top + part.height).map(move |row| (row * width + part.left) * 4)
    }
}

/// Lays a pixel over another, neither of them multiplied by its opacity.
fn blend(under: &mut [u8], over: &[u8]) {
    let (over_alpha, under_alpha) = (u32::from(over[3]), u32::from(under[3]));
    match over_alpha {
        0 => {}
        255 => under.copy_from_slice(over),
        _ => {
            // Both in 255ths of 255ths.
            let (front, back) = (over_alpha * 255, under_alpha * (255 - over_alpha));
            let both = front + back;
            for (under, over) in under.iter_mut().zip(&over[..3]) {
                let sum = u32::from(*over) * front + u32::from(*under) * back;
                *under = u8::try_from((sum + both / 2) / both).unwrap_or(u8::MAX);
            }
            under[3] = u8::try_from((both + 127) / 255).unwrap_or(u8::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RED: [u8; 4] = [255, 0, 0, 255];
    const BLUE: [u8; 4] = [0, 0, 255, 255];
    const NONE: [u8; 4] = [0; 4];

    fn layer(left: usize, top: usize, width: usize, pixels: &[[u8; 4]], dispose: Dispose) -> Layer {
        Layer { left, top, width, rgba: pixels.concat(), blend: true, dispose }
    }

    #[test]
    fn frames_and_what_becomes_of_them() {
        let mut canvas = Canvas::new(3, 1);
        let mut paint = |layer: &Layer| {
            canvas.paint(layer);
            canvas.rgba().chunks_exact(4).map(|pixel| pixel.try_into().unwrap()).collect::<Vec<[u8; 4]>>()
        };
        assert_eq!(paint(&layer(0, 0, 2, &[RED, RED], Dispose::Keep)), [RED, RED, NONE]);
        assert_eq!(paint(&layer(1, 0, 2, &[BLUE, BLUE], Dispose::Clear)), [RED, BLUE, BLUE]);
        assert_eq!(paint(&layer(0, 0, 1, &[BLUE], Dispose::Restore)), [BLUE, NONE, NONE]);
        // Back to what it was after the second was cleared, not before.
        assert_eq!(paint(&layer(2, 0, 1, &[RED], Dispose::Restore)), [RED, NONE, RED]);
        assert_eq!(paint(&layer(1, 0, 1, &[NONE], Dispose::Keep)), [RED, NONE, NONE]);
        let replaced = Layer { blend: false, ..layer(0, 0, 1, &[NONE], Dispose::Keep) };
        assert_eq!(paint(&replaced), [NONE; 3]);
    }

    #[test]
    fn over_the_edge() {
        for (left, top, seen) in [(1, 1, 1), (0, 0, 4), (2, 0, 0), (0, 2, 0), (9, 9, 0), (1, 0, 2)] {
            for dispose in [Dispose::Keep, Dispose::Clear, Dispose::Restore] {
                let mut canvas = Canvas::new(2, 2);
                canvas.paint(&layer(left, top, 3, &[RED; 9], dispose));
                assert_eq!(canvas.rgba().chunks_exact(4).filter(|pixel| *pixel == RED).count(), seen, "{left}, {top}");
                canvas.paint(&layer(0, 0, 0, &[], Dispose::Keep));
                let left = if dispose == Dispose::Keep { seen } else { 0 };
                assert_eq!(canvas.rgba().chunks_exact(4).filter(|pixel| *pixel == RED).count(), left);
            }
        }
    }

    #[test]
    fn half_transparent() {
        let cases = [
            ([0, 0, 0, 255], [255, 255, 255, 128], [128, 128, 128, 255]),
            ([9, 9, 9, 0], [10, 20, 30, 128], [10, 20, 30, 128]),
            ([10, 20, 30, 77], [0, 0, 0, 0], [10, 20, 30, 77]),
            ([0, 0, 200, 128], [200, 0, 0, 128], [134, 0, 66, 192]),
        ];
        for (mut under, over, wanted) in cases {
            blend(&mut under, &over);
            assert_eq!(under, wanted, "{over:?}");
        }
    }
}
