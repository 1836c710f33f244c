//! Dense matmuls: `cargo bench -p vllm-kernels-cpu --bench dense`. One row reads another copy of the matrix each time, as in `matmul`.

mod support;

use std::hint::black_box;

use half::{bf16, f16};
use support::{Suite, Work, cold_copies, numbers};
use vllm_kernels_cpu::{DenseMatrix, FloatKind, Floats, matmul};

/// A matrix of one kind of numbers, owned.
enum Weights {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Weights {
    fn new(kind: FloatKind, size: usize) -> Self {
        match kind {
            FloatKind::F32 => Self::F32(vec![0.25; size]),
            FloatKind::F16 => Self::F16(vec![f16::from_f32(0.25); size]),
            FloatKind::Bf16 => Self::Bf16(vec![bf16::from_f32(0.25); size]),
        }
    }

    fn view(&self) -> Floats<'_> {
        match self {
            Self::F32(numbers) => Floats::F32(numbers),
            Self::F16(numbers) => Floats::F16(numbers),
            Self::Bf16(numbers) => Floats::Bf16(numbers),
        }
    }
}

/// (rows, columns) of weights: SmolLM2's and Qwen3-0.6B's largest of a layer.
const SHAPES: [[usize; 2]; 2] = [[1536, 576], [3072, 1024]];
const BATCHES: [usize; 3] = [1, 16, 512];

fn dense(suite: &mut Suite) {
    for m in BATCHES {
        for shape in SHAPES {
            let size = shape[0] * shape[1];
            for (name, kind, width) in
                [("f32", FloatKind::F32, 4), ("f16", FloatKind::F16, 2), ("bf16", FloatKind::Bf16, 2)]
            {
                let copies = if m == 1 { cold_copies(width * size) } else { 1 };
                let all: Vec<Weights> = (0..copies).map(|_| Weights::new(kind, size)).collect();
                let x = numbers(m * shape[1]);
                let mut y = vec![0.0f32; m * shape[0]];
                let work = Work::f32(2 * m * size, width * size + 4 * m * (shape[0] + shape[1]));
                suite.bench(&format!("dense m={m}"), &format!("{}x{} {name}", shape[0], shape[1]), work, |pool, i| {
                    let w = DenseMatrix::new(all[i % copies].view(), shape).expect("as long as its shape");
                    matmul(pool, black_box(&x), &w, &mut y);
                });
            }
        }
    }
}

fn main() {
    let mut suite = Suite::new("dense");
    dense(&mut suite);
    suite.finish();
}
