//! Frames as integers: each under a unit of its own, so that the largest of its numbers becomes the largest integer.
//!
//! No number moves by more than half of `1 / 8191` (i16) or `1 / 127` (bytes) of the largest of its frame. The same on every
//! instruction set. A NaN or an infinity makes the unit of its frame NaN; frames of nothing above `2⁻¹¹²` become zeros.

use super::{Inlet, kernel::Numbers, packed::LARGEST};
use crate::simd::{Simd, kernel::Kernel};

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
        let room = &mut room[..channels];
        let row_words = rows.len() / units.len();
        for ((x, row), unit) in x.chunks_exact(channels).zip(rows.chunks_exact_mut(row_words)).zip(units) {
            // SAFETY: by the caller's promise; all are of one length, and a row has room for as many integers.
            unsafe {
                inlet.frame::<S>(x, room);
                *unit = integers::<S>(room, numbers, row);
            }
        }
    }
}

/// Turns a frame into a row of words, and gives its unit.
///
/// # Safety
/// The processor has `S`; the row has room for as many integers as the frame has numbers.
#[inline(always)]
pub(super) unsafe fn integers<S: Simd>(frame: &[f32], numbers: Numbers, row: &mut [u32]) -> f32 {
    let channels = frame.len();
    debug_assert!(row.len() * numbers.per_word() >= channels);
    let whole = channels - channels % S::LANES;
    // SAFETY: by the caller's promise; whole vectors up to `whole`, and what is left behind.
    unsafe {
        // What a NaN or an infinity makes NaN: the largest of numbers may pass over it.
        let (mut largest, mut poison) = (S::splat(0.0), S::splat(0.0));
        let mut see = |v: S::V| {
            largest = S::max(S::abs(v), largest);
            poison = S::mul_add(v, S::splat(0.0), poison);
        };
        for c in (0..whole).step_by(S::LANES) {
            see(S::load(frame.as_ptr().add(c)));
        }
        if whole < channels {
            see(S::load_first(frame.as_ptr().add(whole), channels - whole));
        }
        let limit = if numbers == Numbers::Pairs { LARGEST } else { 127 };
        let (unit, inverse) = unit_of(S::max_lane(largest) + S::sum(poison), limit as f32);
        let inverse = S::splat(inverse);
        let mut rest = [0.0; 16];
        S::store_first(rest.as_mut_ptr(), S::load_first(frame.as_ptr().add(whole), channels - whole), channels - whole);
        if numbers == Numbers::Pairs {
            let out: *mut i16 = row.as_mut_ptr().cast();
            for c in (0..whole).step_by(S::LANES) {
                S::store_i16(out.add(c), S::mul(S::load(frame.as_ptr().add(c)), inverse));
            }
            row[whole / 2..].fill(0);
            let mut last = [0; 16];
            S::store_i16(last.as_mut_ptr(), S::mul(S::load(rest.as_ptr()), inverse));
            std::ptr::copy_nonoverlapping(last.as_ptr(), row.as_mut_ptr().cast::<i16>().add(whole), channels - whole);
        } else {
            let out: *mut i8 = row.as_mut_ptr().cast();
            for c in (0..whole).step_by(S::LANES) {
                S::store_i8(out.add(c), S::mul(S::load(frame.as_ptr().add(c)), inverse));
            }
            row[whole.div_ceil(4)..].fill(0);
            let mut last = [0; 16];
            S::store_i8(last.as_mut_ptr(), S::mul(S::load(rest.as_ptr()), inverse));
            std::ptr::copy_nonoverlapping(last.as_ptr(), row.as_mut_ptr().cast::<i8>().add(whole), channels - whole);
            if numbers == Numbers::Unsigned {
                row.iter_mut().for_each(|word| *word ^= 0x8080_8080);
            }
        }
        unit
    }
}

/// The unit that takes `largest` to `limit`, and its inverse.
#[inline(always)]
fn unit_of(largest: f32, limit: f32) -> (f32, f32) {
    /// `2⁻¹¹²`: the inverse is finite from here on.
    const LEAST: f32 = f32::from_bits((127 - 112) << 23);
    if largest < LEAST {
        (0.0, 0.0)
    } else if largest.is_finite() {
        (largest / limit, limit / largest)
    } else {
        (f32::NAN, 0.0)
    }
}
