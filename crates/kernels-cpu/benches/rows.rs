//! Kernels that go over rows: norms, rotary embedding, softmax, activations. `cargo bench -p vllm-kernels-cpu --bench rows`.
//!
//! With Qwen3-0.6B's widths, for one token and for a prompt of 512. Rows of one token lie in a cache, as in a model, where another
//! kernel has just written them: their GB/s may well exceed what memory gives.

mod support;

use std::hint::black_box;

use half::f16;
use support::{Suite, Work, numbers};
use vllm_kernels_cpu::{Floats, Rope, RopeLayout, elementwise, layer_norm, rms_norm, rope_in_place, softmax, swiglu};

const TOKENS: [usize; 2] = [1, 512];
const HIDDEN: usize = 1024;
const INTERMEDIATE: usize = 3072;
const HEADS: usize = 16;
const HEAD_DIM: usize = 128;
const EPSILON: f32 = 1e-6;

fn norms(suite: &mut Suite) {
    for tokens in TOKENS {
        let (x, mut y) = (numbers(tokens * HIDDEN), vec![0.0; tokens * HIDDEN]);
        let (weight, bias) = (vec![f16::ONE; HIDDEN], vec![f16::ZERO; HIDDEN]);
        let (weight, bias) = (Floats::F16(&weight), Floats::F16(&bias));
        let work = Work::memory(8 * x.len());
        suite.bench("rms_norm", &format!("{tokens}x{HIDDEN}"), work, |pool, _| {
            rms_norm(pool, black_box(&x), weight, 0.0, EPSILON, &mut y);
        });
        suite.bench("layer_norm", &format!("{tokens}x{HIDDEN}"), work, |pool, _| {
            layer_norm(pool, black_box(&x), weight, Some(bias), EPSILON, &mut y);
        });
    }
}

fn rotary(suite: &mut Suite) {
    let inverse_frequencies: Vec<f32> =
        (0..HEAD_DIM / 2).map(|i| 1e6f32.powf(-2.0 * i as f32 / HEAD_DIM as f32)).collect();
    for tokens in TOKENS {
        let mut x = numbers(tokens * HEADS * HEAD_DIM);
        let positions: Vec<u32> = (0..tokens as u32).map(|i| 4096 + i).collect();
        let rope = Rope {
            heads: HEADS,
            head_dim: HEAD_DIM,
            inverse_frequencies: &inverse_frequencies,
            layout: RopeLayout::HalfSplit,
            scale: 1.0,
        };
        let work = Work::memory(8 * x.len());
        suite.bench("rope", &format!("{tokens}x{HEADS}x{HEAD_DIM}"), work, |pool, _| {
            rope_in_place(pool, black_box(&mut x), &positions, &rope);
        });
    }
}

fn softmaxes(suite: &mut Suite) {
    // A token's heads over a context, and an encoder's rows.
    for (rows, width) in [(HEADS, 4096), (512, 512)] {
        let (x, mut y) = (numbers(rows * width), vec![0.0; rows * width]);
        suite.bench("softmax", &format!("{rows}x{width}"), Work::memory(8 * x.len()), |pool, _| {
            softmax(pool, black_box(&x), width, &mut y);
        });
    }
}

fn activations(suite: &mut Suite) {
    for tokens in TOKENS {
        let (gate, up) = (numbers(tokens * INTERMEDIATE), numbers(tokens * INTERMEDIATE));
        let mut y = vec![0.0; gate.len()];
        suite.bench("swiglu", &format!("{tokens}x{INTERMEDIATE}"), Work::memory(12 * gate.len()), |pool, _| {
            swiglu(pool, black_box(&gate), &up, &mut y);
        });
        suite.bench("add", &format!("{tokens}x{INTERMEDIATE}"), Work::memory(12 * gate.len()), |pool, _| {
            elementwise::add(pool, black_box(&gate), &up, &mut y);
        });
    }
}

fn main() {
    let mut suite = Suite::new("rows");
    norms(&mut suite);
    rotary(&mut suite);
    softmaxes(&mut suite);
    activations(&mut suite);
    suite.finish();
}
