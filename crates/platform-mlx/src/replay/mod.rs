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

/// Steps of at most so many rows are kept: those that decode. A prompt's chunk is recorded anew, which takes a millisecond.
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
                if shape.rows <= KEPT_ROWS && !batch.was_inspected() {
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
