//! [`ModelRunner`] and [`StageRunner`] over MLX: a plan in, one graph built and evaluated (or [replayed](crate::replay)), tokens out.

use std::ops::Range;

use mlx_rs::{Stream, with_stream};
use vllm_platform::{
    BlockId, HiddenDtype, MemoryInfo, ModelInfo, ModelRunner, Sampled, StageOutput, StageRunner, StepOutput, StepPlan,
    WorkTime, sampling::Sampler,
};

use crate::{
    Error, Layout, Ops, Result, device,
    kv::KvStore,
    model::CausalLm,
    replay::{Replay, Timings},
};

/// A loaded model with its KV storage. Belongs to the thread that loaded it.
pub struct MlxRunner {
    model: Box<dyn CausalLm>,
    kv: Box<dyn KvStore>,
    ops: Ops,
    replay: Replay,
    info: ModelInfo,
    stream: Stream,
    /// Weights in memory that isn't MLX's.
    in_place_bytes: u64,
    sampler: Sampler,
    /// If it has some of the model's layers only.
    stage: Option<Stage>,
}

/// Which layers a runner has, where they are spread over machines.
#[derive(Debug, Clone)]
pub(crate) struct Stage {
    pub layers: Range<usize>,
    /// Whether the model's last is among them.
    pub last: bool,
    /// Numbers of a token's hidden state.
    pub width: usize,
    pub dtype: HiddenDtype,
}

impl MlxRunner {
    pub(crate) fn new(
        model: Box<dyn CausalLm>,
        kv: Box<dyn KvStore>,
        ops: Ops,
        info: ModelInfo,
        stream: Stream,
        in_place_bytes: u64,
    ) -> Self {
        let replay = Replay::new(&ops);
        Self { model, kv, ops, replay, info, stream, in_place_bytes, sampler: Sampler::default(), stage: None }
    }

    /// Of some layers only.
    pub(crate) fn of_stage(self, stage: Stage) -> Self {
        Self { stage: Some(stage), ..self }
    }

    /// Computes a plan's rows and returns the logits of every one of their tokens, [tokens, vocab] in f32, without
    /// sampling: for evaluation and tests.
    ///
    /// # Errors
    /// As [`ModelRunner::step`].
    pub fn logits(&mut self, plan: &StepPlan<'_>) -> Result<Vec<f32>> {
        let stream = self.stream.clone();
        with_stream(&stream, || {
            let layout = self.lay_out(plan)?.with_all_wanted();
            self.compute(layout, |logits, _| Ok(logits.to_vec()))
        })
    }

    /// Does the plan's copies and lays out its rows. The copies come before anything of this step is in the graph, and
    /// after the last step's evaluation: CPU pools know no other order.
    fn lay_out(&mut self, plan: &StepPlan<'_>) -> Result<Layout> {
        let layout = Layout::new(plan, self.kv.spec())?;
        self.copy(plan)?;
        self.kv.begin_step(&layout);
        Ok(layout)
    }

    /// The logits of the rows wanted, [rows, vocab]; those of the last norm where none is.
    fn compute<T>(&mut self, layout: Layout, read: impl FnOnce(&[f32], &mut Sampler) -> Result<T>) -> Result<T> {
        let Self { model, kv, ops, replay, sampler, .. } = self;
        let wanted = layout.wanted().len();
        let build = |batch: &crate::Batch| {
            let hidden = model.forward(batch, &mut **kv)?;
            match wanted {
                // Nothing to read, but the keys and values must be there for the next step.
                0 => Ok(hidden),
                _ => model.logits(&ops.wanted_rows(hidden, batch)?),
            }
        };
        replay.compute(ops, layout, build, |logits| read(logits, sampler))
    }

    /// Hidden states after the stage's last layer, of all rows: [tokens, width].
    fn hidden(&mut self, layout: Layout) -> Result<Vec<f32>> {
        let Self { model, kv, ops, replay, .. } = self;
        let build = |batch: &crate::Batch| model.forward(batch, &mut **kv);
        replay.compute(ops, layout.with_all_wanted(), build, |hidden| Ok(hidden.to_vec()))
    }

    fn run_stage(&mut self, plan: &StepPlan<'_>, received: Vec<f32>) -> Result<StageOutput> {
        let is_last = self.stage.as_ref().is_none_or(|stage| stage.last);
        if is_last {
            return Ok(StageOutput::Sampled(self.run(plan, received)?));
        }
        if plan.rows.is_empty() {
            self.copy(plan)?;
            return Ok(StageOutput::Hidden(Vec::new()));
        }
        let layout = self.lay_out(plan)?.with_received(received);
        Ok(StageOutput::Hidden(self.hidden(layout)?))
    }

    fn copy(&mut self, plan: &StepPlan<'_>) -> Result<()> {
        plan.copies.iter().try_for_each(|copy| self.kv.copy_block(copy))
    }

    fn run(&mut self, plan: &StepPlan<'_>, received: Vec<f32>) -> Result<StepOutput> {
        if plan.rows.is_empty() && !plan.copies.is_empty() {
            self.copy(plan)?;
            return Ok(StepOutput::default());
        }
        let layout = self.lay_out(plan)?.with_received(received);
        let vocab = self.info.vocab_size;
        let asked = plan.rows.iter().filter_map(|row| row.sample.as_ref().map(|at| (row.seq, at)));
        self.compute(layout, |logits, sampler| {
            let sample = |((seq, at), logits): ((_, _), &[f32])| {
                let draw = sampler.sample(logits, at)?;
                Ok(Sampled { seq, token: draw.token, logprobs: draw.logprobs })
            };
            Ok(StepOutput { sampled: asked.zip(logits.chunks_exact(vocab)).map(sample).collect::<Result<_>>()? })
        })
    }
}

impl ModelRunner for MlxRunner {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        device::memory(self.info.device, self.in_place_bytes + self.kv.unaccounted_bytes())
            .map_err(Error::into_step_error)
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> vllm_platform::Result<StepOutput> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.run(plan, Vec::new())).map_err(Error::into_step_error)
    }

    fn profile(&mut self) -> Vec<WorkTime> {
        self.replay.timings.replace(Timings::default()).map(Timings::into_work).unwrap_or_default()
    }

    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> vllm_platform::Result<Vec<u8>> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.kv.export_block(group, block, tokens)).map_err(Error::into_step_error)
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> vllm_platform::Result<()> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.kv.import_block(group, block, tokens, bytes)).map_err(Error::into_step_error)
    }
}

impl StageRunner for MlxRunner {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn layers(&self) -> Range<usize> {
        self.stage.as_ref().map_or(0..self.model.layers().len(), |stage| stage.layers.clone())
    }

    fn width(&self) -> usize {
        self.stage.as_ref().map_or(0, |stage| stage.width)
    }

    fn hidden_dtype(&self) -> HiddenDtype {
        self.stage.as_ref().map_or(HiddenDtype::F32, |stage| stage.dtype)
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        ModelRunner::memory(self)
    }

    fn step(&mut self, plan: &StepPlan<'_>, hidden: Vec<f32>) -> vllm_platform::Result<StageOutput> {
        let stream = self.stream.clone();
        with_stream(&stream, || self.run_stage(plan, hidden)).map_err(Error::into_step_error)
    }
}
