//! Activation functions of an MLP, plain and gated.

use crate::{
    Pool, SharedMut,
    rows::{for_numbers, for_rows},
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
};

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Activation {
    /// `x / (1 + e⁻ˣ)`, also called swish.
    Silu,
    /// `x Φ(x)`, Φ the normal distribution: the exact GELU (arXiv:1606.08415).
    Gelu,
    /// The tanh approximation of GELU from the same paper: `x/2 (1 + tanh(√(2/π) (x + 0.044715 x³)))`.
    GeluTanh,
    /// The sigmoid approximation of GELU from the same paper: `x / (1 + e^(−1.702 x))`.
    QuickGelu,
    /// `max(x, 0)`
    Relu,
}

/// `y = activation(x)`.
///
/// # Panics
/// If `x` and `y` differ in length.
pub fn activate(pool: &Pool, activation: Activation, x: &[f32], y: &mut [f32]) {
    apply(pool, activation, x, None, y);
}

/// `y = activation(gate) · up`: the inner part of a gated MLP (arXiv:2002.05202).
///
/// # Panics
/// If `gate`, `up` and `y` differ in length.
pub fn gated(pool: &Pool, activation: Activation, gate: &[f32], up: &[f32], y: &mut [f32]) {
    assert_eq!(gate.len(), up.len(), "activation: gate has {} numbers, up {}", gate.len(), up.len());
    apply(pool, activation, gate, Some(up), y);
}

/// `y = activation(y + bias)` for each row of `y`, `[rows, bias.len()]`; what is `None` is left out.
///
/// # Panics
/// If `y` is not whole rows.
pub fn biased(pool: &Pool, activation: Option<Activation>, bias: Option<&[f32]>, y: &mut [f32]) {
    let Some(activation) = activation else {
        return bias.into_iter().for_each(|bias| crate::elementwise::add_row_assign(pool, y, bias));
    };
    let width = bias.map_or(LINE.min(y.len()), <[f32]>::len);
    assert!(
        y.is_empty() || width > 0 && (bias.is_none() || y.len().is_multiple_of(width)),
        "activation: {} numbers are not whole rows of {width}",
        y.len()
    );
    let (rows, len) = (y.len().div_ceil(width.max(1)), y.len());
    let y = SharedMut::new(y);
    for_rows(pool, rows, width, |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.start * width..len.min(range.end * width)) };
        match bias {
            Some(bias) => y.chunks_exact_mut(width).for_each(|y| biased_here(pool, activation, Some(bias), y)),
            None => biased_here(pool, activation, None, y),
        }
    });
}

/// Numbers of a cache line.
const LINE: usize = 16;

/// As [`biased`] on the calling thread, of one row.
pub(crate) fn biased_here(pool: &Pool, activation: Activation, bias: Option<&[f32]>, y: &mut [f32]) {
    match activation {
        Activation::Silu => run(pool, InPlace { bias, y, function: Silu }),
        Activation::Gelu => run(pool, InPlace { bias, y, function: Gelu }),
        Activation::GeluTanh => run(pool, InPlace { bias, y, function: GeluTanh }),
        Activation::QuickGelu => run(pool, InPlace { bias, y, function: QuickGelu }),
        Activation::Relu => run(pool, InPlace { bias, y, function: Relu }),
    }
}

/// `y = silu(x)`; see [`activate`].
pub fn silu(pool: &Pool, x: &[f32], y: &mut [f32]) {
    activate(pool, Activation::Silu, x, y);
}

/// `y = silu(gate) · up`; see [`gated`].
pub fn swiglu(pool: &Pool, gate: &[f32], up: &[f32], y: &mut [f32]) {
    gated(pool, Activation::Silu, gate, up, y);
}

/// `y = gelu(gate) · up` with the tanh approximation, as Gemma has it; see [`gated`].
pub fn geglu(pool: &Pool, gate: &[f32], up: &[f32], y: &mut [f32]) {
    gated(pool, Activation::GeluTanh, gate, up, y);
}

fn apply(pool: &Pool, activation: Activation, x: &[f32], up: Option<&[f32]>, y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "activation: x has {} numbers, y {}", x.len(), y.len());
    let y = SharedMut::new(y);
    for_numbers(pool, x.len(), |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        apply_here(pool, activation, &x[range.clone()], up.map(|up| &up[range.clone()]), y);
    });
}

/// As [`apply`] on the calling thread. The slices are equally long.
pub(crate) fn apply_here(pool: &Pool, activation: Activation, x: &[f32], up: Option<&[f32]>, y: &mut [f32]) {
    match activation {
        Activation::Silu => run(pool, Map { x, up, y, function: Silu }),
        Activation::Gelu => run(pool, Map { x, up, y, function: Gelu }),
        Activation::GeluTanh => run(pool, Map { x, up, y, function: GeluTanh }),
        Activation::QuickGelu => run(pool, Map { x, up, y, function: QuickGelu }),
        Activation::Relu => run(pool, Map { x, up, y, function: Relu }),
    }
}

/// A function of single numbers.
trait Function {
    /// # Safety
    /// The processor must have the instruction set of `S`.
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V;
}

struct Silu;
struct Gelu;
struct GeluTanh;
struct QuickGelu;
struct Relu;

impl Function for Silu {
    #[inline(always)]
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as this function's. Divided rather than multiplied by the sigmoid: one rounding less.
        unsafe { S::div(x, S::add(S::splat(1.0), math::exp::<S>(S::negate(x)))) }
    }
}

impl Function for Gelu {
    #[inline(always)]
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::mul(x, math::normal_cdf::<S>(x)) }
    }
}

impl Function for GeluTanh {
    #[inline(always)]
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V {
        // (1 + tanh u) / 2 is the sigmoid of 2u, which does not cancel where tanh is near −1. √(8/π) = 1.5957691.
        // SAFETY: as this function's.
        unsafe {
            let cubic = S::mul_add(S::mul(S::mul(x, x), S::splat(0.044_715)), x, x);
            S::div(x, S::add(S::splat(1.0), math::exp::<S>(S::mul(cubic, S::splat(-1.595_769)))))
        }
    }
}

impl Function for QuickGelu {
    #[inline(always)]
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::div(x, S::add(S::splat(1.0), math::exp::<S>(S::mul(x, S::splat(-1.702))))) }
    }
}

impl Function for Relu {
    #[inline(always)]
    unsafe fn of<S: Simd>(&self, x: S::V) -> S::V {
        // SAFETY: as this function's.
        unsafe { S::clamp(x, 0.0, f32::INFINITY) }
    }
}

/// `y = function(x)`, times `up` if there is one. The slices are equally long.
struct Map<'a, F> {
    function: F,
    x: &'a [f32],
    up: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl<F: Function> Kernel for Map<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { function, x, up, y } = self;
        let n = x.len();
        // SAFETY: every access is below n, the length of all slices.
        unsafe {
            let whole = n - n % S::LANES;
            match up {
                Some(up) => {
                    for i in (0..whole).step_by(S::LANES) {
                        let v = function.of::<S>(S::load(x.as_ptr().add(i)));
                        S::store(y.as_mut_ptr().add(i), S::mul(v, S::load(up.as_ptr().add(i))));
                    }
                }
                None => {
                    for i in (0..whole).step_by(S::LANES) {
                        S::store(y.as_mut_ptr().add(i), function.of::<S>(S::load(x.as_ptr().add(i))));
                    }
                }
            }
            if whole < n {
                let lanes = n - whole;
                let mut v = function.of::<S>(S::load_first(x.as_ptr().add(whole), lanes));
                if let Some(up) = up {
                    v = S::mul(v, S::load_first(up.as_ptr().add(whole), lanes));
                }
                S::store_first(y.as_mut_ptr().add(whole), v, lanes);
            }
        }
    }
}

/// `y = function(y + bias)`, without the sum if there is no bias. The slices are equally long.
struct InPlace<'a, F> {
    function: F,
    bias: Option<&'a [f32]>,
    y: &'a mut [f32],
}

impl<F: Function> Kernel for InPlace<'_, F> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { function, bias, y } = self;
        let y_at = y.as_mut_ptr();
        for i in (0..y.len()).step_by(S::LANES) {
            let lanes = S::LANES.min(y.len() - i);
            // SAFETY: `lanes` numbers from i on are in both slices.
            unsafe {
                let mut v = S::load_first(y_at.add(i), lanes);
                if let Some(bias) = bias {
                    v = S::add(v, S::load_first(bias.as_ptr().add(i), lanes));
                }
                S::store_first(y_at.add(i), function.of::<S>(v), lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    const ALL: [Activation; 5] =
        [Activation::Silu, Activation::Gelu, Activation::GeluTanh, Activation::QuickGelu, Activation::Relu];

    fn reference(activation: Activation, x: f64) -> f64 {
        match activation {
            Activation::Silu => x / (1.0 + (-x).exp()),
            // Φ by its Taylor series, Σ (-1)^k x^(2k+1) / (2^k k! (2k+1)), good in f64 for the |x| <= 6 used here.
            Activation::Gelu => {
                let (mut term, mut sum) = (x, x);
                for k in 1..120 {
                    term *= -x * x / (2.0 * f64::from(k));
                    sum += term / f64::from(2 * k + 1);
                }
                x * (0.5 + sum / (2.0 * std::f64::consts::PI).sqrt())
            }
            Activation::GeluTanh => {
                0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
            }
            Activation::QuickGelu => x / (1.0 + (-1.702 * x).exp()),
            Activation::Relu => x.max(0.0),
        }
    }

    #[test]
    fn activations_match_f64() {
        for pool in every_isa() {
            for activation in ALL {
                for n in [0, 1, 15, 16, 17, 1536, 70_001] {
                    let x: Vec<f32> = random(n, 5).iter().map(|v| 6.0 * v).collect();
                    let up = random(n, 6);
                    let mut y = vec![f32::NAN; n];
                    let what = format!("{:?} {activation:?} n {n}", pool.isa());
                    activate(&pool, activation, &x, &mut y);
                    assert_close(&y, x.iter().map(|&x| reference(activation, x.into())), 1e-6, &what);
                    gated(&pool, activation, &x, &up, &mut y);
                    let wanted = x.iter().zip(&up).map(|(&x, &up)| reference(activation, x.into()) * f64::from(up));
                    assert_close(&y, wanted, 1e-6, &what);
                }
            }
        }
    }

    #[test]
    fn biases_are_added_first() {
        for pool in every_isa() {
            for activation in ALL {
                for (rows, width) in [(0, 5), (1, 16), (7, 33), (90, 1536)] {
                    let (x, bias) = (random(rows * width, 5), random(width, 6));
                    let what = format!("{:?} {activation:?} {rows} rows of {width}", pool.isa());
                    let mut y = x.clone();
                    biased(&pool, Some(activation), Some(&bias), &mut y);
                    let sums = x.iter().enumerate().map(|(i, x)| f64::from(x + bias[i % width]));
                    assert_close(&y, sums.map(|x| reference(activation, x)), 1e-6, &what);
                    y.copy_from_slice(&x);
                    biased(&pool, Some(activation), None, &mut y);
                    assert_close(&y, x.iter().map(|&x| reference(activation, x.into())), 1e-6, &what);
                    y.copy_from_slice(&x);
                    biased(&pool, None, Some(&bias), &mut y);
                    assert!(y.iter().enumerate().all(|(i, y)| *y == x[i] + bias[i % width]), "{what}");
                }
            }
        }
    }

    #[test]
    fn activations_do_not_break_far_from_zero() {
        let x = [-1e30, -200.0, -100.0, 100.0, 1e30];
        for pool in every_isa() {
            for activation in ALL {
                let mut y = [f32::NAN; 5];
                activate(&pool, activation, &x, &mut y);
                for (x, y) in x.iter().zip(y) {
                    let wanted = x.max(0.0);
                    assert!((y - wanted).abs() <= 1e-6 * wanted.max(1.0), "{:?} {activation:?}({x}) = {y}", pool.isa());
                }
            }
        }
    }

    #[test]
    fn the_named_ones_are_what_their_names_say() {
        let (gate, up, pool) = (random(33, 1), random(33, 2), Pool::new(1));
        let mut y = vec![0.0; 33];
        swiglu(&pool, &gate, &up, &mut y);
        let wanted = gate.iter().zip(&up).map(|(&g, &u)| reference(Activation::Silu, g.into()) * f64::from(u));
        assert_close(&y, wanted, 1e-6, "swiglu");
        geglu(&pool, &gate, &up, &mut y);
        let wanted = gate.iter().zip(&up).map(|(&g, &u)| reference(Activation::GeluTanh, g.into()) * f64::from(u));
        assert_close(&y, wanted, 1e-6, "geglu");
        silu(&pool, &gate, &mut y);
        assert_close(&y, gate.iter().map(|&g| reference(Activation::Silu, g.into())), 1e-6, "silu");
    }
}
