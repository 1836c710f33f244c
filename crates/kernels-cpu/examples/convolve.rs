//! Speed and precision of convolutions in one dimension, by what activations become:
//! `cargo run --release -p vllm-kernels-cpu --example convolve [THREADS]`.
//!
//! The shapes are those of Kokoro's generator for a second of sound, and of its decoder. The error is against f64, over a few frames.

mod clock;

use std::{hint::black_box, time::Instant};

use clock::cpu_seconds;
use vllm_kernels_cpu::{Activations, Conv1d, Inlet, Nonlinearity, Outlet, Pool, Taps, WeightArena, convolve};

/// Numbers as sums of uniform ones: near enough to normally distributed.
fn normal(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..n).map(|_| uniform() + uniform() + uniform()).collect()
}

/// dB of signal over noise at some places of the result.
fn snr(x: &[f32], w: &[f32], [outputs, kernel, channels]: [usize; 3], conv: Conv1d, y: &[f32]) -> f64 {
    let (length, places) = (x.len() / channels, y.len() / outputs);
    let (mut signal, mut noise) = (0.0, 0.0);
    for place in (0..places).step_by((places / 8).max(1)) {
        for output in 0..outputs {
            let mut sum = 0.0;
            for tap in 0..kernel {
                let at = (place * conv.stride + tap * conv.dilation).wrapping_sub(conv.padding);
                if at < length {
                    let w = &w[(output * kernel + tap) * channels..][..channels];
                    let x = &x[at * channels..][..channels];
                    sum += x.iter().zip(w).map(|(&x, &w)| f64::from(x) * f64::from(w)).sum::<f64>();
                }
            }
            signal += sum * sum;
            noise += (f64::from(y[place * outputs + output]) - sum).powi(2);
        }
    }
    10.0 * (signal / noise).log10()
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let same = |kernel: usize, dilation| Conv1d { padding: kernel / 2 * dilation, dilation, ..Conv1d::default() };
    let cases = [
        (800, [256, 3, 256], same(3, 1)),
        (800, [256, 7, 256], same(7, 3)),
        (800, [256, 11, 256], same(11, 1)),
        (800, [256, 11, 256], same(11, 5)),
        (4800, [128, 3, 128], same(3, 1)),
        (4800, [128, 7, 128], same(7, 3)),
        (4800, [128, 11, 128], same(11, 5)),
        (40, [1024, 3, 1090], same(3, 1)),
        (80, [512, 3, 512], same(3, 1)),
        (4800, [22, 7, 128], same(7, 1)),
    ];
    // On one thread by its own clock, so that other programs' share does not count.
    let clock = Instant::now();
    let now = || if threads == 1 { cpu_seconds() } else { clock.elapsed().as_secs_f64() };
    let kinds = [Activations::F32, Activations::Int16, Activations::Int8];
    let pools = kinds.map(|kind| Pool::new(threads).with_activations(kind));
    println!("{:?}\nframes outputs×kernel×inputs dilation: GFLOP/s (and with snake, and a residual), dB", pools[0]);
    for (length, shape, conv) in cases {
        let [outputs, kernel, channels] = shape;
        let (x, w) = (normal(length * channels, 1), normal(shape.iter().product(), 2));
        let places = conv.output(length, kernel);
        let flops = 2.0 * (places * shape.iter().product::<usize>()) as f64;
        let residual = normal(places * outputs, 3);
        let (scale, shift, alpha) = (vec![1.1f32; channels], vec![0.1f32; channels], vec![0.9f32; channels]);
        print!("{length:>5} {outputs:>4}×{kernel:>2}×{channels:>4} {}:", conv.dilation);
        for pool in &pools {
            let taps = Taps::new(pool, &WeightArena::new(), &w, shape, conv, None);
            let mut y = vec![0.0f32; places * outputs];
            let best = |inlet: &Inlet<'_>, outlet: &Outlet<'_>, y: &mut [f32]| {
                let runs = (0..30).map(|_| {
                    let start = now();
                    convolve(pool, black_box(&x), [1, length], &taps, inlet, outlet, y);
                    now() - start
                });
                flops / runs.fold(f64::INFINITY, f64::min) / 1e9
            };
            let around = Inlet { affine: Some([&scale, &shift]), function: Nonlinearity::Snake(&alpha) };
            let fused = best(&around, &Outlet { residual: Some(&residual), factor: 1.0 }, &mut y);
            let plain = best(&Inlet::default(), &Outlet::default(), &mut y);
            let error = snr(&x, &w, shape, conv, &y);
            print!("  {}: {plain:>4.0} ({fused:>4.0}) {error:>3.0} dB", pool.activations());
        }
        println!();
    }
}
