//! Convolutions with all that stands around them, against plain f64 loops.

use super::*;
use crate::{
    Activations,
    testing::{assert_close, every_isa, random},
};

/// What an inlet makes of a number of channel `c`.
fn admitted(inlet: &Inlet<'_>, c: usize, x: f32) -> f64 {
    let v =
        inlet.affine.map_or(f64::from(x), |[scale, shift]| f64::from(x) * f64::from(scale[c]) + f64::from(shift[c]));
    match inlet.function {
        Nonlinearity::Identity => v,
        Nonlinearity::LeakyRelu(slope) => {
            if v < 0.0 {
                v * f64::from(slope)
            } else {
                v
            }
        }
        Nonlinearity::Snake(alpha) => v + (f64::from(alpha[c]) * v).sin().powi(2) / f64::from(alpha[c]),
    }
}

/// [outputs, kernel, inputs] by the definition.
#[allow(clippy::too_many_arguments)]
fn reference(
    x: &[f32],
    [batch, length]: [usize; 2],
    weights: &[f32],
    [outputs, kernel, inputs]: [usize; 3],
    conv: Conv1d,
    bias: &[f32],
    inlet: &Inlet<'_>,
    outlet: &Outlet<'_>,
) -> Vec<f64> {
    let channels = inputs * conv.groups;
    let frames = conv.output(length, kernel);
    let x: Vec<f64> = x.iter().enumerate().map(|(i, &v)| admitted(inlet, i % channels, v)).collect();
    let mut y = Vec::new();
    for (n, t) in (0..batch).flat_map(|n| (0..frames).map(move |t| (n, t))) {
        for o in 0..outputs {
            let first = o / (outputs / conv.groups) * inputs;
            let mut sum = bias.get(o).map_or(0.0, |&b| f64::from(b));
            for tap in 0..kernel {
                let at = (t * conv.stride + tap * conv.dilation).wrapping_sub(conv.padding);
                if at < length {
                    let x = &x[(n * length + at) * channels + first..][..inputs];
                    let w = &weights[(o * kernel + tap) * inputs..][..inputs];
                    sum += x.iter().zip(w).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
                }
            }
            let residual = outlet.residual.map_or(0.0, |r| f64::from(r[y.len()]));
            y.push((sum + residual) * f64::from(outlet.factor));
        }
    }
    y
}

/// How far each result may be from exact sums where activations and weights are integers with half a unit for the largest: at most
/// `x_eps` of the largest of a frame for activations, and `w_eps` of what `size` makes of a tap for weights.
#[allow(clippy::too_many_arguments)]
fn bounds(
    x: &[f32],
    [batch, length]: [usize; 2],
    weights: &[f32],
    [outputs, kernel, channels]: [usize; 3],
    conv: Conv1d,
    inlet: &Inlet<'_>,
    activations: Activations,
) -> Vec<f64> {
    let frames: Vec<Vec<f64>> = x
        .chunks_exact(channels)
        .map(|frame| frame.iter().enumerate().map(|(c, &v)| admitted(inlet, c, v).abs()).collect())
        .collect();
    let mut allowed = Vec::new();
    for (n, t) in (0..batch).flat_map(|n| (0..conv.output(length, kernel)).map(move |t| (n, t))) {
        for filter in weights.chunks_exact(kernel * channels) {
            let sum = |w: &[f32]| w.iter().map(|w| f64::from(w.abs())).sum::<f64>();
            let most = filter.chunks_exact(channels).map(sum).fold(0.0, f64::max);
            let largest = filter.iter().fold(0.0, |m: f64, w| m.max(f64::from(w.abs())));
            let (x_eps, w_unit) = match activations {
                // Half of 2³¹ / 8191, and a little less. Products at five points come with larger factors; as measured.
                Activations::Int16 if kernel >= 3 => (2.5 / 8190.0, 5.0 * most / 523_000.0),
                Activations::Int16 => (0.5 / 8190.0, most / 523_000.0),
                _ => (0.5 / 126.9, largest / 253.0),
            };
            let mut error = 0.0;
            for (tap, w) in filter.chunks_exact(channels).enumerate() {
                let at = (t * conv.stride + tap * conv.dilation).wrapping_sub(conv.padding);
                if at < length {
                    let frame = &frames[n * length + at];
                    // Of all that are taken together.
                    let near = at.saturating_sub(4 * conv.dilation)..length.min(at + 4 * conv.dilation + 1);
                    let near = &frames[n * length + near.start..n * length + near.end];
                    let largest = near.iter().flatten().fold(0.0, |m: f64, &v| m.max(v));
                    error += x_eps * largest * sum(w) + w_unit * frame.iter().sum::<f64>();
                    error += 3e-6 * frame.iter().zip(w).map(|(x, w)| x * f64::from(w.abs())).sum::<f64>();
                }
            }
            allowed.push(error + 1e-6);
        }
    }
    assert_eq!(allowed.len(), batch * conv.output(length, kernel) * outputs);
    allowed
}

/// Numbers of an inlet of so many channels: scales, shifts, α.
fn lists(channels: usize) -> [Vec<f32>; 3] {
    let around_one = |seed| random(channels, seed).iter().map(|v| 1.0 + 0.5 * v).collect();
    [around_one(21), random(channels, 22), around_one(23)]
}

#[test]
fn convolutions_match_f64() {
    let plain = Conv1d::default();
    let same = |kernel: usize, dilation| Conv1d { padding: kernel / 2 * dilation, dilation, ..plain };
    // (name, [batch, length], [outputs, kernel, inputs of a group], convolution)
    let cases = [
        ("one frame", [1, 1], [40, 3, 48], same(3, 1)),
        ("3 wide", [1, 50], [64, 3, 64], same(3, 1)),
        ("7 wide, dilated", [1, 61], [48, 7, 32], same(7, 3)),
        ("11 wide, dilated by more than there is", [1, 23], [33, 11, 50], same(11, 5)),
        ("a batch, strided", [2, 31], [20, 4, 36], Conv1d { stride: 3, padding: 2, ..plain }),
        ("pointwise, odd channels", [1, 130], [17, 1, 77], plain),
        ("few channels", [1, 40], [24, 12, 22], Conv1d { stride: 6, padding: 3, ..plain }),
        ("groups", [1, 19], [12, 3, 6], Conv1d { groups: 3, ..same(3, 1) }),
    ];
    for (name, size, shape, conv) in cases {
        let [outputs, kernel, inputs] = shape;
        let channels = inputs * conv.groups;
        let x = random(size[0] * size[1] * channels, 1);
        let (weights, bias) = (random(shape.iter().product(), 2), random(outputs, 3));
        let residual = random(size[0] * conv.output(size[1], kernel) * outputs, 4);
        let [scale, shift, alpha] = lists(channels);
        let affine = Some([&*scale, &*shift]);
        let inlets = [
            Inlet::default(),
            Inlet { affine, function: Nonlinearity::LeakyRelu(0.2) },
            Inlet { affine: None, function: Nonlinearity::LeakyRelu(0.1) },
            Inlet { affine, function: Nonlinearity::Snake(&alpha) },
        ];
        for (i, inlet) in inlets.iter().enumerate() {
            let with_bias: &[f32] = if i == 1 { &[] } else { &bias };
            let outlet = match i {
                0 => Outlet::default(),
                1 => Outlet { residual: None, factor: 0.5 },
                _ => Outlet { residual: Some(&residual), factor: 0.25 },
            };
            let wanted = reference(&x, size, &weights, shape, conv, with_bias, inlet, &outlet);
            let given = Some(with_bias).filter(|bias| !bias.is_empty());
            for pool in every_isa() {
                let pool = pool.with_activations(Activations::F32);
                let taps = Taps::new(&pool, &WeightArena::new(), &weights, shape, conv, given);
                let mut y = vec![f32::NAN; wanted.len()];
                convolve(&pool, &x, size, &taps, inlet, &outlet, &mut y);
                let what = format!("{name}, inlet {i}, {:?}", pool.isa());
                let tolerance = 1e-6 * ((kernel * inputs).max(64) as f64).sqrt();
                assert_close(&y, wanted.iter().copied(), tolerance, what);
            }
            for activations in [Activations::Int16, Activations::Int8] {
                if conv.groups > 1 {
                    continue;
                }
                let allowed = bounds(&x, size, &weights, shape, conv, inlet, activations);
                for pool in every_isa() {
                    let pool = pool.with_activations(activations);
                    let taps = Taps::new(&pool, &WeightArena::new(), &weights, shape, conv, given);
                    let mut y = vec![f32::NAN; wanted.len()];
                    convolve(&pool, &x, size, &taps, inlet, &outlet, &mut y);
                    for (at, (&y, (wanted, allowed))) in y.iter().zip(wanted.iter().zip(&allowed)).enumerate() {
                        let error = (f64::from(y) - wanted).abs();
                        let what = format!("{name}, inlet {i}, {:?}, {activations}, number {at}", pool.isa());
                        assert!(error <= *allowed, "{what} is {y}, {wanted} wanted, off by {error} of {allowed}");
                    }
                }
            }
        }
    }
}

#[test]
fn transposed_convolutions_match_f64() {
    // (name, length, [inputs, kernel, outputs], stride, [padding, extra])
    let cases = [
        ("Kokoro's first, small", 13, [32, 20, 24], 10, [5, 0]),
        ("Kokoro's second, small", 9, [40, 12, 16], 6, [3, 0]),
        ("a kernel that its stride does not divide", 7, [33, 5, 10], 3, [1, 1]),
        ("a kernel shorter than its stride", 6, [8, 2, 7], 4, [0, 3]),
        ("one frame", 1, [16, 4, 16], 2, [1, 0]),
    ];
    for (name, length, shape, stride, [padding, extra]) in cases {
        let [inputs, kernel, outputs] = shape;
        let (x, weights, bias) = (random(length * inputs, 1), random(shape.iter().product(), 2), random(outputs, 3));
        let inlet = Inlet { affine: None, function: Nonlinearity::LeakyRelu(0.1) };
        let frames = (length - 1) * stride + kernel + extra - 2 * padding;
        let mut wanted: Vec<f64> = (0..frames * outputs).map(|i| f64::from(bias[i % outputs])).collect();
        for (t, tap) in (0..length).flat_map(|t| (0..kernel).map(move |tap| (t, tap))) {
            let at = (t * stride + tap).wrapping_sub(padding);
            if at < frames {
                for (i, o) in (0..inputs).flat_map(|i| (0..outputs).map(move |o| (i, o))) {
                    let w = f64::from(weights[(i * kernel + tap) * outputs + o]);
                    wanted[at * outputs + o] += admitted(&inlet, i, x[t * inputs + i]) * w;
                }
            }
        }
        // Of sums of up to 80 products of at most 1 each, as measured.
        for (activations, tolerance) in [(Activations::F32, 1e-5), (Activations::Int16, 2e-3), (Activations::Int8, 0.1)]
        {
            for pool in every_isa() {
                let pool = pool.with_activations(activations);
                let taps = TransposedTaps::new(&pool, &WeightArena::new(), &weights, shape, stride, Some(&bias));
                assert_eq!(taps.output(length, padding, extra), frames, "{name}");
                let mut y = vec![f32::NAN; wanted.len()];
                convolve_transposed(&pool, &x, &taps, [padding, extra], &inlet, &mut y);
                let what = format!("{name}, {:?}, {activations}", pool.isa());
                assert_close(&y, wanted.iter().copied(), tolerance, what);
            }
        }
    }
}

/// Kokoro's `pool`: each channel by itself, twice as many frames.
#[test]
fn a_transposed_filter_for_each_channel_matches_f64() {
    let (length, channels, kernel, stride, [padding, extra]) = (11, 37, 3, 2, [1, 1]);
    let (x, weights, bias) = (random(length * channels, 1), random(channels * kernel, 2), random(channels, 3));
    let frames = 2 * length;
    let mut wanted: Vec<f64> = (0..frames * channels).map(|i| f64::from(bias[i % channels])).collect();
    for (t, tap) in (0..length).flat_map(|t| (0..kernel).map(move |tap| (t, tap))) {
        let at = (t * stride + tap).wrapping_sub(padding);
        if at < frames {
            for c in 0..channels {
                let w = f64::from(weights[c * kernel + tap]);
                wanted[at * channels + c] += f64::from(x[t * channels + c]) * w;
            }
        }
    }
    for pool in every_isa() {
        let taps = TransposedTaps::depthwise(&weights, [channels, kernel], stride, Some(&bias));
        assert_eq!(taps.output(length, padding, extra), frames);
        let mut y = vec![f32::NAN; wanted.len()];
        convolve_transposed(&pool, &x, &taps, [padding, extra], &Inlet::default(), &mut y);
        assert_close(&y, wanted.iter().copied(), 1e-6, pool.isa());
    }
}

/// Cut into other blocks, by other instructions: the same sums.
#[test]
fn neither_threads_nor_the_instruction_set_change_integers() {
    let (length, shape, conv) = (301, [64, 7, 300], Conv1d { padding: 9, dilation: 3, ..Conv1d::default() });
    let (x, weights) = (random(length * shape[2], 1), random(shape.iter().product(), 2));
    let [scale, shift, alpha] = lists(shape[2]);
    let inlet = Inlet { affine: Some([&scale, &shift]), function: Nonlinearity::Snake(&alpha) };
    let mut first: Option<Vec<f32>> = None;
    for isa in crate::Isa::available() {
        for threads in [1, 2, 5] {
            let pool = Pool::with_isa(threads, isa).unwrap();
            let taps = Taps::new(&pool, &WeightArena::new(), &weights, shape, conv, None);
            if matches!(taps.form, Form::Integers(..)) {
                let mut y = vec![f32::NAN; length * shape[0]];
                convolve(&pool, &x, [1, length], &taps, &inlet, &Outlet::default(), &mut y);
                match &first {
                    Some(first) => assert!(*first == y, "{isa}, {threads} threads"),
                    None => first = Some(y),
                }
            }
        }
    }
}

/// What the largest activations and weights that can be do to sums: nothing, they are exact.
#[test]
fn sums_stay_within_their_integers() {
    let (outputs, channels) = (32, 512);
    for (name, weight) in [("equal", 1.0f32), ("equal and negative", -1.0)] {
        let (x, weights) = (vec![3.0f32; 20 * channels], vec![weight; outputs * channels]);
        for activations in [Activations::Int16, Activations::Int8] {
            for pool in every_isa() {
                let pool = pool.with_activations(activations);
                let taps =
                    Taps::new(&pool, &WeightArena::new(), &weights, [outputs, 1, channels], Conv1d::default(), None);
                let mut y = vec![f32::NAN; 20 * outputs];
                convolve(&pool, &x, [1, 20], &taps, &Inlet::default(), &Outlet::default(), &mut y);
                let wanted = f64::from(3.0 * weight * channels as f32);
                // A thousandth: a unit's rounding.
                assert_close(&y, y.iter().map(|_| wanted), 1e-3, format_args!("{name}, {:?}", pool.isa()));
            }
        }
    }
}

/// A number that is none stays about where it is seen, and does not become one.
#[test]
fn a_nan_spreads_little_further_than_the_kernel() {
    let (length, shape, conv) = (30, [32, 3, 64], Conv1d { padding: 1, ..Conv1d::default() });
    let weights = random(shape.iter().product(), 2);
    for bad in [f32::NAN, f32::INFINITY] {
        let mut x = random(length * shape[2], 1);
        x[10 * shape[2] + 7] = bad;
        for activations in [Activations::F32, Activations::Int16, Activations::Int8] {
            for pool in every_isa() {
                let pool = pool.with_activations(activations);
                let taps = Taps::new(&pool, &WeightArena::new(), &weights, shape, conv, None);
                let mut y = vec![0.0; length * shape[0]];
                convolve(&pool, &x, [1, length], &taps, &Inlet::default(), &Outlet::default(), &mut y);
                for (t, frame) in y.chunks_exact(shape[0]).enumerate() {
                    // Results that are made together share it.
                    let finite = frame.iter().all(|v| v.is_finite());
                    let what = format!("{:?}, {activations}, frame {t}", pool.isa());
                    assert!(finite || (7..=13).contains(&t), "{what}");
                    assert!(!finite || !(9..=11).contains(&t), "{what}");
                }
            }
        }
    }
}
