//! Models over several machines: each of them has some of the layers.
//!
//! Machines are numbered by *rank*. Rank 0 has the last layers, the final norm and the output layer, so that tokens are sampled
//! where the requests are; the highest rank has the embedding and the first layers. Hidden states go from rank r + 1 to r.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{MemoryInfo, ModelInfo, Result, StepOutput, StepPlan};

/// What a model is made of, for whoever spreads it over machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelOutline {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Names configuration and weights, 64 hexadecimal digits: two machines with the same have the same model.
    pub fingerprint: String,
    /// Bytes of each layer's weights, first to last.
    pub layers: Vec<u64>,
    /// Bytes of what comes before the layers: the embedding.
    pub before: u64,
    /// Bytes of what comes after them: the final norm and the output layer, which may be the embedding once more.
    pub after: u64,
}

impl ModelOutline {
    /// Bytes of the weights that a machine with these layers holds.
    #[must_use]
    pub fn bytes(&self, layers: &Range<usize>) -> u64 {
        let before = if layers.start == 0 { self.before } else { 0 };
        let after = if layers.end == self.layers.len() { self.after } else { 0 };
        before + self.layers[layers.clone()].iter().sum::<u64>() + after
    }
}

/// What hidden states are computed in: as such they travel without loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum HiddenDtype {
    /// 4 bytes.
    F32,
    /// 2 bytes.
    F16,
    /// 2 bytes.
    Bf16,
}

/// What a stage made of a step.
#[derive(Debug, Clone, PartialEq)]
pub enum StageOutput {
    /// Hidden states for the stage after this one, [tokens, width].
    Hidden(Vec<f32>),
    /// Tokens: it was the last.
    Sampled(StepOutput),
}

/// Some layers of a model. Lives on one thread, like a [`ModelRunner`](crate::ModelRunner).
pub trait StageRunner {
    /// The stage in numbers: weights and KV storage are those of its own layers.
    fn info(&self) -> &ModelInfo;

    /// Its layers.
    fn layers(&self) -> Range<usize>;

    /// Numbers of a token's hidden state.
    fn width(&self) -> usize;

    /// What they are computed in.
    fn hidden_dtype(&self) -> HiddenDtype;

    /// Memory of the stage's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Computes the stage's layers for a step, from what the stage before it made of the same plan, [tokens, width]; the first
    /// stage takes none. Samples only where the stage is the last, from the rows that ask for it.
    ///
    /// # Errors
    /// As [`ModelRunner::step`](crate::ModelRunner::step).
    fn step(&mut self, plan: &StepPlan<'_>, hidden: Vec<f32>) -> Result<StageOutput>;
}

/// Carries hidden states from rank to rank. Calls block; what is sent arrives in order.
///
/// A link has no way to say that a rank has died: whoever uses one learns of it elsewhere, and must not wait for a call to return.
pub trait Link {
    /// This process's number.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Sends numbers to a neighbour.
    ///
    /// # Errors
    /// [`crate::Error::Step`].
    fn send(&mut self, to: usize, numbers: &[f32]) -> Result<()>;

    /// The `len` numbers that a neighbour sent.
    ///
    /// # Errors
    /// [`crate::Error::Step`].
    fn receive(&mut self, from: usize, len: usize) -> Result<Vec<f32>>;
}
