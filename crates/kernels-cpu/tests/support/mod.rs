//! What the tests of matmuls share.
#![allow(dead_code, reason = "each test file uses a part")]

use half::{bf16, f16};
use vllm_kernels_cpu::{FloatKind, Floats, QuantMatrix};

/// Pseudo-random numbers, the same on every run.
pub struct Random(pub u64);

impl Random {
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 32) as u32
    }

    /// Roughly normal, with now and then an outlier, as activations have them.
    pub fn activations(&mut self, n: usize) -> Vec<f32> {
        (0..n)
            .map(|_| {
                let sum: f32 = (0..4).map(|_| self.uniform() - 0.5).sum();
                if self.word().is_multiple_of(97) { 40.0 * sum } else { sum }
            })
            .collect()
    }

    pub fn uniform(&mut self) -> f32 {
        self.word() as f32 / u32::MAX as f32
    }
}

/// Numbers in one of the formats, owned.
pub enum Owned {
    F32(Vec<f32>),
    F16(Vec<f16>),
    Bf16(Vec<bf16>),
}

impl Owned {
    pub fn new(kind: FloatKind, values: impl Iterator<Item = f32>) -> Self {
        match kind {
            FloatKind::F32 => Self::F32(values.collect()),
            FloatKind::F16 => Self::F16(values.map(f16::from_f32).collect()),
            FloatKind::Bf16 => Self::Bf16(values.map(bf16::from_f32).collect()),
        }
    }

    pub fn floats(&self) -> Floats<'_> {
        match self {
            Self::F32(v) => Floats::F32(v),
            Self::F16(v) => Floats::F16(v),
            Self::Bf16(v) => Floats::Bf16(v),
        }
    }
}

/// A quantized matrix, owned.
pub struct Quantized {
    pub packed: Vec<u32>,
    pub scales: Owned,
    pub biases: Owned,
    pub shape: [usize; 2],
    pub bits: u8,
    pub group_size: usize,
}

impl Quantized {
    pub fn new(random: &mut Random, shape: [usize; 2], bits: u8, group_size: usize, kind: FloatKind) -> Self {
        let [rows, cols] = shape;
        let groups = rows * cols / group_size;
        let step = 0.1 / f32::from(bits).exp2();
        Self {
            packed: (0..rows * cols * usize::from(bits) / 32).map(|_| random.word()).collect(),
            scales: Owned::new(kind, (0..groups).map(|_| step * (0.5 + random.uniform()))),
            biases: Owned::new(kind, (0..groups).map(|_| -0.05 * (0.5 + random.uniform()))),
            shape,
            bits,
            group_size,
        }
    }

    /// The same with biases that follow from the scales, as in GGUF's Q4_0 and Q8_0.
    pub fn symmetric(self, kind: FloatKind) -> Self {
        let zero = -f32::from(1u8 << (self.bits - 1));
        let scales = self.scales.floats();
        let biases = Owned::new(kind, (0..scales.len()).map(|i| zero * scales.get(i)));
        Self { biases, ..self }
    }

    pub fn matrix(&self) -> QuantMatrix<'_> {
        let (scales, biases) = (self.scales.floats(), self.biases.floats());
        QuantMatrix::affine(&self.packed, scales, biases, self.shape, self.bits, self.group_size).unwrap()
    }

    /// Element `[row, column]`, by the definition of MLX's format, in f64.
    pub fn element(&self, row: usize, column: usize) -> f64 {
        let [_, cols] = self.shape;
        let bits = usize::from(self.bits);
        let code = (0..bits).map(|b| {
            let bit = (row * cols + column) * bits + b;
            (self.packed[bit / 32] >> (bit % 32) & 1) << b
        });
        let group = row * (cols / self.group_size) + column / self.group_size;
        let (scale, bias) = (self.scales.floats().get(group), self.biases.floats().get(group));
        f64::from(scale) * f64::from(code.sum::<u32>()) + f64::from(bias)
    }

    pub fn dequantized(&self) -> Vec<f64> {
        let [rows, cols] = self.shape;
        (0..rows * cols).map(|i| self.element(i / cols, i % cols)).collect()
    }

    /// For each element the size of what it is a difference of: `|scale · code| + |bias|`.
    pub fn sizes(&self) -> Vec<f64> {
        let bias = |i: usize| f64::from(self.biases.floats().get(i / self.group_size));
        self.dequantized().iter().enumerate().map(|(i, w)| (w - bias(i)).abs() + bias(i).abs()).collect()
    }
}

/// Columns of `x` that packed matmuls round together.
pub const SPAN: usize = 32;

/// Compares `y = x · wᵀ` with the sum in f64: each element may be off by a few roundings of `Σ |x| · size`, where `sizes`
/// are what the weights are made of; and, where `x` itself is rounded by up to `x_rounding` of the largest of its span, by what
/// that may make at most.
#[track_caller]
pub fn assert_product(
    case: &str,
    x: &[f32],
    x_rounding: f64,
    w: &[f64],
    sizes: &[f64],
    [rows, cols]: [usize; 2],
    y: &[f32],
) {
    for (x, row) in x.chunks_exact(cols).zip(y.chunks_exact(rows)) {
        let largest: Vec<f64> =
            x.chunks(SPAN).map(|span| span.iter().fold(0.0, |m: f64, x| m.max(f64::from(x.abs())))).collect();
        for (o, &found) in row.iter().enumerate() {
            let sum = |of: &dyn Fn(usize, usize) -> f64| (0..cols).map(|c| of(c, o * cols + c)).sum::<f64>();
            let wanted = sum(&|c, i| f64::from(x[c]) * w[i]);
            let rounded = sum(&|c, i| x_rounding * largest[c / SPAN] * w[i].abs());
            let allowed = 5e-7 * sum(&|c, i| f64::from(x[c].abs()) * sizes[i]) + rounded + 1e-12;
            assert!(
                (f64::from(found) - wanted).abs() <= allowed,
                "{case}: y[{o}] = {found}, wanted {wanted} ± {allowed}"
            );
        }
    }
}

pub const KINDS: [FloatKind; 3] = [FloatKind::F32, FloatKind::F16, FloatKind::Bf16];

pub fn bits_of(y: &[f32]) -> Vec<u32> {
    y.iter().map(|v| v.to_bits()).collect()
}
