//! Matrix times vector, laid out for the vector units of a processor.

/// Rows that are computed together: their sums stay in registers.
const BLOCK: usize = 8;

/// A layer: out = bias + weights · in.
#[derive(Debug, Clone)]
pub(super) struct Layer {
    inputs: usize,
    bias: Vec<f32>,
    /// By blocks of rows: for each input the weights of the block's rows.
    weights: Vec<[f32; BLOCK]>,
}

impl Layer {
    /// Of `bias.len()` rows, a multiple of 8; `weight(row, input)` says each weight.
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
        for ((weights, bias), out) in blocks.zip(self.bias.as_chunks::<BLOCK>().0).zip(out.as_chunks_mut::<BLOCK>().0) {
            let mut sums = *bias;
            for (weights, &input) in weights.iter().zip(input) {
                add(&mut sums, weights, input);
            }
            *out = sums;
        }
    }

    /// As [`apply`](Self::apply) to four inputs, each of whose results goes to its own part of `out`, with what is negative made 0.
    /// The weights are read once.
    pub fn apply_relu_to_four(&self, inputs: [&[f32]; 4], out: &mut [f32]) {
        debug_assert!(inputs.iter().all(|input| input.len() == self.inputs) && out.len() == 4 * self.bias.len());
        let [a, b, c, d] = inputs;
        let rows = self.bias.len();
        let blocks = self.weights.chunks_exact(self.inputs).zip(self.bias.as_chunks::<BLOCK>().0);
        for (block, (weights, bias)) in blocks.enumerate() {
            let mut sums = [*bias; 4];
            for ((((weights, &a), &b), &c), &d) in weights.iter().zip(a).zip(b).zip(c).zip(d) {
                for (sums, input) in sums.iter_mut().zip([a, b, c, d]) {
                    add(sums, weights, input);
                }
            }
            for (sums, out) in sums.iter().zip(out.chunks_exact_mut(rows)) {
                for (out, sum) in out[block * BLOCK..][..BLOCK].iter_mut().zip(sums) {
                    *out = sum.max(0.0);
                }
            }
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

#[inline]
fn add(sums: &mut [f32; BLOCK], weights: &[f32; BLOCK], input: f32) {
    for (sum, weight) in sums.iter_mut().zip(weights) {
        *sum += weight * input;
    }
}
