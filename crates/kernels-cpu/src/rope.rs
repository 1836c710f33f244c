//! Rotary position embedding (RoFormer, arXiv:2104.09864).

use crate::{
    Pool, SharedMut,
    rows::for_rows,
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
    with_scratch,
};

/// Which numbers of a head are turned together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RopeLayout {
    /// Number `i` with `i + rotary_dim / 2`: the layout of Hugging Face checkpoints; MLX's `traditional = false`.
    HalfSplit,
    /// Number `2i` with `2i + 1`: the paper's; MLX's `traditional = true`.
    Interleaved,
}

/// A rotary embedding.
#[derive(Clone, Copy, Debug)]
pub struct Rope<'a> {
    /// Heads of a token.
    pub heads: usize,
    /// Numbers of a head.
    pub head_dim: usize,
    /// Radians a position, for each pair: `rotary_dim / 2` of them. What scaling a model has (linear, Llama 3, YaRN)
    /// is in here. The numbers of a head beyond `rotary_dim` stay as they are.
    pub inverse_frequencies: &'a [f32],
    /// Which numbers make a pair.
    pub layout: RopeLayout,
    /// Multiplies the turned numbers (YaRN's attention factor); usually 1.
    pub scale: f32,
}

/// Where tokens stand: on one axis, or on several, of which each pair has its own (M-RoPE, arXiv:2409.12191; the rows and columns
/// of an image's patches).
#[derive(Clone, Copy, Debug)]
pub struct Positions<'a> {
    /// One position a token on each axis; axes that aren't there are the first one.
    axes: [&'a [u32]; 3],
    /// The axis of each pair; empty: the first one's.
    of_pair: &'a [u8],
}

impl<'a> Positions<'a> {
    /// Positions on three axes, one a token, and for each pair the axis whose positions turn it.
    ///
    /// # Panics
    /// If there are not as many on each axis, or a pair names a fourth.
    #[must_use]
    pub fn on_axes(axes: [&'a [u32]; 3], of_pair: &'a [u8]) -> Self {
        assert!(axes.iter().all(|axis| axis.len() == axes[0].len()), "rope: axes of different lengths");
        assert!(of_pair.iter().all(|&axis| axis < 3), "rope: a pair on axis {:?}", of_pair.iter().max());
        Self { axes, of_pair }
    }

    fn len(&self) -> usize {
        self.axes[0].len()
    }
}

impl<'a> From<&'a [u32]> for Positions<'a> {
    fn from(positions: &'a [u32]) -> Self {
        Self { axes: [positions; 3], of_pair: &[] }
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Positions<'a> {
    fn from(positions: &'a [u32; N]) -> Self {
        Self::from(positions.as_slice())
    }
}

impl<'a> From<&'a Vec<u32>> for Positions<'a> {
    fn from(positions: &'a Vec<u32>) -> Self {
        Self::from(positions.as_slice())
    }
}

/// Turns each pair of numbers of each head of `x` by its token's position times the pair's inverse frequency.
///
/// `x` and `y` are `[tokens, heads, head_dim]`, and `positions` has one entry a token on each axis. The angle is the product rounded
/// to f32, as in MLX; its sine and cosine are good to 1.2e-7 for angles up to 2²⁰, at any position up to a million.
/// They are computed once a token, not once a head.
///
/// # Panics
/// If the lengths do not fit together or `rotary_dim` exceeds `head_dim`.
pub fn rope<'a>(pool: &Pool, x: &[f32], positions: impl Into<Positions<'a>>, rope: &Rope<'_>, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "rope: x has {} numbers, y {}", x.len(), y.len());
    turn(pool, Some(x), positions.into(), rope, y);
}

/// As [`rope`], in place.
///
/// # Panics
/// As [`rope`].
pub fn rope_in_place<'a>(pool: &Pool, x: &mut [f32], positions: impl Into<Positions<'a>>, rope: &Rope<'_>) {
    turn(pool, None, positions.into(), rope, x);
}

fn turn(pool: &Pool, x: Option<&[f32]>, positions: Positions<'_>, rope: &Rope<'_>, y: &mut [f32]) {
    let (width, pairs) = (rope.heads * rope.head_dim, rope.inverse_frequencies.len());
    assert!(
        y.len() == positions.len() * width,
        "rope: {} numbers are not {} tokens of {} heads of {}",
        y.len(),
        positions.len(),
        rope.heads,
        rope.head_dim
    );
    assert!(2 * pairs <= rope.head_dim, "rope: {pairs} pairs in heads of {} numbers", rope.head_dim);
    let on_axes = positions.of_pair.len();
    assert!(on_axes == 0 || on_axes == pairs, "rope: axes of {on_axes} pairs of {pairs}");
    let y = SharedMut::new(y);
    for_rows(pool, positions.len(), 2 * width, |tokens| {
        with_scratch(2 * pairs + on_axes, |scratch| {
            let (sin, scratch) = scratch.split_at_mut(pairs);
            let (cos, at) = scratch.split_at_mut(pairs);
            for token in tokens {
                let range = token * width..(token + 1) * width;
                // SAFETY: each token is visited once.
                let y = unsafe { y.slice(range.clone()) };
                if let Some(x) = x {
                    y.copy_from_slice(&x[range]);
                }
                for (at, &axis) in at.iter_mut().zip(positions.of_pair) {
                    *at = positions.axes[usize::from(axis)][token] as f32;
                }
                run(pool, Turn { position: positions.axes[0][token], at, rope, sin, cos, y });
            }
        });
    });
}

/// One token, in place. `sin` and `cos` have room for every pair.
struct Turn<'a> {
    position: u32,
    /// Each pair's position, if they aren't all the same.
    at: &'a [f32],
    rope: &'a Rope<'a>,
    sin: &'a mut [f32],
    cos: &'a mut [f32],
    y: &'a mut [f32],
}

impl Kernel for Turn<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { position, at, rope, sin, cos, y } = self;
        let pairs = rope.inverse_frequencies.len();
        if pairs == 0 {
            return;
        }
        // SAFETY: the slices hold `pairs` numbers each, and every access is below that.
        unsafe {
            let position = S::splat(position as f32);
            let scale = S::splat(rope.scale);
            for i in (0..pairs).step_by(S::LANES) {
                let lanes = S::LANES.min(pairs - i);
                let position = if at.is_empty() { position } else { S::load_first(at.as_ptr().add(i), lanes) };
                let angle = S::mul(position, S::load_first(rope.inverse_frequencies.as_ptr().add(i), lanes));
                let (s, c) = math::sin_cos::<S>(angle);
                S::store_first(sin.as_mut_ptr().add(i), S::mul(s, scale), lanes);
                S::store_first(cos.as_mut_ptr().add(i), S::mul(c, scale), lanes);
            }
        }
        for head in y.chunks_exact_mut(rope.head_dim) {
            match rope.layout {
                RopeLayout::HalfSplit => {
                    let (first, second) = head[..2 * pairs].split_at_mut(pairs);
                    // SAFETY: all four slices hold `pairs` numbers.
                    unsafe { turn_halves::<S>(first, second, sin, cos) };
                }
                RopeLayout::Interleaved => {
                    // A shuffle of neighbours, which the compiler finds by itself.
                    for (pair, (&sin, &cos)) in head.chunks_exact_mut(2).zip(sin.iter().zip(cos.iter())) {
                        let (a, b) = (pair[0], pair[1]);
                        pair[0] = a * cos - b * sin;
                        pair[1] = a * sin + b * cos;
                    }
                }
            }
        }
    }
}

/// # Safety
/// The slices must be equally long, and the processor must have the instruction set of `S`.
#[inline(always)]
unsafe fn turn_halves<S: Simd>(first: &mut [f32], second: &mut [f32], sin: &[f32], cos: &[f32]) {
    let n = first.len();
    let (first, second, sin, cos) = (first.as_mut_ptr(), second.as_mut_ptr(), sin.as_ptr(), cos.as_ptr());
    // SAFETY: every access is below n, by the caller the length of all four.
    unsafe {
        for i in (0..n).step_by(S::LANES) {
            let lanes = S::LANES.min(n - i);
            if lanes == S::LANES {
                let (a, b) = (S::load(first.add(i)), S::load(second.add(i)));
                let (s, c) = (S::load(sin.add(i)), S::load(cos.add(i)));
                S::store(first.add(i), S::sub(S::mul(a, c), S::mul(b, s)));
                S::store(second.add(i), S::mul_add(a, s, S::mul(b, c)));
            } else {
                let (a, b) = (S::load_first(first.add(i), lanes), S::load_first(second.add(i), lanes));
                let (s, c) = (S::load_first(sin.add(i), lanes), S::load_first(cos.add(i), lanes));
                S::store_first(first.add(i), S::sub(S::mul(a, c), S::mul(b, s)), lanes);
                S::store_first(second.add(i), S::mul_add(a, s, S::mul(b, c)), lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    fn reference(x: &[f32], positions: &[u32], rope: &Rope<'_>) -> Vec<f64> {
        let mut y: Vec<f64> = x.iter().map(|&v| v.into()).collect();
        let pairs = rope.inverse_frequencies.len();
        for (token, tokens) in y.chunks_mut(rope.heads * rope.head_dim).enumerate() {
            for head in tokens.chunks_mut(rope.head_dim) {
                for pair in 0..pairs {
                    let (i, j) = match rope.layout {
                        RopeLayout::HalfSplit => (pair, pair + pairs),
                        RopeLayout::Interleaved => (2 * pair, 2 * pair + 1),
                    };
                    let angle = positions[token] as f32 * rope.inverse_frequencies[pair];
                    let (sin, cos) = f64::from(angle).sin_cos();
                    let scale = f64::from(rope.scale);
                    (head[i], head[j]) =
                        (scale * (head[i] * cos - head[j] * sin), scale * (head[i] * sin + head[j] * cos));
                }
            }
        }
        y
    }

    #[test]
    fn every_layout_matches_f64() {
        // (name, heads, head_dim, rotary_dim, scale)
        let cases = [
            ("SmolLM2", 9, 64, 64, 1.0),
            ("Gemma 3", 4, 256, 256, 1.0),
            ("partial", 3, 80, 32, 1.0),
            ("odd pairs", 2, 22, 14, 1.0),
            ("YaRN", 2, 128, 128, 1.207_944_2),
            ("nothing turned", 2, 16, 0, 1.0),
            ("one pair", 1, 2, 2, 1.0),
        ];
        let positions = [0, 1, 2, 77, 4095, 131_071, 1_000_000];
        for pool in every_isa() {
            for (name, heads, head_dim, rotary_dim, scale) in cases {
                for layout in [RopeLayout::HalfSplit, RopeLayout::Interleaved] {
                    let frequencies: Vec<f32> =
                        (0..rotary_dim / 2).map(|i| 10_000f32.powf(-(2.0 * i as f32) / rotary_dim as f32)).collect();
                    let spec = Rope { heads, head_dim, inverse_frequencies: &frequencies, layout, scale };
                    for repeat in [1, 40] {
                        let positions = positions.repeat(repeat);
                        let x = random(positions.len() * heads * head_dim, 4);
                        let wanted = reference(&x, &positions, &spec);
                        let mut y = vec![f32::NAN; x.len()];
                        rope(&pool, &x, &positions, &spec, &mut y);
                        assert_close(&y, wanted, 4e-7, format_args!("{:?} {name} {layout:?}", pool.isa()));
                        let mut in_place = x;
                        rope_in_place(&pool, &mut in_place, &positions, &spec);
                        assert_eq!(in_place, y, "{:?} {name} {layout:?} in place", pool.isa());
                    }
                }
            }
        }
    }

    #[test]
    fn pairs_on_axes_of_their_own_are_turned_as_if_alone() {
        let frequencies: Vec<f32> = (0..20).map(|i| 10_000f32.powf(-f32::from(i as u8) / 20.0)).collect();
        let spec = Rope {
            heads: 2,
            head_dim: 40,
            inverse_frequencies: &frequencies,
            layout: RopeLayout::HalfSplit,
            scale: 1.0,
        };
        let axes: [&[u32]; 3] = [&[5, 6, 7], &[5, 1, 900], &[5, 0, 31]];
        let of_pair: Vec<u8> = (0..20).map(|pair| if pair < 9 { 0 } else { 1 + pair % 2 }).collect();
        let x = random(3 * 80, 9);
        for pool in every_isa() {
            let turned = |positions: Positions<'_>| {
                let mut y = vec![f32::NAN; x.len()];
                rope(&pool, &x, positions, &spec, &mut y);
                y
            };
            let y = turned(Positions::on_axes(axes, &of_pair));
            let alone = axes.map(|axis| turned(axis.into()));
            for (i, y) in y.into_iter().enumerate() {
                assert_eq!(y, alone[usize::from(of_pair[i % 20])][i], "{:?} number {i}", pool.isa());
            }
        }
    }

    #[test]
    #[should_panic(expected = "5 pairs in heads of 8")]
    fn more_pairs_than_numbers_are_refused() {
        let spec =
            Rope { heads: 1, head_dim: 8, inverse_frequencies: &[1.0; 5], layout: RopeLayout::HalfSplit, scale: 1.0 };
        rope_in_place(&Pool::new(1), &mut [0.0; 8], &[0], &spec);
    }
}
