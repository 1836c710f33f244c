//! Quantized matmuls of the shapes of SmolLM2-135M and Qwen3-0.6B: `cargo bench -p vllm-kernels-cpu --bench matmul`.
//!
//! `VLLM_CPU_ISA` picks an instruction set. One row, that is decode, reads another copy of the matrix each time, as a model does: from
//! memory. Batches read the same one, since its arithmetic is what limits them.

mod support;

use std::hint::black_box;

use half::f16;
use support::{Suite, Work, cold_copies, numbers};
use vllm_kernels_cpu::{Floats, Pool, QuantMatrix, quantized_matmul};

const GROUP: usize = 32;

/// A quantized matrix, owned.
struct Weights {
    packed: Vec<u32>,
    scales: Vec<f16>,
    biases: Vec<f16>,
    shape: [usize; 2],
    bits: u8,
}

impl Weights {
    fn new(shape: [usize; 2], bits: u8) -> Self {
        let size = shape[0] * shape[1];
        let word = |i: usize| (i as u32).wrapping_mul(2_654_435_761);
        Self {
            packed: (0..size * usize::from(bits) / 32).map(word).collect(),
            scales: vec![f16::from_f32(0.01); size / GROUP],
            biases: vec![f16::from_f32(-0.08); size / GROUP],
            shape,
            bits,
        }
    }

    fn matrix(&self) -> QuantMatrix<'_> {
        let (scales, biases) = (Floats::F16(&self.scales), Floats::F16(&self.biases));
        QuantMatrix::affine(&self.packed, scales, biases, self.shape, self.bits, GROUP).expect("parts of one shape")
    }

    fn bytes(&self) -> usize {
        4 * self.packed.len() + 4 * self.scales.len()
    }

    /// With `m` rows of activations.
    fn work(&self, m: usize) -> Work {
        Work::int8(2 * m * self.shape[0] * self.shape[1], self.bytes() + 4 * m * (self.shape[0] + self.shape[1]))
    }
}

/// (model, rows and columns of weights, bits)
const SHAPES: [(&str, [usize; 2], u8); 9] = [
    ("SmolLM2", [576, 576], 4),
    ("SmolLM2", [1536, 576], 4),
    ("SmolLM2", [576, 1536], 4),
    ("SmolLM2", [49_152, 576], 8),
    ("Qwen3", [2048, 1024], 4),
    ("Qwen3", [3072, 1024], 4),
    ("Qwen3", [1024, 3072], 4),
    ("Qwen3", [3072, 1024], 8),
    ("Qwen3", [151_936, 1024], 4),
];

/// Rows of activations: a token, sixteen sequences, a prompt.
const BATCHES: [usize; 3] = [1, 16, 512];

/// Output matrices see no prompts: only its last token has an output.
const OUTPUT_ROWS: usize = 10_000;

fn quantized(suite: &mut Suite) {
    for m in BATCHES {
        for (model, shape, bits) in SHAPES {
            if m > 64 && shape[0] >= OUTPUT_ROWS {
                continue;
            }
            let first = Weights::new(shape, bits);
            let work = first.work(m);
            let copies = if m == 1 { cold_copies(first.bytes()) } else { 1 };
            let all: Vec<Weights> =
                std::iter::once(first).chain((1..copies).map(|_| Weights::new(shape, bits))).collect();
            let x = numbers(m * shape[1]);
            let mut y = vec![0.0f32; m * shape[0]];
            let name = format!("{model} {}x{} {bits} bits", shape[0], shape[1]);
            suite.bench(&format!("quantized m={m}"), &name, work, |pool, i| {
                quantized_matmul(pool, black_box(&x), &all[i % copies].matrix(), &mut y);
            });
        }
    }
}

/// What starting and ending a kernel costs.
fn fork_join(suite: &mut Suite) {
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        suite.bench("fork-join", &format!("{threads} threads"), Work::memory(0), |_, _| {
            pool.run(8, |task| _ = black_box(task));
        });
    }
}

fn main() {
    let mut suite = Suite::new("matmul");
    fork_join(&mut suite);
    quantized(&mut suite);
    suite.finish();
}
