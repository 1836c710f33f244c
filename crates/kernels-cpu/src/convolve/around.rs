//! What stands before and after a convolution, and is done while its numbers are at hand anyway.

use crate::{
    Pool, SharedMut,
    rows::for_rows,
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
};

/// What numbers go through on their way into a convolution: `function(scale · x + shift)`, channel by channel. The zeros of the
/// padding are beside its results: they go through nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inlet<'a> {
    /// Scales and shifts, `[channels]` each; none: `x` as it is.
    pub affine: Option<[&'a [f32]; 2]>,
    /// The activation function.
    pub function: Nonlinearity<'a>,
}

/// An activation function of networks that make sound.
#[derive(Clone, Copy, Debug, Default)]
pub enum Nonlinearity<'a> {
    /// x
    #[default]
    Identity,
    /// x, or that part of it where it is negative.
    LeakyRelu(f32),
    /// `x + sin²(αx) / α` with an α for each channel (Snake, arXiv:2006.08195).
    Snake(&'a [f32]),
}

/// What results go through on their way out: `(y + residual) · factor`.
#[derive(Clone, Copy, Debug)]
pub struct Outlet<'a> {
    /// As many numbers as the result.
    pub residual: Option<&'a [f32]>,
    /// On all of it.
    pub factor: f32,
}

impl Default for Outlet<'_> {
    fn default() -> Self {
        Self { residual: None, factor: 1.0 }
    }
}

impl Inlet<'_> {
    /// Whether numbers stay as they are.
    pub(super) fn is_identity(&self) -> bool {
        self.affine.is_none() && matches!(self.function, Nonlinearity::Identity)
    }

    /// A frame through the inlet.
    ///
    /// # Safety
    /// The processor has `S`; both frames and the lists are of one length.
    #[inline(always)]
    pub(super) unsafe fn frame<S: Simd>(&self, x: &[f32], y: &mut [f32]) {
        let (channels, x, y) = (x.len(), x.as_ptr(), y.as_mut_ptr());
        let whole = channels - channels % S::LANES;
        // SAFETY: by the caller's promise; so many channels from c on are in the frames.
        unsafe {
            for c in (0..whole).step_by(S::LANES) {
                S::store(y.add(c), self.lanes::<S, true>(x.add(c), c, S::LANES));
            }
            if whole < channels {
                let v = self.lanes::<S, false>(x.add(whole), whole, channels - whole);
                S::store_first(y.add(whole), v, channels - whole);
            }
        }
    }

    /// # Panics
    /// If a list has another length than there are channels.
    pub(super) fn check(&self, channels: usize) {
        for list in self.affine.iter().flatten() {
            assert_eq!(list.len(), channels, "an affine map of {} numbers for {channels} channels", list.len());
        }
        if let Nonlinearity::Snake(alpha) = self.function {
            assert_eq!(alpha.len(), channels, "{} α for {channels} channels", alpha.len());
        }
    }

    /// `lanes` channels of a frame from `channel` on, which are at `x`; a `WHOLE` vector of them, or fewer.
    ///
    /// # Safety
    /// The processor has `S`; so many numbers are at `x`, and channels in the lists.
    #[inline(always)]
    pub(super) unsafe fn lanes<S: Simd, const WHOLE: bool>(&self, x: *const f32, channel: usize, lanes: usize) -> S::V {
        // SAFETY: by the caller's promise.
        unsafe {
            let load = |p| if WHOLE { S::load(p) } else { S::load_first(p, lanes) };
            let mut v = load(x);
            if let Some([scale, shift]) = self.affine {
                v = S::fused_mul_add(v, load(scale.as_ptr().add(channel)), load(shift.as_ptr().add(channel)));
            }
            match self.function {
                Nonlinearity::Identity => v,
                Nonlinearity::LeakyRelu(slope) => S::select(S::less(v, S::splat(0.0)), S::mul(v, S::splat(slope)), v),
                Nonlinearity::Snake(alpha) => {
                    // (Lanes without a channel may be anything.)
                    let alpha = load(alpha.as_ptr().add(channel));
                    S::add(v, S::div(math::sin_squared::<S>(S::mul(alpha, v)), alpha))
                }
            }
        }
    }
}

/// `y = inlet(x)`: `x` and `y` are `[frames, channels]`.
///
/// # Panics
/// If they differ in length or aren't whole frames, or a list of the inlet has another length.
pub fn admit(pool: &Pool, x: &[f32], channels: usize, inlet: &Inlet<'_>, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "inlet: x has {} numbers, y {}", x.len(), y.len());
    inlet.check(channels);
    if x.is_empty() {
        return;
    }
    assert!(x.len().is_multiple_of(channels), "inlet: {} numbers are not frames of {channels}", x.len());
    let y = SharedMut::new(y);
    // A number costs about as much as four of an addition.
    for_rows(pool, x.len() / channels, 4 * channels, |frames| {
        let range = frames.start * channels..frames.end * channels;
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        run(pool, Admit { x: &x[range], channels, inlet, y });
    });
}

struct Admit<'a> {
    x: &'a [f32],
    channels: usize,
    inlet: &'a Inlet<'a>,
    y: &'a mut [f32],
}

impl Kernel for Admit<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, channels, inlet, y } = self;
        for (x, y) in x.chunks_exact(channels).zip(y.chunks_exact_mut(channels)) {
            // SAFETY: by the caller's promise; both are frames of `channels`, and the lists are as long.
            unsafe { inlet.frame::<S>(x, y) };
        }
    }
}

/// `y = (y + bias + residual) · factor`: `y` is `[frames, bias.len()]`, or any whole number of frames if there is no bias.
pub(super) fn discharge(pool: &Pool, y: &mut [f32], bias: &[f32], outlet: &Outlet<'_>) {
    if y.is_empty() || bias.is_empty() && outlet.residual.is_none() && outlet.factor == 1.0 {
        return;
    }
    let width = if bias.is_empty() { 1 } else { bias.len() };
    let factor = outlet.factor;
    let rows = y.len() / width;
    let y = SharedMut::new(y);
    for_rows(pool, rows, width, |range| {
        let range = range.start * width..range.end * width;
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        if !bias.is_empty() {
            y.chunks_exact_mut(width).for_each(|y| y.iter_mut().zip(bias).for_each(|(y, b)| *y += b));
        }
        match outlet.residual {
            Some(r) => y.iter_mut().zip(&r[range]).for_each(|(y, r)| *y = (*y + r) * factor),
            None => y.iter_mut().for_each(|y| *y *= factor),
        }
    });
}
