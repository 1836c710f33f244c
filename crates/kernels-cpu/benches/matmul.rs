//! Matmuls of the shapes of SmolLM2-135M (4-bit layers, 8-bit output matrix), on every instruction set of this machine.
//!
//! `decode` counts bytes of weights (scales and biases included), `batch` and `prefill` floating-point operations:
//! what criterion prints as Gelem/s is GFLOP/s.

use std::{hint::black_box, time::Duration};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use half::f16;
use vllm_kernels_cpu::{
    Activations, DenseMatrix, Floats, Isa, Linear, PackedMatrix, Pool, QuantMatrix, WeightArena, matmul, packed_matmul,
    quantized_matmul,
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

    fn bytes(&self) -> u64 {
        (4 * self.packed.len() + 4 * self.scales.len()) as u64
    }

    fn flops(&self, m: usize) -> u64 {
        (2 * m * self.shape[0] * self.shape[1]) as u64
    }
}

/// Pools of one thread and of all, for each instruction set.
fn pools() -> Vec<(String, Pool)> {
    let all = Pool::new(0).threads();
    let counts = if all == 1 { vec![1] } else { vec![1, all] };
    let pool = |isa, threads| (format!("{isa}/{threads}"), Pool::with_isa(threads, isa).expect("it is available"));
    Isa::available().into_iter().rev().flat_map(|isa| counts.iter().map(move |&n| pool(isa, n))).collect()
}

fn quantized(c: &mut Criterion) {
    let shapes = [([576, 576], 4), ([1536, 576], 4), ([576, 1536], 4), ([49152, 576], 8), ([576, 576], 5)];
    let all: Vec<Weights> = shapes.into_iter().map(|(shape, bits)| Weights::new(shape, bits)).collect();
    let batches = [2, 4, 8, 16, 32, 64].map(|m| ("batch", m));
    for (name, m) in [("decode", 1)].into_iter().chain(batches).chain([("prefill", 512)]) {
        let mut group = c.benchmark_group(format!("quantized {name} {m}"));
        group.sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
        for w in all.iter().filter(|w| m <= 64 || w.shape[0] < 4096) {
            group.throughput(if m == 1 { Throughput::Bytes(w.bytes()) } else { Throughput::Elements(w.flops(m)) });
            let x = vec![0.5f32; m * w.shape[1]];
            let mut y = vec![0.0f32; m * w.shape[0]];
            for (name, pool) in pools() {
                let id = BenchmarkId::new(name, format!("{:?}x{}", w.shape, w.bits));
                group.bench_function(id, |b| b.iter(|| quantized_matmul(&pool, black_box(&x), &w.matrix(), &mut y)));
            }
        }
    }
}

/// Weights packed for byte dot products, by kind of activation.
fn packed(c: &mut Criterion) {
    let shapes = [
        ([576, 576], 4),
        ([1536, 576], 4),
        ([576, 1536], 4),
        ([49152, 576], 8),
        ([3072, 1024], 4),
        ([151_936, 1024], 4),
    ];
    let arena = WeightArena::new();
    for (shape, bits) in shapes {
        let w = Weights::new(shape, bits);
        let mut group = c.benchmark_group(format!("packed {shape:?}x{bits}"));
        group.sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
        for kind in [Activations::Int16, Activations::Int8] {
            let pool = Pool::new(0).with_activations(kind);
            let Some(packed) = PackedMatrix::pack(&pool, &arena, &w.matrix()) else { continue };
            for m in [1, 2, 4, 8, 16, 64, 512].into_iter().filter(|&m| m <= 64 || shape[0] < 4096) {
                let bytes = Throughput::Bytes(packed.nbytes() as u64);
                group.throughput(if m == 1 { bytes } else { Throughput::Elements(w.flops(m)) });
                let x = vec![0.5f32; m * shape[1]];
                let mut y = vec![0.0f32; m * shape[0]];
                group.bench_function(BenchmarkId::new(kind.to_string(), m), |b| {
                    b.iter(|| packed_matmul(&pool, black_box(&x), &[Linear::plain(&packed)], &mut [&mut y]));
                });
            }
        }
    }
}

fn dense(c: &mut Criterion) {
    let shape = [1536, 576];
    let wide = vec![0.25f32; shape[0] * shape[1]];
    let narrow = vec![f16::from_f32(0.25); shape[0] * shape[1]];
    let mut group = c.benchmark_group("dense");
    group.sample_size(20).measurement_time(Duration::from_secs(1)).warm_up_time(Duration::from_millis(200));
    for m in [1, 512] {
        group.throughput(Throughput::Elements((2 * m * shape[0] * shape[1]) as u64));
        let x = vec![0.5f32; m * shape[1]];
        let mut y = vec![0.0f32; m * shape[0]];
        for (kind, data) in [("f32", Floats::F32(&wide)), ("f16", Floats::F16(&narrow))] {
            let w = DenseMatrix::new(data, shape).expect("as long as its shape");
            for (name, pool) in pools() {
                let id = BenchmarkId::new(name, format!("{shape:?} {kind} {m}"));
                group.bench_function(id, |b| b.iter(|| matmul(&pool, black_box(&x), &w, &mut y)));
            }
        }
    }
}

fn fork_join(c: &mut Criterion) {
    let mut group = c.benchmark_group("fork-join");
    for threads in [1, 2] {
        let pool = Pool::new(threads);
        group.bench_function(BenchmarkId::from_parameter(threads), |b| {
            b.iter(|| pool.run(8, |task| _ = black_box(task)));
        });
    }
}

criterion_group!(benches, fork_join, packed, quantized, dense);
criterion_main!(benches);
