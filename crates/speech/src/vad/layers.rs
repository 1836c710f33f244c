//! Matrix times vector, laid out for the vector units of a processor.

/// Rows that are computed together: their sums stay in registers.
const BLOCK: usize = 16;

/// A layer: out = bias + weights · in.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    inputs: usize,
    bias: Vec<f32>,
    /// By blocks of rows: for each input the weights of the block's rows.
    weights: Vec<[f32; BLOCK]>,
}

impl Layer {
    /// Of `bias.len()` rows, a multiple of 16; `weight(row, input)` says each weight.
    pub fn new(inputs: usize, bias: Vec<f32>, weight: impl Fn(usize, usize) -> f32) -> Self {
        assert!(bias.len().is_multiple_of(BLOCK), "{} rows", bias.len());
        let places = (0..bias.len() / BLOCK).flat_map(|block| (0..inputs).map(move |input| (block, input)));
        let weights =
            places.map(|(block, input)| std::array::from_fn(|row| weight(block * BLOCK + row, input))).collect();
        Self { inputs, bias, weights }
    }

    /// Computes as many numbers as `out` has, which has to be all of them.
    pub fn apply(&self, input: &[f32], out: &mut [f32]) {
        debug_assert!(input.len() == self.inputs && out.len() == self.bias.len());
        let blocks = self.weights.chunks_exact(self.inputs);
        for ((weights, bias), out) in blocks.zip(self.bias.chunks_exact(BLOCK)).zip(out.chunks_exact_mut(BLOCK)) {
            let mut sums = [0.0f32; BLOCK];
            sums.copy_from_slice(bias);
            for (weights, &input) in weights.iter().zip(input) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += weight * input;
                }
            }
            out.copy_from_slice(&sums);
        }
    }

    /// As [`apply`](Self::apply), with what is negative made 0.
    pub fn apply_relu(&self, input: &[f32], out: &mut [f32]) {
        self.apply(input, out);
        for number in out {
            *number = number.max(0.0);
        }
    }
}
