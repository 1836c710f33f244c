//! Rank 0's runner: its own stage, and all others by way of their lines.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::SeqCst},
    mpsc::Receiver,
};

use vllm_platform::{
    BlockId, Error, MemoryInfo, ModelInfo, ModelRunner, Result, StageOutput, StageRunner, StepOutput, StepPlan,
};

use crate::{assignment::Message, carrier::Carrier, line::Line, plan::PlanData, session::Session};

/// Ranks that are together.
pub(crate) struct Together {
    pub session: Session,
    /// To ranks 1, 2, ….
    pub lines: Vec<Line>,
    pub carrier: Carrier,
}

/// A model over several machines, as the engine sees it.
pub struct PipelineRunner {
    stage: Box<dyn StageRunner>,
    info: ModelInfo,
    together: Together,
    /// Ranks that are together again.
    again: Receiver<Together>,
    /// Whether the engine knows that the ranks of `together` have lost each other.
    told: bool,
    closing: Arc<AtomicBool>,
    number: u64,
}

impl PipelineRunner {
    pub(crate) fn new(
        stage: Box<dyn StageRunner>,
        info: ModelInfo,
        together: Together,
        again: Receiver<Together>,
        closing: Arc<AtomicBool>,
    ) -> Self {
        Self { stage, info, together, again, told: false, closing, number: 0 }
    }

    /// The other ranks' share of a step, and what rank 1 made of it: hidden states.
    fn ask(&mut self, plan: &StepPlan<'_>) -> Result<Vec<f32>, String> {
        if let Some(why) = self.together.session.ended() {
            return Err(why);
        }
        self.number += 1;
        let (number, plan) = (self.number, PlanData::of(plan)?);
        let tokens = plan.tokens();
        let Together { session, lines, carrier } = &mut self.together;
        let step = Message::Step { number, plan };
        lines.iter().try_for_each(|line| line.send(&step))?;
        match carrier.receive(number, tokens) {
            Ok(made) => made,
            Err(why) => {
                session.end(why.clone());
                Err(why)
            }
        }
    }
}

impl ModelRunner for PipelineRunner {
    fn info(&self) -> &ModelInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.stage.memory()
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        let hidden = self.ask(plan).map_err(Error::Step)?;
        match self.stage.step(plan, hidden)? {
            StageOutput::Sampled(output) => Ok(output),
            StageOutput::Hidden(_) => Err(Error::Step("rank 0 has no output layer".into())),
        }
    }

    /// Once for each time that ranks lost each other: those that come back may have been started anew.
    fn kv_lost(&mut self) -> Option<String> {
        let why = self.together.session.ended()?;
        let news = !std::mem::replace(&mut self.told, true);
        if let Some(together) = self.again.try_iter().last() {
            (self.together, self.told) = (together, false);
            return Some(why);
        }
        news.then_some(why)
    }

    fn export_block(&mut self, _: usize, _: BlockId, _: usize) -> Result<Vec<u8>> {
        Err(Error::Step("the KV of a model over several machines can't be taken out".into()))
    }

    fn import_block(&mut self, _: usize, _: BlockId, _: usize, _: &[u8]) -> Result<()> {
        Err(Error::Step("the KV of a model over several machines can't be put back".into()))
    }
}

impl Drop for PipelineRunner {
    fn drop(&mut self) {
        self.closing.store(true, SeqCst);
        self.together.session.end("rank 0 has ended");
        for together in self.again.try_iter() {
            together.session.end("rank 0 has ended");
        }
    }
}
