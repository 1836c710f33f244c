//! Transcendental functions on vectors. Coefficients are minimax fits (Remez exchange) made for these intervals.
//!
//! The errors stated are bounds that the tests check, in units of the last place (ulp) of the result. The scalar
//! instruction set has no fused multiply-add and is allowed one ulp more.
//!
//! # Safety
//! As for [`Simd`]: the processor must have the instruction set. None of these functions touches memory, and that is
//! what stands behind every block here.

use super::Simd;

/// `c[0] + c[1] x + c[2] x² + …` by Horner's rule.
#[inline(always)]
unsafe fn polynomial<S: Simd, const N: usize>(x: S::V, c: [f32; N]) -> S::V {
    // SAFETY: as this function's.
    unsafe {
        let mut sum = S::splat(c[N - 1]);
        for i in (0..N - 1).rev() {
            sum = S::mul_add(sum, x, S::splat(c[i]));
        }
        sum
    }
}

/// 2ˣ, within 2 ulp; 0 below −150, infinite from 128 on.
#[inline(always)]
pub(crate) unsafe fn exp2<S: Simd>(x: S::V) -> S::V {
    // 2^f = 1 + f P(f) for |f| <= 1/2.
    const C: [f32; 6] =
        [std::f32::consts::LN_2, 0.240_226_48, 0.055_503_32, 0.009_618_44, 0.001_339_913_3, 0.000_153_531_54];
    // SAFETY: as this function's.
    unsafe {
        let x = S::clamp(x, -152.0, 130.0);
        let n = S::round(x);
        let f = S::sub(x, n);
        let p = S::mul_add(polynomial::<S, 6>(f, C), f, S::splat(1.0));
        S::scale_exp2(p, n)
    }
}

/// eˣ, within 2 ulp; 0 below −104, infinite above 88.73.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // e^r = 1 + r + r² P(r) for |r| <= ln 2 / 2.
    const C: [f32; 5] = [0.499_999_94, 0.166_665_2, 0.041_668_408, 0.008_368_914, 0.001_381_419_4];
    // ln 2 in two parts; the first has so few bits that its product with a whole number below 2¹⁵ is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    // SAFETY: as this function's.
    unsafe {
        let x = S::clamp(x, -105.0, 89.0);
        let n = S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E)));
        let r = S::mul_add(n, S::splat(-LN_2_HIGH), x);
        let r = S::mul_add(n, S::splat(-LN_2_LOW), r);
        let p = S::add(S::mul_add(S::mul(r, r), polynomial::<S, 5>(r, C), r), S::splat(1.0));
        S::scale_exp2(p, n)
    }
}

/// Hyperbolic tangent, within 4 ulp.
#[inline(always)]
pub(crate) unsafe fn tanh<S: Simd>(x: S::V) -> S::V {
    // tanh x = x + x³ P(x²) for |x| <= 0.625, and 1 - 2 / (e^2|x| + 1) with the sign put back elsewhere.
    const C: [f32; 5] = [-0.333_332_8, 0.133_314_42, -0.053_739_715, 0.020_639_087, -0.005_704_987];
    // SAFETY: as this function's.
    unsafe {
        let square = S::mul(x, x);
        let small = S::mul_add(S::mul(square, polynomial::<S, 5>(square, C)), x, x);
        let magnitude = S::abs(x);
        let one = S::splat(1.0);
        let e = exp::<S>(S::add(magnitude, magnitude));
        let large = S::sub(one, S::div(S::splat(2.0), S::add(e, one)));
        let large = S::select(S::less(x, S::splat(0.0)), S::negate(large), large);
        S::select(S::less(magnitude, S::splat(0.625)), small, large)
    }
}

/// `1 / (1 + e⁻ˣ)`, within 4 ulp.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: as this function's.
    unsafe { S::div(S::splat(1.0), S::add(S::splat(1.0), exp::<S>(S::negate(x)))) }
}

/// The normal distribution's Φ(x) = (1 + erf(x/√2)) / 2, relative error below 2e-6 down to x = −5 (where Φ is 3e-7).
#[inline(always)]
pub(crate) unsafe fn normal_cdf<S: Simd>(x: S::V) -> S::V {
    // erfc z = e^(-z²) t P(t) with t = 3 / (z + 3), for 0 <= z <= 9.5.
    const C: [f32; 10] = [
        0.188_033_04,
        0.188_735_08,
        0.171_043_07,
        0.193_840_96,
        -0.006_649_534,
        0.412_074_04,
        -0.451_259_2,
        0.543_174_8,
        -0.295_283_44,
        0.056_291_176,
    ];
    // SAFETY: as this function's.
    unsafe {
        let z = S::clamp(S::mul(S::abs(x), S::splat(std::f32::consts::FRAC_1_SQRT_2)), 0.0, 9.5);
        let t = S::div(S::splat(3.0), S::add(z, S::splat(3.0)));
        let e = exp::<S>(S::negate(S::mul(z, z)));
        let half_erfc = S::mul(S::mul(S::splat(0.5), e), S::mul(t, polynomial::<S, 10>(t, C)));
        S::select(S::less(x, S::splat(0.0)), half_erfc, S::sub(S::splat(1.0), half_erfc))
    }
}

/// (sin x, cos x), absolute error below 1.2e-7 for |x| up to 2²⁰.
#[inline(always)]
pub(crate) unsafe fn sin_cos<S: Simd>(x: S::V) -> (S::V, S::V) {
    // sin r = r + r³ P(r²) and cos r = 1 - r²/2 + r⁴ Q(r²) for |r| <= π/4 + 0.04: n itself is rounded, at 2²⁰ by up to 0.03.
    const SIN: [f32; 3] = [-0.166_666_44, 0.008_331_602, -0.000_194_506_49];
    const COS: [f32; 3] = [0.041_666_638, -0.001_388_694_4, 2.439_112_5e-5];
    // π/2 as a sum of three f32. With fused operations the first step of the reduction is exact: x (from 1 on) and
    // the product are multiples of 2⁻²³, and so is their difference, which is below 1.
    const HALF_PI: [f32; 3] = [std::f32::consts::FRAC_PI_2, -4.371_139e-8, -1.715_124_5e-15];
    // SAFETY: as this function's.
    unsafe {
        let n = S::round(S::mul(x, S::splat(std::f32::consts::FRAC_2_PI)));
        let minus_n = S::negate(n);
        let r = S::fused_mul_add(minus_n, S::splat(HALF_PI[0]), x);
        let r = S::fused_mul_add(minus_n, S::splat(HALF_PI[1]), r);
        let r = S::fused_mul_add(minus_n, S::splat(HALF_PI[2]), r);
        let square = S::mul(r, r);
        let sin = S::mul_add(S::mul(square, polynomial::<S, 3>(square, SIN)), r, r);
        let line = S::mul_add(square, S::splat(-0.5), S::splat(1.0));
        let cos = S::mul_add(S::mul(square, square), polynomial::<S, 3>(square, COS), line);
        // The quadrant, n mod 4, as −2, −1, 0, 1 or 2. In the odd ones sine and cosine change places; the sine is
        // negative in −1 and ±2, the cosine in 1 and ±2.
        let quadrant = S::mul_add(S::round(S::mul(n, S::splat(0.25))), S::splat(-4.0), n);
        let size = S::abs(quadrant);
        let odd = S::less(S::abs(S::sub(size, S::splat(1.0))), S::splat(0.5));
        let (sin, cos) = (S::select(odd, cos, sin), S::select(odd, sin, cos));
        let half_turn = S::less(S::splat(1.5), size);
        let (minus_sin, minus_cos) = (S::negate(sin), S::negate(cos));
        let sin = S::select(half_turn, minus_sin, S::select(S::less(quadrant, S::splat(-0.5)), minus_sin, sin));
        let cos = S::select(half_turn, minus_cos, S::select(S::less(S::splat(0.5), quadrant), minus_cos, cos));
        (sin, cos)
    }
}

/// sin² x, absolute error below 3e-7 for |x| up to 2¹⁶.
#[inline(always)]
pub(crate) unsafe fn sin_squared<S: Simd>(x: S::V) -> S::V {
    // The period is π, half a sine's. sin r = r + r³ P(r²) for |r| <= π/2 and a little.
    const C: [f32; 4] = [-0.166_666_57, 0.008_333_015, -0.000_198_064_8, 2.599_751_7e-6];
    const PI: [f32; 2] = [std::f32::consts::PI, -8.742_278e-8];
    // SAFETY: as this function's.
    unsafe {
        let minus_n = S::negate(S::round(S::mul(x, S::splat(std::f32::consts::FRAC_1_PI))));
        let r = S::fused_mul_add(minus_n, S::splat(PI[0]), x);
        let r = S::fused_mul_add(minus_n, S::splat(PI[1]), r);
        let square = S::mul(r, r);
        let sin = S::mul_add(S::mul(square, polynomial::<S, 4>(square, C)), r, r);
        S::mul(sin, sin)
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        Isa, Pool,
        simd::{
            Simd,
            kernel::{Kernel, run},
        },
        testing::every_isa,
    };

    #[derive(Clone, Copy, Debug)]
    enum Function {
        Exp,
        Exp2,
        Tanh,
        NormalCdf,
        Sigmoid,
        Sin,
        Cos,
        SinSquared,
    }

    struct Map<'a> {
        function: Function,
        x: &'a [f32],
        y: &'a mut [f32],
    }

    impl Kernel for Map<'_> {
        type Output = ();

        #[inline(always)]
        unsafe fn run<S: Simd>(self) {
            for (x, y) in self.x.chunks(S::LANES).zip(self.y.chunks_mut(S::LANES)) {
                // SAFETY: both chunks have as many numbers as the partial load and store are told.
                unsafe {
                    let v = S::load_first(x.as_ptr(), x.len());
                    let v = match self.function {
                        Function::Exp => super::exp::<S>(v),
                        Function::Exp2 => super::exp2::<S>(v),
                        Function::Tanh => super::tanh::<S>(v),
                        Function::NormalCdf => super::normal_cdf::<S>(v),
                        Function::Sigmoid => super::sigmoid::<S>(v),
                        Function::SinSquared => super::sin_squared::<S>(v),
                        Function::Sin => super::sin_cos::<S>(v).0,
                        Function::Cos => super::sin_cos::<S>(v).1,
                    };
                    S::store_first(y.as_mut_ptr(), v, y.len());
                }
            }
        }
    }

    fn evaluate(pool: &Pool, function: Function, x: &[f32]) -> Vec<f32> {
        let mut y = vec![f32::NAN; x.len()];
        run(pool, Map { function, x, y: &mut y });
        y
    }

    /// Distance in units of the last place of `wanted`, which is a normal number.
    fn ulps(got: f32, wanted: f64) -> f64 {
        let exponent = wanted.abs().log2().floor();
        (f64::from(got) - wanted).abs() / (exponent - 23.0).exp2()
    }

    fn sweep(low: f32, high: f32) -> Vec<f32> {
        let n = 20_011;
        (0..=n).map(|i| low + (high - low) * (i as f32 / n as f32)).collect()
    }

    #[test]
    fn functions_stay_within_their_error_bounds() {
        type Reference = fn(f64) -> f64;
        let cases: [(Function, f32, f32, f64, Reference); 5] = [
            (Function::Sigmoid, -80.0, 80.0, 4.0, |x| 1.0 / (1.0 + (-x).exp())),
            (Function::Exp, -87.0, 88.7, 2.0, f64::exp),
            (Function::Exp2, -125.9, 127.9, 2.0, f64::exp2),
            (Function::Tanh, -12.0, 12.0, 4.0, f64::tanh),
            (Function::Tanh, -0.7, 0.7, 4.0, f64::tanh),
        ];
        for pool in every_isa() {
            let isa = pool.isa();
            let slack = if isa == Isa::Scalar { 1.0 } else { 0.0 };
            for (function, low, high, bound, reference) in cases {
                let x = sweep(low, high);
                for (&x, y) in x.iter().zip(evaluate(&pool, function, &x)) {
                    let wanted = reference(f64::from(x));
                    if wanted != 0.0 {
                        let error = ulps(y, wanted);
                        assert!(error <= bound + slack, "{isa} {function:?}({x}) = {y}, off by {error} ulp");
                    }
                }
            }
        }
    }

    #[test]
    fn angles_of_late_positions_keep_their_precision() {
        for pool in every_isa() {
            let isa = pool.isa();
            for reach in [10.0, 1000.0, 131_072.0, 1_048_576.0] {
                let x = sweep(-reach, reach);
                let (sin, cos) = (evaluate(&pool, Function::Sin, &x), evaluate(&pool, Function::Cos, &x));
                for i in 0..x.len() {
                    let (wanted_sin, wanted_cos) = f64::from(x[i]).sin_cos();
                    let error = (f64::from(sin[i]) - wanted_sin).abs().max((f64::from(cos[i]) - wanted_cos).abs());
                    assert!(error < 1.2e-7, "{isa} x = {}: {} {}, off by {error}", x[i], sin[i], cos[i]);
                }
            }
        }
    }

    #[test]
    fn squares_of_sines_keep_their_precision() {
        for pool in every_isa() {
            for reach in [2.0, 100.0, 10_000.0, 65_536.0] {
                let x = sweep(-reach, reach);
                for (x, y) in x.iter().zip(evaluate(&pool, Function::SinSquared, &x)) {
                    let error = (f64::from(y) - f64::from(*x).sin().powi(2)).abs();
                    assert!(error < 3e-7, "{} sin² {x} = {y}, off by {error}", pool.isa());
                }
            }
        }
    }

    #[test]
    fn the_normal_distribution_matches_known_values() {
        // Φ from a table of the normal distribution, to more digits than f32 has.
        let table = [
            (0.0, 0.5),
            (0.5, 0.691_462_461_274_013_1),
            (1.0, 0.841_344_746_068_542_9),
            (2.0, 0.977_249_868_051_820_8),
            (3.0, 0.998_650_101_968_369_9),
            (-0.5, 0.308_537_538_725_986_9),
            (-1.0, 0.158_655_253_931_457_05),
            (-2.0, 0.022_750_131_948_179_21),
            (-3.0, 0.001_349_898_031_630_094_6),
            (-5.0, 2.866_515_718_791_946e-7),
        ];
        for pool in every_isa() {
            let isa = pool.isa();
            for (x, wanted) in table {
                let got = f64::from(evaluate(&pool, Function::NormalCdf, &[x])[0]);
                assert!((got / wanted - 1.0f64).abs() < 2e-6, "{isa} Φ({x}) = {got}, {wanted} wanted");
            }
        }
    }

    #[test]
    fn the_ends_of_the_range_are_exact() {
        let inf = f32::INFINITY;
        let cases = [
            (Function::Exp, -inf, 0.0),
            (Function::Exp, -1e4, 0.0),
            (Function::Exp, 0.0, 1.0),
            (Function::Exp, 89.0, inf),
            (Function::Exp, inf, inf),
            (Function::Exp2, -inf, 0.0),
            (Function::Exp2, -151.0, 0.0),
            (Function::Exp2, 0.0, 1.0),
            (Function::Exp2, 10.0, 1024.0),
            (Function::Exp2, 128.0, inf),
            (Function::Tanh, -inf, -1.0),
            (Function::Tanh, 0.0, 0.0),
            (Function::Tanh, inf, 1.0),
            (Function::NormalCdf, -40.0, 0.0),
            (Function::NormalCdf, 40.0, 1.0),
            (Function::Sin, 0.0, 0.0),
            (Function::Cos, 0.0, 1.0),
        ];
        for pool in every_isa() {
            let isa = pool.isa();
            for (function, x, wanted) in cases {
                let got = evaluate(&pool, function, &[x])[0];
                assert!(
                    (got - wanted).abs() < 1e-30 || got == wanted,
                    "{isa} {function:?}({x}) = {got}, {wanted} wanted"
                );
            }
            for function in [Function::Exp, Function::Exp2, Function::Tanh, Function::Sin] {
                assert!(evaluate(&pool, function, &[f32::NAN])[0].is_nan(), "{isa} {function:?}(NaN)");
            }
        }
    }
}
