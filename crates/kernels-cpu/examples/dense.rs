//! Speed of the dense kernels beside the ceilings of a core, best of many short runs:
//! `cargo run --release -p vllm-kernels-cpu --example dense [THREADS]`.

mod clock;

use std::{hint::black_box, time::Instant};

use clock::cpu_seconds;
use half::bf16;
use vllm_kernels_cpu::{DenseMatrix, Floats, Pool, matmul};

/// Seconds of a call, by the quickest of some batches of calls.
fn best(threads: usize, mut body: impl FnMut()) -> f64 {
    let clock = Instant::now();
    let now = || if threads == 1 { cpu_seconds() } else { clock.elapsed().as_secs_f64() };
    let mut batch = |calls: u32| {
        let start = now();
        (0..calls).for_each(|_| body());
        (now() - start) / f64::from(calls)
    };
    let calls = (if threads == 1 { 0.02 } else { 0.002 } / batch(3).max(1e-6)).ceil().max(1.0);
    let count = if threads == 1 { 9 } else { 60 };
    (0..count).map(|_| batch(calls as u32)).fold(f64::INFINITY, f64::min)
}

/// GFLOP/s of a core that does nothing but multiply and add f32, where we know how to ask for that.
#[cfg(target_arch = "x86_64")]
fn peak() -> f64 {
    use std::arch::x86_64::*;
    const STEPS: usize = 20_000;
    const CHAINS: usize = 16;
    #[target_feature(enable = "avx512f")]
    fn wide() -> f32 {
        let (a, b) = (_mm512_set1_ps(black_box(1.0)), _mm512_set1_ps(black_box(1e-9)));
        let mut sums = [_mm512_setzero_ps(); CHAINS];
        for _ in 0..STEPS {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        sums.into_iter().map(|sum| _mm512_reduce_add_ps(sum)).sum()
    }
    if !is_x86_feature_detected!("avx512f") {
        return f64::NAN;
    }
    // SAFETY: the processor has AVX-512 F.
    let seconds = best(1, || _ = black_box(unsafe { wide() }));
    (2 * 16 * CHAINS * STEPS) as f64 / seconds / 1e9
}

#[cfg(not(target_arch = "x86_64"))]
fn peak() -> f64 {
    f64::NAN
}

fn main() {
    let threads = std::env::args().nth(1).and_then(|n| n.parse().ok()).unwrap_or(1);
    let pool = Pool::new(threads);
    println!("{pool:?}, peak of a core {:.1} GFLOP/s", peak());
    for [m, k, n] in [
        [1, 1024, 50_000],
        [64, 1024, 3072],
        [64, 384, 1536],
        [128, 384, 1536],
        [512, 1024, 3072],
        [512, 3072, 1024],
        [512, 384, 1536],
        [512, 1536, 384],
        [512, 384, 384],
        [2048, 576, 1536],
    ] {
        let x = vec![0.5f32; m * k];
        let wide = vec![0.25f32; n * k];
        let narrow = vec![bf16::from_f32(0.25); n * k];
        let mut y = vec![0.0f32; m * n];
        let ceiling = peak() * threads as f64;
        for w in [Floats::F32(&wide), Floats::Bf16(&narrow)] {
            let w = DenseMatrix::new(w, [n, k]).expect("as long as its shape");
            let seconds = best(threads, || matmul(&pool, black_box(&x), &w, &mut y));
            let gflops = (2 * m * k * n) as f64 / seconds / 1e9;
            let bytes = (n * k * w.data().kind().size()) as f64;
            println!(
                "{:>5} × {k:>5} × {n:>5} {:>4?}: {gflops:>6.1} GFLOP/s, {:>3.0} %, {:>5.1} GB/s of weights",
                m,
                w.data().kind(),
                100.0 * gflops / ceiling,
                bytes / seconds / 1e9
            );
        }
    }
}
