//! [`ModelRunner`] over MLX: a plan in, one graph built and evaluated, tokens out.

use mlx_rs::{Stream, ops::indexing::take_axis, with_stream};
use vllm_platform::{BlockId, MemoryInfo, ModelInfo, ModelRunner, Sampled, StepOutput, StepPlan, sampling::Sampler};

use crate::{Batch, Error, Result, Tensor, batch::dim, device, kv::KvStore, model::CausalLm};

/// A loaded model with its KV storage. Belongs to the thread that loaded it.
pub struct MlxRunner {
    model: Box<dyn CausalLm>,
    kv: Box<dyn KvStore>,
    info: ModelInfo,
    stream: Stream,
    /// Weights in memory that isn't MLX's.
    in_place_bytes: u64,
    sampler: Sampler,
}

impl MlxRunner {
    pub(crate) fn new(
        model: Box<dyn CausalLm>,
        kv: Box<dyn KvStore>,
        info: ModelInfo,
        stream: Stream,
        in_place_bytes: u64,
    ) -> Self {
        Self { model, kv, info, stream, in_place_bytes, sampler: Sampler::default() }
    }

    /// Computes a plan's rows and returns the logits of every one of their tokens, [tokens, vocab] in f32, without
    /// sampling: for evaluation and tests.
    ///
    /// # Errors
    /// As [`ModelRunner::step`].
    pub fn logits(&mut self, plan: &StepPlan<'_>) -> Result<Vec<f32>> {
        let stream = self.stream.clone();
        with_stream(&stream, || {
            let batch = self.batch(plan)?;
            let hidden = self.model.forward(&batch, &mut *self.kv)?;
            let logits = self.model.logits(&hidden)?.as_dtype(mlx_rs::Dtype::Float32)?.contiguous()?;
            logits.eval()?;
            Ok(logits.as_slice::<f32>().to_vec())
        })
    }

    /// Does the plan's copies and lays out its rows. The copies come before anything of this step is in the graph, and
    /// after the last step's evaluation: CPU pools know no other order.
    fn batch(&mut self, plan: &StepPlan<'_>) -> Result<Batch> {
        let batch = Batch::new(plan, self.kv.spec())?;
        self.copy(plan)?;
        Ok(batch)
    }

    fn copy(&mut self, plan: &StepPlan<'_>) -> Result<()> {
        plan.copies.iter().try_for_each(|copy| self.kv.copy_block(copy))
    }

    fn run(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        if plan.rows.is_empty() && !plan.copies.is_empty() {
            self.copy(plan)?;
            return Ok(StepOutput::default());
        }
        let batch = self.batch(plan)?;
        let hidden = self.model.forward(&batch, &mut *self.kv)?;
        let last: Vec<i32> = plan
            .rows
            .iter()
            .zip(batch.layout.spans())
            .filter(|(row, _)| row.sample.is_some())
            .map(|(_, span)| dim(span.first + span.len - 1))
            .collect();
        if last.is_empty() {
            // Nothing to read, but the keys and values must be there for the next step.
            hidden.eval()?;
            return Ok(StepOutput::default());
        }
        let rows = if last.len() == batch.len() {
            hidden
        } else {
            take_axis(&hidden, Tensor::from_slice(&last, &[dim(last.len())]), 0)?
        };
        let logits = self.model.logits(&rows)?.as_dtype(mlx_rs::Dtype::Float32)?;
        logits.eval()?;
        let logits = logits.try_as_slice::<f32>().map_err(|e| Error::Plan(format!("logits: {e}")))?;
        let asked = plan.rows.iter().filter_map(|row| row.sample.as_ref().map(|at| (row.seq, at)));
        let mut sampled = Vec::with_capacity(last.len());
        for ((seq, at), logits) in asked.zip(logits.chunks_exact(self.info.vocab_size)) {
            let draw = self.sampler.sample(logits, at)?;
            sampled.push(Sampled { seq, token: draw.token, logprobs: draw.logprobs });
        }
        Ok(StepOutput { sampled })
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
        with_stream(&stream, || self.run(plan)).map_err(Error::into_step_error)
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
