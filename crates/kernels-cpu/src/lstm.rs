//! Long short-term memory (Hochreiter & Schmidhuber, 1997, doi:10.1162/neco.1997.9.8.1735), in one direction or both.

use crate::{
    DenseMatrix, Pool, SharedMut, matmul,
    simd::{
        Simd,
        kernel::{Kernel, run},
        math,
    },
    with_scratch,
};

/// Weights of one direction. Rows are those of the input gate, the forget gate, the cell and the output gate, `hidden` each, as
/// in PyTorch.
#[derive(Clone, Copy)]
pub struct LstmDirection<'a> {
    /// [4 · hidden, inputs]
    pub input: DenseMatrix<'a>,
    /// [4 · hidden, hidden]
    pub hidden: DenseMatrix<'a>,
    /// `[4 · hidden]`: the sum of both biases, if a file has two.
    pub bias: &'a [f32],
}

/// `x` `[frames, inputs]` → `y` `[frames, directions · hidden]`: the first direction goes forward, the second backward. States
/// begin with zeros.
///
/// What depends on the input alone is one matmul for all frames; then the directions go side by side, each on one thread.
///
/// # Panics
/// If there are no directions or more than two, or a shape doesn't fit.
pub fn lstm(pool: &Pool, x: &[f32], directions: &[LstmDirection<'_>], y: &mut [f32]) {
    assert!((1..=2).contains(&directions.len()), "an LSTM of {} directions", directions.len());
    let (inputs, hidden) = (directions[0].input.cols(), directions[0].hidden.cols());
    for way in directions {
        assert_eq!([way.input.rows(), way.input.cols()], [4 * hidden, inputs], "lstm: weights of the input");
        assert_eq!([way.hidden.rows(), way.hidden.cols()], [4 * hidden, hidden], "lstm: weights of the state");
        assert_eq!(way.bias.len(), 4 * hidden, "lstm: a bias");
    }
    assert!(inputs > 0 && x.len().is_multiple_of(inputs), "lstm: {} numbers are not frames of {inputs}", x.len());
    let (frames, width) = (x.len() / inputs, directions.len() * hidden);
    assert_eq!(y.len(), frames * width, "lstm: y of [{frames}, {width}]");
    if y.is_empty() {
        return;
    }
    with_scratch(directions.len() * frames * 4 * hidden, |gates| {
        for (way, gates) in directions.iter().zip(gates.chunks_exact_mut(frames * 4 * hidden)) {
            matmul(pool, x, &way.input, gates);
        }
        let y = SharedMut::new(y);
        pool.run_chunks(gates, frames * 4 * hidden, |first, gates| {
            let number = first / (frames * 4 * hidden);
            recur(pool, &directions[number], gates, hidden, |step| {
                let frame = if number == 0 { step } else { frames - 1 - step };
                let start = frame * width + number * hidden;
                // SAFETY: a direction has columns of its own, and takes one frame at a time.
                (frame, unsafe { y.slice(start..start + hidden) })
            });
        });
    });
}

/// Goes through all frames; `place` tells for each step which frame it is and where its state is to go.
fn recur<'a>(
    pool: &Pool,
    way: &LstmDirection<'_>,
    gates: &mut [f32],
    hidden: usize,
    place: impl Fn(usize) -> (usize, &'a mut [f32]),
) {
    with_scratch(6 * hidden, |room| {
        let (state, rest) = room.split_at_mut(hidden);
        let (cell, from_state) = rest.split_at_mut(hidden);
        state.fill(0.0);
        cell.fill(0.0);
        for step in 0..gates.len() / (4 * hidden) {
            // On this thread: a task's own jobs are not shared.
            matmul(pool, state, &way.hidden, from_state);
            let (frame, y) = place(step);
            let gates = &gates[frame * 4 * hidden..][..4 * hidden];
            run(pool, Step { gates, from_state, bias: way.bias, cell, state });
            y.copy_from_slice(state);
        }
    });
}

/// One frame: the cell and the state by the sums of what comes from the input, from the state before, and the bias.
struct Step<'a> {
    gates: &'a [f32],
    from_state: &'a [f32],
    bias: &'a [f32],
    cell: &'a mut [f32],
    state: &'a mut [f32],
}

impl Kernel for Step<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { gates, from_state, bias, cell, state } = self;
        let hidden = state.len();
        for i in (0..hidden).step_by(S::LANES) {
            let lanes = S::LANES.min(hidden - i);
            // SAFETY: `lanes` numbers from i on are in the cell and the state, and in each of the four parts of the others.
            unsafe {
                let gate = |part: usize| {
                    let at = part * hidden + i;
                    let both = S::add(
                        S::load_first(gates.as_ptr().add(at), lanes),
                        S::load_first(from_state.as_ptr().add(at), lanes),
                    );
                    S::add(both, S::load_first(bias.as_ptr().add(at), lanes))
                };
                let kept = S::mul(math::sigmoid::<S>(gate(1)), S::load_first(cell.as_ptr().add(i), lanes));
                let new = S::mul(math::sigmoid::<S>(gate(0)), math::tanh::<S>(gate(2)));
                let c = S::add(kept, new);
                S::store_first(cell.as_mut_ptr().add(i), c, lanes);
                let h = S::mul(math::sigmoid::<S>(gate(3)), math::tanh::<S>(c));
                S::store_first(state.as_mut_ptr().add(i), h, lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    /// By the definition, in f64; `backward` from the last frame to the first.
    fn reference(x: &[f32], [inputs, hidden]: [usize; 2], w: &[Vec<f32>; 3], backward: bool) -> Vec<Vec<f64>> {
        let frames: Vec<&[f32]> = x.chunks_exact(inputs).collect();
        let sigmoid = |v: f64| 1.0 / (1.0 + (-v).exp());
        let (mut state, mut cell) = (vec![0.0f64; hidden], vec![0.0f64; hidden]);
        let mut y = vec![vec![]; frames.len()];
        for step in 0..frames.len() {
            let at = if backward { frames.len() - 1 - step } else { step };
            let gate = |row: usize| {
                let from_input: f64 =
                    (0..inputs).map(|c| f64::from(w[0][row * inputs + c]) * f64::from(frames[at][c])).sum();
                let from_state: f64 = (0..hidden).map(|c| f64::from(w[1][row * hidden + c]) * state[c]).sum();
                from_input + from_state + f64::from(w[2][row])
            };
            let gates: Vec<f64> = (0..4 * hidden).map(gate).collect();
            for i in 0..hidden {
                cell[i] = sigmoid(gates[hidden + i]) * cell[i] + sigmoid(gates[i]) * gates[2 * hidden + i].tanh();
                state[i] = sigmoid(gates[3 * hidden + i]) * cell[i].tanh();
            }
            y[at].clone_from(&state);
        }
        y
    }

    #[test]
    fn both_directions_match_f64() {
        for [frames, inputs, hidden] in [[1, 3, 2], [7, 20, 16], [60, 33, 37]] {
            let x = random(frames * inputs, 1);
            let scaled = |n: usize, seed: u64| random(n, seed).iter().map(|v| 0.5 * v).collect::<Vec<_>>();
            let weights: [[Vec<f32>; 3]; 2] = std::array::from_fn(|way| {
                let seed = 10 * way as u64;
                [
                    scaled(4 * hidden * inputs, seed + 2),
                    scaled(4 * hidden * hidden, seed + 3),
                    scaled(4 * hidden, seed + 4),
                ]
            });
            let ways = weights.each_ref().map(|w| LstmDirection {
                input: DenseMatrix::new(&*w[0], [4 * hidden, inputs]).unwrap(),
                hidden: DenseMatrix::new(&*w[1], [4 * hidden, hidden]).unwrap(),
                bias: &w[2],
            });
            let wanted = [false, true].map(|way| reference(&x, [inputs, hidden], &weights[usize::from(way)], way));
            for pool in every_isa() {
                for count in [1, 2] {
                    let mut y = vec![f32::NAN; frames * count * hidden];
                    lstm(&pool, &x, &ways[..count], &mut y);
                    let wanted = (0..frames).flat_map(|t| wanted[..count].iter().flat_map(move |way| way[t].clone()));
                    let what = format!("{:?}, {frames} frames, {count} directions", pool.isa());
                    assert_close(&y, wanted, 1e-5, what);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "y of [2, 4]")]
    fn a_short_result_is_refused() {
        let w = [0.0; 16];
        let way = LstmDirection {
            input: DenseMatrix::new(&w[..], [8, 2]).unwrap(),
            hidden: DenseMatrix::new(&w[..], [8, 2]).unwrap(),
            bias: &w[..8],
        };
        lstm(&Pool::new(1), &[0.0; 4], &[way, way], &mut [0.0; 7]);
    }
}
