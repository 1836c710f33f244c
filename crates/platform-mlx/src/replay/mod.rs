//! Steps on the CPU without MLX's graph: built once, recorded, and run again from the record.
//!
//! A decode step is some 250 operations of a few microseconds. To build them as MLX nodes, schedule, allocate and free them costs
//! a third thread's work on machines that have two. So while a graph is built our primitives are noted
//! ([`recording`]); where it consists of nothing else, it becomes a [`Program`]: kernels in a row, over one piece of memory
//! in which values that are never there at once share their place ([`placement`]). MLX evaluates nothing then, and the next
//! step of as many rows runs the same program with other tokens. What differs from step to step reaches the kernels
//! through the [`StepLayout`](crate::batch::StepLayout) that they hold. (CUDA's graph capture is the model for this.)
//!
//! A step with anything else in it (an operation of MLX's own, an array nobody vouched for with
//! [`Ops::constant`](crate::Ops::constant)) is evaluated by MLX.

mod placement;
pub(crate) mod recording;
mod timings;

use std::{collections::HashMap, sync::Arc, time::Instant};

use crate::{
    Batch, Layout, Ops, Result, Tensor,
    batch::StepLayout,
    ffi::program::{Program, Scratch},
};

pub(crate) use timings::Timings;

/// Steps of at most so many rows are kept if all of them are wanted, that is, steps that decode: a program for each number of
/// sequences. What has a prompt's chunk in it is recorded anew, which takes a millisecond.
const KEPT_ROWS: usize = 64;

/// What a program depends on, beside the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    /// Rows of the result.
    wanted: usize,
}

impl Shape {
    fn of(layout: &Layout) -> Self {
        Self { rows: layout.len(), wanted: layout.wanted().len() }
    }
}

struct Kept {
    program: Program,
    layout: StepLayout,
}

/// A model's steps.
pub(crate) struct Replay {
    kept: HashMap<Shape, Kept>,
    scratch: Scratch,
    /// Whether steps can be replayed, as far as is known.
    possible: bool,
    pub timings: Option<Timings>,
}

impl Replay {
    /// Of a model over `ops`. On GPUs nothing is replayed.
    pub fn new(ops: &Ops) -> Self {
        Self { kept: HashMap::new(), scratch: Scratch::default(), possible: ops.threads().is_some(), timings: None }
    }

    /// Computes what `build` gives for a batch, [rows wanted, …] in f32, and hands it to `read`.
    ///
    /// # Errors
    /// `build`'s, a kernel's or MLX's.
    pub fn compute<T>(
        &mut self,
        ops: &Ops,
        layout: Layout,
        build: impl FnOnce(&Batch) -> Result<Tensor>,
        read: impl FnOnce(&[f32]) -> Result<T>,
    ) -> Result<T> {
        let (shape, layout) = (Shape::of(&layout), Arc::new(layout));
        if let Some(kept) = self.kept.get(&shape) {
            kept.layout.set(Arc::clone(&layout));
            return run(&kept.program, &mut self.scratch, &layout, self.timings.as_mut(), read);
        }
        let batch = Batch::new(Arc::clone(&layout));
        if !self.possible {
            return evaluate(&build(&batch)?, read);
        }
        let (result, operations) = recording::record(|| build(&batch))?;
        let given = [&batch.tokens, &batch.positions];
        match recording::compile(operations, &result, &given, |id| ops.is_constant(id)) {
            Ok(program) => {
                drop(result);
                let read = run(&program, &mut self.scratch, &layout, self.timings.as_mut(), read);
                if shape.rows == shape.wanted && shape.rows <= KEPT_ROWS && !batch.was_inspected() {
                    self.kept.insert(shape, Kept { program, layout: batch.at_evaluation() });
                }
                read
            }
            Err(reason) => {
                tracing::info!(reason, "steps are evaluated by MLX's graph");
                self.possible = false;
                evaluate(&result, read)
            }
        }
    }
}

fn run<T>(
    program: &Program,
    scratch: &mut Scratch,
    layout: &Layout,
    mut timings: Option<&mut Timings>,
    read: impl FnOnce(&[f32]) -> Result<T>,
) -> Result<T> {
    let result = program.run(scratch, &layout.given(), timings.as_deref_mut())?;
    let started = Instant::now();
    let read = read(result);
    if let Some(timings) = timings {
        timings.add(c"sampling", started.elapsed());
    }
    read
}

fn evaluate<T>(result: &Tensor, read: impl FnOnce(&[f32]) -> Result<T>) -> Result<T> {
    let result = result.as_dtype(mlx_rs::Dtype::Float32)?.contiguous()?;
    result.eval()?;
    read(result.try_as_slice::<f32>().map_err(|e| crate::Error::Plan(format!("a step's result: {e}")))?)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use mlx_rs::{Stream, with_stream};
    use vllm_kernels_cpu::Pool;
    use vllm_platform::{KvCacheSpec, KvDtype, KvGroup, Row, SampleAt, SamplingParams, SeqId, StepPlan};

    use super::*;
    use crate::Matrix;

    /// Sequences of one token each, all of which sample.
    fn layout(tokens: &[u32]) -> Layout {
        let group = KvGroup { window: None, num_blocks: 1, block_bytes: 0 };
        let spec = KvCacheSpec { block_size: 16, dtype: KvDtype::F32, groups: vec![group], rewind: None };
        let (params, tables) = (SamplingParams::default(), [vec![0]]);
        let sample = || Some(SampleAt { params: &params, prompt: &[], output: &[], processors: &[] });
        let row = |token| Row { seq: SeqId(0), tokens: token, start: 3, tables: &tables, media: &[], sample: sample() };
        Layout::new(&StepPlan { rows: tokens.chunks(1).map(row).collect(), ..StepPlan::default() }, &spec).unwrap()
    }

    /// Two steps of one shape that embed tokens and then do something; how often the graph was built, and the second result.
    fn two_steps(then: impl Fn(&Ops, &Batch, Tensor) -> Result<Tensor>) -> (u32, Vec<f32>) {
        let stream = Stream::cpu();
        let ops = Ops::cpu(Arc::new(Pool::new(1)), stream.clone());
        let rows = Matrix::Dense(Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0, 5.0, 6.0], &[3, 2]));
        rows.arrays().for_each(|array| ops.constant(array));
        let (mut replay, built) = (Replay::new(&ops), Cell::new(0));
        let mut step = |tokens: &[u32]| {
            let build = |batch: &Batch| {
                built.set(built.get() + 1);
                then(&ops, batch, ops.embed(&batch.tokens, &rows)?)
            };
            with_stream(&stream, || replay.compute(&ops, layout(tokens), build, |result| Ok(result.to_vec())))
        };
        step(&[0, 1]).unwrap();
        let second = step(&[2, 0]).unwrap();
        (built.get(), second)
    }

    #[test]
    fn a_step_of_the_same_shape_is_not_built_again() {
        assert_eq!(two_steps(|ops, _, x| ops.add(&x, &x)), (1, vec![10.0, 12.0, 2.0, 4.0]));
    }

    #[test]
    fn what_changes_from_step_to_step_is_built_again() {
        let wanted = (2, vec![10.0, 12.0, 2.0, 4.0]);
        assert_eq!(two_steps(|_, _, x| Ok(x.add(&x)?)), wanted, "an operation of MLX's");
        let unvouched = |ops: &Ops, _: &Batch, x: Tensor| {
            let table = Tensor::from_slice(&[1f32, 1.0], &[2]);
            ops.add(&ops.add(&x, &x)?, &ops.add(&ops.rms_norm(&x, &table, 0.0)?, &ops.rms_norm(&x, &table, 0.0)?)?)
        };
        assert_eq!(two_steps(unvouched).0, 2, "an array that nobody vouched for");
        let looked = |ops: &Ops, batch: &Batch, x: Tensor| {
            assert_eq!(batch.layout().positions, [3, 3]);
            ops.add(&x, &x)
        };
        assert_eq!(two_steps(looked), wanted, "the layout");
    }

    #[test]
    fn a_kernel_that_fails_is_named_and_the_next_step_runs() {
        let stream = Stream::cpu();
        let ops = Ops::cpu(Arc::new(Pool::new(1)), stream.clone());
        let rows = Matrix::Dense(Tensor::from_slice(&[1f32, 2.0, 3.0, 4.0], &[2, 2]));
        rows.arrays().for_each(|array| ops.constant(array));
        let mut replay = Replay::new(&ops);
        let mut step = |token| {
            let build = |batch: &Batch| ops.embed(&batch.tokens, &rows);
            with_stream(&stream, || replay.compute(&ops, layout(&[token]), build, |result| Ok(result.to_vec())))
        };
        assert_eq!(step(1).unwrap(), [3.0, 4.0]);
        assert!(step(7).unwrap_err().to_string().contains("[embed] token 7"));
        assert_eq!(step(0).unwrap(), [1.0, 2.0]);
    }
}
