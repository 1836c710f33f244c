//! Speed of the kernels at the sizes of Whisper tiny's encoder and decoder, best of some runs:
//! `cargo run --release -p vllm-kernels-cpu --example hearing [THREADS]`.

use std::{hint::black_box, time::Instant};

use half::f16;
use vllm_kernels_cpu::{
    Activation, Attention, Conv1d, DenseMatrix, Filters, Floats, KvKind, KvPool, KvShape, Pool, RaggedBatch,
    activation, attention, conv1d, layer_norm, matmul,
};

const PLACES: usize = 1500;
const STATE: usize = 384;
const HEADS: usize = 6;

fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919 % 1013) as f32 / 1013.0) - 0.5).collect()
}

/// Milliseconds of a call, the least of some.
fn best(name: &str, gflop: f64, mut body: impl FnMut()) {
    let mut least = f64::MAX;
    for _ in 0..12 {
        let started = Instant::now();
        body();
        least = least.min(started.elapsed().as_secs_f64());
    }
    println!("{name:<28} {:8.3} ms {:7.1} GFLOP/s", least * 1e3, gflop / least);
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let threads = std::env::args().nth(1).map_or(Ok(2), |n| n.parse())?;
    let pool = Pool::new(threads);
    for (rows, columns) in [(384, 384), (1152, 384), (1536, 384), (384, 1536)] {
        let (x, w) = (numbers(PLACES * columns), numbers(rows * columns));
        let half: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
        let mut y = vec![0.0; PLACES * rows];
        let gflop = 2e-9 * (PLACES * rows * columns) as f64;
        let dense = DenseMatrix::new(Floats::F16(&half), [rows, columns])?;
        best(&format!("f16 {rows} {columns}"), gflop, || matmul(&pool, black_box(&x), &dense, &mut y));
        let dense = DenseMatrix::new(Floats::F32(&w), [rows, columns])?;
        best(&format!("f32 {rows} {columns}"), gflop, || matmul(&pool, black_box(&x), &dense, &mut y));
    }
    {
        let (x, w) = (numbers(STATE), numbers(51_864 * STATE));
        let half: Vec<f16> = w.iter().map(|&w| f16::from_f32(w)).collect();
        let mut y = vec![0.0; 51_864];
        let dense = DenseMatrix::new(Floats::F16(&half), [51_864, STATE])?;
        best("logits f16", 2e-9 * (51_864 * STATE) as f64, || matmul(&pool, black_box(&x), &dense, &mut y));
    }
    for (frames, channels, stride) in [(3000, 80, 1), (3000, STATE, 2)] {
        let (x, w) = (numbers(frames * channels), numbers(STATE * 3 * channels));
        let how = Conv1d { stride, padding: 1, ..Conv1d::default() };
        let mut y = vec![0.0; frames / stride * STATE];
        let filters = Filters::new(&w, [STATE, 1, 3, channels])?;
        let gflop = 2e-9 * (y.len() * 3 * channels) as f64;
        best(&format!("convolution {channels}"), gflop, || {
            conv1d(&pool, black_box(&x), [1, frames], &filters, how, &mut y);
        });
    }
    {
        let mut y = numbers(PLACES * 4 * STATE);
        let bias = numbers(4 * STATE);
        best("gelu, biased", 0.0, || activation::biased(&pool, Some(Activation::Gelu), Some(&bias), black_box(&mut y)));
        let (x, w) = (numbers(PLACES * STATE), numbers(STATE));
        let mut y = vec![0.0; x.len()];
        best("layer norm", 0.0, || {
            layer_norm(&pool, black_box(&x), Floats::F32(&w), Some(Floats::F32(&w)), 1e-5, &mut y)
        });
    }
    for kind in [KvKind::F32, KvKind::F16] {
        let blocks: Vec<u32> = (0..94).collect();
        let kv = KvPool::new(KvShape { blocks: 94, block_size: 16, kv_heads: HEADS, head_dim: 64, kind })?;
        let (k, v) = (numbers(PLACES * STATE), numbers(PLACES * STATE));
        let slots: Vec<u32> = (0..PLACES as u32).collect();
        best(&format!("write {kind:?}"), 0.0, || kv.write(&pool, black_box(&k), &v, &slots));
        for queries in [1, PLACES] {
            let q = numbers(queries * STATE);
            let mut out = vec![0.0; q.len()];
            let batch = RaggedBatch {
                query_offsets: &[0, queries as u32],
                starts: &[(PLACES - queries) as u32],
                until: &[],
                block_offsets: &[0, 94],
                blocks: &blocks,
            };
            let layer = Attention { heads: HEADS, scale: 0.125, causal: false, window: None, softcap: None };
            let gflop = 4e-9 * (queries * PLACES * STATE) as f64;
            best(&format!("attention {kind:?} {queries}"), gflop, || {
                attention(&pool, black_box(&q), &kv, &batch, &layer, &mut out);
            });
        }
    }
    Ok(())
}
