//! Mixtures of experts: each token goes through a few of many gated MLPs, and gets their weighted sum
//! (Shazeer et al., arXiv:1701.06538; gated experts as in Mixtral, arXiv:2401.04088).
//!
//! Rows are sorted by expert, so that an expert's weights are read once for all of its tokens. Four jobs of the pool: gather,
//! gate and up and activation, down, sum. A task is a range of one expert's weights; an expert with more tokens gets
//! more of them. A token's result depends on the token and its experts alone: threads and batch mates change no bit, since they
//! don't in the matmuls underneath, and experts are added in the order in which the token names them.

use std::ops::Range;

use crate::{
    Activation, DenseMatrix, Pool, QuantMatrix, SharedMut,
    activation::gated,
    gemm::matmul,
    qmm::{Linear, PackedMatrix, packed_matmul, quantized_matmul},
    rows::for_rows,
    softmax::softmax,
    with_scratch,
};

/// Rows of weights that ranges begin and end at: whole panels, and whole tiles, of every kernel.
const RANGE: usize = 48;
/// Tokens that reading an expert's weights takes as long as computing with them.
const READING: usize = 8;

/// The same matrix of each expert: `[outputs, inputs]`, in any format.
pub trait Experts: Sync {
    /// How many experts there are.
    fn count(&self) -> usize;
    /// Outputs and inputs of one.
    fn shape(&self) -> [usize; 2];
    /// `y = x · wᵀ` with the rows `range` of expert `expert`: `x` `[m, inputs]`, `y` `[m, range.len()]`. Ranges begin at
    /// multiples of 48; the bits of a row of `y` must depend on neither the range nor the other rows. Called inside a
    /// task of `pool`.
    fn matmul(&self, pool: &Pool, expert: usize, range: Range<usize>, x: &[f32], y: &mut [f32]);
}

/// Experts' matrices one below the other in a single one, as MLX's checkpoints stack them.
#[derive(Clone, Copy, Debug)]
pub struct Stacked<M> {
    matrix: M,
    count: usize,
}

impl<M> Stacked<M> {
    /// `matrix` is `[count · outputs, inputs]`.
    pub fn new(matrix: M, count: usize) -> Self {
        Self { matrix, count }
    }
}

/// A matrix of which a range of rows can be multiplied with.
pub trait RowRanges: Sync {
    /// Rows and columns.
    fn shape(&self) -> [usize; 2];
    /// `y = x · wᵀ` with the rows `rows`: `x` `[m, columns]`, `y` `[m, rows.len()]`.
    fn matmul(&self, pool: &Pool, rows: Range<usize>, x: &[f32], y: &mut [f32]);
}

impl RowRanges for DenseMatrix<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn matmul(&self, pool: &Pool, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
        matmul(pool, x, &self.row_range(rows), y);
    }
}

impl RowRanges for QuantMatrix<'_> {
    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    fn matmul(&self, pool: &Pool, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
        quantized_matmul(pool, x, &self.row_range(rows), y);
    }
}

impl RowRanges for &PackedMatrix {
    fn shape(&self) -> [usize; 2] {
        [self.rows(), self.cols()]
    }

    /// # Panics
    /// If `rows` doesn't begin with a panel: outputs of stacked experts must be a multiple of 16.
    fn matmul(&self, pool: &Pool, rows: Range<usize>, x: &[f32], y: &mut [f32]) {
        packed_matmul(pool, x, &[Linear::plain(&self.row_range(rows))], &mut [y]);
    }
}

impl<M: RowRanges> Experts for Stacked<M> {
    fn count(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 2] {
        let [rows, columns] = self.matrix.shape();
        [rows / self.count, columns]
    }

    fn matmul(&self, pool: &Pool, expert: usize, range: Range<usize>, x: &[f32], y: &mut [f32]) {
        let first = expert * self.shape()[0];
        self.matrix.matmul(pool, first + range.start..first + range.end, x, y);
    }
}

/// A layer's experts: `down(activation(gate(x)) · up(x))` each.
#[derive(Clone, Copy)]
pub struct ExpertMlp<'a> {
    /// `[inner, hidden]` each.
    pub gate: &'a dyn Experts,
    /// `[inner, hidden]` each.
    pub up: &'a dyn Experts,
    /// `[hidden, inner]` each.
    pub down: &'a dyn Experts,
    /// Of the gate.
    pub activation: Activation,
}

/// Which tokens go to which expert: pairs of a token and one of its experts, sorted by expert.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Routes {
    per_token: usize,
    /// The pairs `token · per_token + i`, by expert, and in this order within an expert.
    pairs: Vec<u32>,
    /// Where in `pairs` each pair stands.
    places: Vec<u32>,
    /// Where in `pairs` each expert's begin; and the end.
    starts: Vec<usize>,
}

impl Routes {
    /// `experts` is `[tokens, per_token]`, numbers below `count`.
    ///
    /// # Panics
    /// If a number is not below `count`, or `experts` not whole tokens.
    pub fn new(experts: &[u32], per_token: usize, count: usize) -> Self {
        assert!(
            experts.is_empty() || per_token > 0 && experts.len().is_multiple_of(per_token),
            "{} experts are not {per_token} for each token",
            experts.len()
        );
        let mut starts = vec![0; count + 1];
        for &expert in experts {
            assert!((expert as usize) < count, "expert {expert} of {count}");
            starts[expert as usize + 1] += 1;
        }
        for expert in 0..count {
            starts[expert + 1] += starts[expert];
        }
        let mut next = starts.clone();
        let (mut pairs, mut places) = (vec![0; experts.len()], vec![0; experts.len()]);
        for (pair, &expert) in experts.iter().enumerate() {
            let place = &mut next[expert as usize];
            (pairs[*place], places[pair]) = (pair as u32, *place as u32);
            *place += 1;
        }
        Self { per_token, pairs, places, starts }
    }

    /// Tasks over the `outputs` rows of weights of the experts that have tokens: pieces of about equal work.
    fn tasks(&self, outputs: usize, threads: usize) -> Vec<Task> {
        let cost = |rows: &Range<usize>| rows.len() + READING;
        let busy = || self.starts.windows(2).map(|w| w[0]..w[1]).enumerate().filter(|(_, rows)| !rows.is_empty());
        let total: usize = busy().map(|(_, rows)| cost(&rows)).sum();
        let mut tasks = Vec::new();
        for (expert, rows) in busy() {
            let parts = (cost(&rows) * threads * 8).div_ceil(total).clamp(1, outputs.div_ceil(RANGE).max(1));
            let step = outputs.div_ceil(parts).next_multiple_of(RANGE);
            let range = |first| first..outputs.min(first + step);
            tasks.extend((0..outputs).step_by(step).map(|first| Task {
                expert,
                rows: rows.clone(),
                range: range(first),
            }));
        }
        tasks
    }
}

/// The router's choice: of each row of `logits`, `[tokens, count]`, the `per_token` most probable experts by softmax, the
/// most probable first and of equals the one with the lower number, and their probabilities; these sum to 1 if `normalize`, and
/// are the softmax's as they are if not. Both results are `[tokens, per_token]`.
///
/// # Panics
/// If `logits` is not whole rows, or `per_token` not in `1..=count`.
pub fn route(pool: &Pool, logits: &[f32], count: usize, per_token: usize, normalize: bool) -> (Vec<u32>, Vec<f32>) {
    assert!((1..=count).contains(&per_token), "{per_token} of {count} experts");
    let tokens = logits.len() / count;
    let (mut experts, mut weights) = (Vec::with_capacity(tokens * per_token), Vec::with_capacity(tokens * per_token));
    with_scratch(logits.len(), |probabilities| {
        softmax(pool, logits, count, probabilities);
        let mut order: Vec<u32> = Vec::with_capacity(count);
        for row in probabilities.chunks_exact(count) {
            order.clear();
            order.extend(0..count as u32);
            // Negated, so that the total order's first are the largest; NaN comes first or last, and shows either way.
            let by_size = |&e: &u32| -row[e as usize];
            let before = |a: &u32, b: &u32| by_size(a).total_cmp(&by_size(b)).then(a.cmp(b));
            if per_token < count {
                order.select_nth_unstable_by(per_token - 1, before);
            }
            let chosen = &mut order[..per_token];
            chosen.sort_unstable_by(before);
            let sum: f32 = chosen.iter().map(|&e| row[e as usize]).sum();
            let scale = if normalize { 1.0 / sum } else { 1.0 };
            weights.extend(chosen.iter().map(|&e| scale * row[e as usize]));
            experts.extend_from_slice(chosen);
        }
    });
    (experts, weights)
}

/// The outputs `range` of an expert, for the sorted rows `rows`.
struct Task {
    expert: usize,
    rows: Range<usize>,
    range: Range<usize>,
}

/// `y[t] = Σᵢ weights[t, i] · expert(t, i)(x[t])`: `x` and `y` are `[tokens, hidden]`, `weights` `[tokens, per_token]`.
///
/// # Panics
/// If shapes don't fit together.
pub fn moe(pool: &Pool, mlp: ExpertMlp<'_>, x: &[f32], routes: &Routes, weights: &[f32], y: &mut [f32]) {
    let ([inner, hidden], per_token, pairs) = (mlp.gate.shape(), routes.per_token, routes.pairs.len());
    assert_eq!(mlp.up.shape(), [inner, hidden], "moe: up beside a gate of [{inner}, {hidden}]");
    assert_eq!(mlp.down.shape(), [hidden, inner], "moe: down after a gate of [{inner}, {hidden}]");
    let counts = [mlp.gate.count(), mlp.up.count(), mlp.down.count()];
    assert_eq!(counts, [routes.starts.len() - 1; 3], "moe: experts of gate, up and down");
    assert_eq!(weights.len(), pairs, "moe: weights for {pairs} pairs of token and expert");
    assert!(x.len() == y.len() && x.len() * per_token == pairs * hidden, "moe: x {}, y {}", x.len(), y.len());
    if pairs == 0 || hidden == 0 {
        return;
    }
    with_scratch(pairs * (2 * hidden + inner), |room| {
        let (sorted, rest) = room.split_at_mut(pairs * hidden);
        let (results, gates) = rest.split_at_mut(pairs * hidden);
        let shared = SharedMut::new(sorted);
        for_rows(pool, pairs, hidden, |range| {
            for place in range {
                let token = routes.pairs[place] as usize / per_token;
                // SAFETY: each row is visited once.
                let row = unsafe { shared.slice(place * hidden..(place + 1) * hidden) };
                row.copy_from_slice(&x[token * hidden..(token + 1) * hidden]);
            }
        });
        by_expert(pool, routes, inner, gates, |task, out| {
            let x = &sorted[task.rows.start * hidden..task.rows.end * hidden];
            with_scratch(2 * out.len(), |room| {
                let (gate, up) = room.split_at_mut(out.len());
                mlp.gate.matmul(pool, task.expert, task.range.clone(), x, gate);
                mlp.up.matmul(pool, task.expert, task.range.clone(), x, up);
                gated(pool, mlp.activation, gate, up, out);
            });
        });
        by_expert(pool, routes, hidden, results, |task, out| {
            let x = &gates[task.rows.start * inner..task.rows.end * inner];
            mlp.down.matmul(pool, task.expert, task.range.clone(), x, out);
        });
        let y = SharedMut::new(y);
        for_rows(pool, pairs / per_token, hidden * per_token, |tokens| {
            for token in tokens {
                // SAFETY: each token is visited once.
                let y = unsafe { y.slice(token * hidden..(token + 1) * hidden) };
                y.fill(0.0);
                let pairs = token * per_token..(token + 1) * per_token;
                for (&place, weight) in routes.places[pairs.clone()].iter().zip(&weights[pairs]) {
                    let place = place as usize;
                    let result = &results[place * hidden..(place + 1) * hidden];
                    y.iter_mut().zip(result).for_each(|(y, r)| *y += weight * r);
                }
            }
        });
    });
}

/// Fills `y` `[pairs, outputs]`: `body` gives each task's part, `[rows, range]`.
fn by_expert(pool: &Pool, routes: &Routes, outputs: usize, y: &mut [f32], body: impl Fn(&Task, &mut [f32]) + Sync) {
    let tasks = routes.tasks(outputs, pool.threads());
    let y = SharedMut::new(y);
    pool.run(tasks.len(), |task| {
        let task = &tasks[task];
        let width = task.range.len();
        with_scratch(task.rows.len() * width, |part| {
            body(task, part);
            for (row, part) in task.rows.clone().zip(part.chunks_exact(width)) {
                let first = row * outputs + task.range.start;
                // SAFETY: tasks differ in rows or in the range of outputs.
                unsafe { y.slice(first..first + width) }.copy_from_slice(part);
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Floats, WeightArena,
        testing::{assert_close, every_isa, random},
    };

    #[test]
    fn routes_are_sorted_and_stable() {
        let routes = Routes::new(&[2, 0, 2, 1, 0, 2], 2, 4);
        assert_eq!(routes.pairs, [1, 4, 3, 0, 2, 5]);
        assert_eq!(routes.starts, [0, 2, 3, 6, 6]);
        for (place, &pair) in routes.pairs.iter().enumerate() {
            assert_eq!(routes.places[pair as usize], place as u32);
        }
    }

    #[test]
    #[should_panic(expected = "expert 4 of 4")]
    fn an_expert_beyond_the_last_is_refused() {
        Routes::new(&[4], 1, 4);
    }

    #[test]
    fn the_most_probable_experts_are_chosen() {
        let pool = Pool::new(1);
        let logits = [1.0, 3.0, 3.0, 0.0, -1.0, 5.0, 2.0, 2.0];
        let (experts, weights) = route(&pool, &logits, 4, 2, false);
        assert_eq!(experts, [1, 2, 1, 2]);
        let sums = [0, 4].map(|at| logits[at..at + 4].iter().map(|&l| f64::from(l).exp()).sum::<f64>());
        let e = |i: usize| f64::from(logits[i]).exp() / sums[i / 4];
        assert_close(&weights, [1, 2, 5, 6].map(e), 1e-6, "softmax");
        let (_, weights) = route(&pool, &logits, 4, 2, true);
        let normalized = [(1, 2), (2, 1), (5, 6), (6, 5)].map(|(i, other)| e(i) / (e(i) + e(other)));
        assert_close(&weights, normalized, 1e-6, "normalized");
        assert_eq!(route(&pool, &logits, 4, 4, false).0, [1, 2, 0, 3, 1, 2, 3, 0]);
    }

    /// Every output of every busy expert is in one task.
    #[test]
    fn tasks_cover_the_work_once() {
        let experts: Vec<u32> = (0..300).map(|i| if i % 3 == 0 { 1 } else { i * 7 % 5 }).collect();
        let routes = Routes::new(&experts, 3, 6);
        for outputs in [1, 47, 48, 49, 768, 1000] {
            let mut seen = vec![0; experts.len() * outputs];
            for task in routes.tasks(outputs, 4) {
                assert!(task.range.start % RANGE == 0);
                for row in task.rows.clone() {
                    assert_eq!(experts[routes.pairs[row] as usize], task.expert as u32);
                    seen[row * outputs..][task.range.clone()].iter_mut().for_each(|n| *n += 1);
                }
            }
            assert!(seen.iter().all(|&n| n == 1), "{outputs} outputs");
        }
    }

    const COUNT: usize = 5;
    const HIDDEN: usize = 64;
    const INNER: usize = 96;
    const PER_TOKEN: usize = 2;

    /// Experts 0 to 3 in turn and at random; expert 4 never.
    fn experts(tokens: usize) -> Vec<u32> {
        let first = |t: usize| (t * t + t / 3) as u32 % 4;
        (0..tokens).flat_map(|t| [first(t), (first(t) + 1 + t as u32 % 3) % 4]).collect()
    }

    fn reference(
        x: &[f32],
        [gate, up, down]: [&dyn Fn(usize) -> f64; 3],
        experts: &[u32],
        weights: &[f32],
    ) -> Vec<f64> {
        let mut y = vec![0.0; x.len()];
        for (pair, (&expert, &weight)) in experts.iter().zip(weights).enumerate() {
            let (token, expert) = (pair / PER_TOKEN, expert as usize);
            let x = &x[token * HIDDEN..(token + 1) * HIDDEN];
            let dot = |w: &dyn Fn(usize) -> f64, o: usize| -> f64 {
                (0..HIDDEN).map(|i| f64::from(x[i]) * w((expert * INNER + o) * HIDDEN + i)).sum()
            };
            let inner: Vec<f64> = (0..INNER)
                .map(|o| {
                    let gate = dot(gate, o);
                    gate / (1.0 + (-gate).exp()) * dot(up, o)
                })
                .collect();
            for o in 0..HIDDEN {
                let sum: f64 = (0..INNER).map(|i| inner[i] * down((expert * HIDDEN + o) * INNER + i)).sum();
                y[token * HIDDEN + o] += f64::from(weight) * sum;
            }
        }
        y
    }

    #[test]
    fn dense_experts_match_f64_and_tokens_do_not_meet() {
        let tokens = 70;
        let size = COUNT * INNER * HIDDEN;
        let (gate, up, down) = (random(size, 1), random(size, 2), random(size, 3));
        let (x, weights) = (random(tokens * HIDDEN, 4), random(tokens * PER_TOKEN, 5));
        let experts = experts(tokens);
        let at = |w: &[f32], i: usize| f64::from(w[i]);
        let wanted = reference(&x, [&|i| at(&gate, i), &|i| at(&up, i), &|i| at(&down, i)], &experts, &weights);
        let stacked = |w, shape| Stacked::new(DenseMatrix::new(Floats::F32(w), shape).unwrap(), COUNT);
        let (gate, up) = (stacked(&gate, [COUNT * INNER, HIDDEN]), stacked(&up, [COUNT * INNER, HIDDEN]));
        let down = stacked(&down, [COUNT * HIDDEN, INNER]);
        let mlp = ExpertMlp { gate: &gate, up: &up, down: &down, activation: Activation::Silu };
        for pool in every_isa() {
            let run = |range: Range<usize>| {
                let (tokens, pairs) = (range.start * HIDDEN..range.end * HIDDEN, range.start * 2..range.end * 2);
                let mut y = vec![f32::NAN; range.len() * HIDDEN];
                let routes = Routes::new(&experts[pairs.clone()], PER_TOKEN, COUNT);
                moe(&pool, mlp, &x[tokens], &routes, &weights[pairs], &mut y);
                y
            };
            let all = run(0..tokens);
            assert_close(&all, wanted.iter().copied(), 1e-4, format_args!("{:?}", pool.isa()));
            for token in [0, 33, 69] {
                assert_eq!(run(token..token + 1), all[token * HIDDEN..(token + 1) * HIDDEN], "{:?}", pool.isa());
            }
        }
    }

    #[test]
    fn quantized_experts_match_their_dequantized_selves() {
        let tokens = 9;
        let size = COUNT * INNER * HIDDEN;
        let words = |seed| -> Vec<u32> { random(size / 8, seed).iter().map(|v| (v * 2e9) as i32 as u32).collect() };
        let packed = [words(1), words(2), words(3)];
        let (scales, biases) = (vec![0.02f32; size / 32], vec![-0.15f32; size / 32]);
        let shapes = [[COUNT * INNER, HIDDEN], [COUNT * INNER, HIDDEN], [COUNT * HIDDEN, INNER]];
        let quantized: Vec<_> = (0..3)
            .map(|i| {
                let (scales, biases) = (Floats::F32(&scales), Floats::F32(&biases));
                QuantMatrix::affine(&packed[i], scales, biases, shapes[i], 4, 32).unwrap()
            })
            .collect();
        let matrices: Vec<_> = quantized.iter().map(|w| Stacked::new(*w, COUNT)).collect();
        let element = |w: &[u32], i: usize| 0.02 * f64::from(w[i / 8] >> (4 * (i % 8)) & 15) - 0.15;
        let (x, weights) = (random(tokens * HIDDEN, 4), random(tokens * PER_TOKEN, 5));
        let experts = experts(tokens);
        let wanted = reference(
            &x,
            [&|j| element(&packed[0], j), &|j| element(&packed[1], j), &|j| element(&packed[2], j)],
            &experts,
            &weights,
        );
        let mlp = ExpertMlp { gate: &matrices[0], up: &matrices[1], down: &matrices[2], activation: Activation::Silu };
        let routes = Routes::new(&experts, PER_TOKEN, COUNT);
        for pool in every_isa() {
            let mut y = vec![f32::NAN; x.len()];
            moe(&pool, mlp, &x, &routes, &weights, &mut y);
            assert_close(&y, wanted.iter().copied(), 1e-3, format_args!("{:?}", pool.isa()));
            let arena = WeightArena::new();
            let packed: Option<Vec<_>> = quantized.iter().map(|w| PackedMatrix::pack(&pool, &arena, w)).collect();
            // Not every instruction set has integer kernels.
            if let Some(packed) = packed {
                let stacked: Vec<_> = packed.iter().map(|w| Stacked::new(w, COUNT)).collect();
                let [gate, up, down]: [&dyn Experts; 3] = [&stacked[0], &stacked[1], &stacked[2]];
                y.fill(f32::NAN);
                moe(&pool, ExpertMlp { gate, up, down, ..mlp }, &x, &routes, &weights, &mut y);
                assert_close(&y, wanted.iter().copied(), 2e-3, format_args!("packed, {:?}", pool.isa()));
            }
        }
    }
}
