//! Quantized matmuls of the shapes of SmolLM2-135M and Qwen3-0.6B: `cargo bench -p vllm-kernels-cpu --bench matmul`.
//!
//! `VLLM_CPU_ISA` picks an instruction set. One row, that is decode, reads another copy of the matrix each time, as a model does: from
//! memory. Batches read the same one, since its arithmetic is what limits them.

mod support;

use std::hint::black_box;

use half::f16;
use support::{Suite, Work, cold_copies, numbers};
use vllm_kernels_cpu::{
    Activations, Floats, Linear, PackedMatrix, Pool, QuantMatrix, WeightArena, packed_matmul, quantized_matmul,
};

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

/// Rows of activations: a token, some sequences, a prompt.
const PACKED_BATCHES: [usize; 5] = [1, 4, 16, 64, 512];
/// As the file has them, as other instruction sets and formats read them.
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

/// Weights packed for byte dot products, by kind of activation.
fn packed(suite: &mut Suite) {
    for kind in [Activations::Int16, Activations::Int8] {
        let pool = Pool::new(0).with_activations(kind);
        for (model, shape, bits) in SHAPES {
            let arena = WeightArena::new();
            let weights = Weights::new(shape, bits);
            let pack = || PackedMatrix::pack(&pool, &arena, &weights.matrix());
            let Some(first) = pack() else { continue };
            let copies = cold_copies(first.nbytes());
            let all: Vec<_> = std::iter::once(first).chain((1..copies).filter_map(|_| pack())).collect();
            for m in PACKED_BATCHES.into_iter().filter(|&m| m <= 64 || shape[0] < OUTPUT_ROWS) {
                let x = numbers(m * shape[1]);
                let mut y = vec![0.0f32; m * shape[0]];
                let copies = if m == 1 { copies } else { 1 };
                let name = format!("{model} {}x{} {bits} bits", shape[0], shape[1]);
                let bytes = all[0].nbytes() + 4 * m * (shape[0] + shape[1]);
                let work = Work::int8(2 * m * shape[0] * shape[1], bytes);
                suite.bench(&format!("packed {kind} m={m}"), &name, work, |_, i| {
                    packed_matmul(&pool, black_box(&x), &[Linear::plain(&all[i % copies])], &mut [&mut y]);
                });
            }
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
    packed(&mut suite);
    quantized(&mut suite);
    suite.finish();
}
