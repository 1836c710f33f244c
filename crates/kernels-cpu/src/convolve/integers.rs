//! Frames as integers: each under a unit of its own, so that the largest of its numbers becomes the largest integer.
//!
//! No number moves by more than half of `1 / 8191` (i16) or `1 / 127` (bytes) of the largest of its frame. The same on every
//! instruction set. A NaN or an infinity makes the unit of its frame NaN; frames of nothing above `2⁻¹¹²` become zeros.

use super::{Inlet, kernel::Numbers, packed::LARGEST};
use crate::simd::{Simd, kernel::Kernel};

/// A number of which the last bit of the mantissa is 1: a small one added to it is rounded to an integer, ties to even, which is
/// then found in the lowest bits.
const ROUND: f32 = 3.0 * (1 << 22) as f32;

/// Turns frames of `channels` into rows of words, through an inlet.
pub(super) struct Quantize<'a> {
    /// Whole frames.
    pub x: &'a [f32],
    pub channels: usize,
    pub inlet: &'a Inlet<'a>,
    pub numbers: Numbers,
    /// Room for a frame.
    pub room: &'a mut [f32],
    /// A row for each frame.
    pub rows: &'a mut [u32],
    /// One for each frame.
    pub units: &'a mut [f32],
}

impl Kernel for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, channels, inlet, numbers, room, rows, units } = self;
        let row_words = rows.len() / units.len();
        let frames = x.chunks_exact(channels).zip(rows.chunks_exact_mut(row_words)).zip(units);
        for ((x, row), unit) in frames {
            // SAFETY: by the caller's promise; so many channels from c on are in the frame and in its room.
            unsafe {
                // As integers, so that NaN and infinity, the largest patterns of all, win.
                let mut largest = 0u32;
                for c in (0..channels).step_by(S::LANES) {
                    let lanes = S::LANES.min(channels - c);
                    let v = inlet.lanes::<S>(x.as_ptr().add(c), c, lanes);
                    S::store_first(room.as_mut_ptr().add(c), v, lanes);
                }
                let mut magnitudes = [0u32; 16];
                let (whole, rest) = room[..channels].as_chunks::<16>();
                for numbers in whole {
                    for (m, v) in magnitudes.iter_mut().zip(numbers) {
                        *m = (*m).max(v.to_bits() & 0x7fff_ffff);
                    }
                }
                for v in rest {
                    largest = largest.max(v.to_bits() & 0x7fff_ffff);
                }
                largest = magnitudes.iter().fold(largest, |a, &b| a.max(b));
                let limit = if numbers == Numbers::Pairs { LARGEST } else { 127 };
                let inverse;
                (*unit, inverse) = unit_of(largest, limit as f32);
                let bits = |v: f32| (v * inverse + ROUND).to_bits();
                let frame = &room[..channels];
                match numbers {
                    Numbers::Pairs => {
                        let (pairs, rest) = frame.as_chunks::<2>();
                        for (word, pair) in row.iter_mut().zip(pairs) {
                            *word = bits(pair[0]) & 0xffff | bits(pair[1]) << 16;
                        }
                        finish(row, pairs.len(), rest, 16, bits, 0);
                    }
                    Numbers::Unsigned | Numbers::Signed => {
                        let sign = if numbers == Numbers::Unsigned { 0x8080_8080 } else { 0 };
                        let (fours, rest) = frame.as_chunks::<4>();
                        for (word, four) in row.iter_mut().zip(fours) {
                            let low = bits(four[0]) & 0xff | (bits(four[1]) & 0xff) << 8;
                            *word = (low | (bits(four[2]) & 0xff) << 16 | bits(four[3]) << 24) ^ sign;
                        }
                        finish(row, fours.len(), rest, 8, bits, sign);
                    }
                }
            }
        }
    }
}

/// The words of a row that no whole lot of channels fills.
#[inline(always)]
fn finish(row: &mut [u32], whole: usize, rest: &[f32], bits: usize, integer: impl Fn(f32) -> u32, sign: u32) {
    for word in &mut row[whole..] {
        *word = sign;
    }
    let mask = (1 << bits) - 1;
    for (i, &v) in rest.iter().enumerate() {
        row[whole] ^= (integer(v) & mask) << (i * bits);
    }
}

/// The unit that takes the number with the bits `largest` to `limit`, and its inverse.
#[inline(always)]
fn unit_of(largest: u32, limit: f32) -> (f32, f32) {
    /// `2⁻¹¹²`: the inverse is finite from here on.
    const LEAST: u32 = (127 - 112) << 23;
    match f32::from_bits(largest) {
        _ if largest < LEAST => (0.0, 0.0),
        largest if largest.is_finite() => (largest / limit, limit / largest),
        _ => (f32::NAN, 0.0),
    }
}
