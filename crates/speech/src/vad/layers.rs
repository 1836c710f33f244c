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
        for ((weights, bias), out) in blocks.zip(self.bias.as_chunks::<BLOCK>().0).zip(out.as_chunks_mut::<BLOCK>().0) {
            let mut sums = *bias;
            for (weights, &input) in weights.iter().zip(input) {
                add(&mut sums, weights, input);
            }
            *out = sums;
        }
    }

    /// As [`apply_relu`](Self::apply_relu) to two inputs, each of whose results goes to its own half of `out`. The weights are read
    /// once.
    pub fn apply_relu_to_two(&self, inputs: [&[f32]; 2], out: &mut [f32]) {
        debug_assert!(inputs.iter().all(|input| input.len() == self.inputs) && out.len() == 2 * self.bias.len());
        let (first, second) = out.split_at_mut(self.bias.len());
        let outs = first.as_chunks_mut::<BLOCK>().0.iter_mut().zip(second.as_chunks_mut::<BLOCK>().0);
        let blocks = self.weights.chunks_exact(self.inputs).zip(self.bias.as_chunks::<BLOCK>().0);
        for ((weights, bias), (first, second)) in blocks.zip(outs) {
            let (mut one, mut two) = (*bias, *bias);
            for ((weights, &first), &second) in weights.iter().zip(inputs[0]).zip(inputs[1]) {
                add(&mut one, weights, first);
                add(&mut two, weights, second);
            }
            *first = one.map(|sum| sum.max(0.0));
            *second = two.map(|sum| sum.max(0.0));
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
