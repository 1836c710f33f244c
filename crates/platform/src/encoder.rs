//! Models that give numbers for whole texts: embeddings and relevance scores.

use serde::Serialize;

use crate::{Activations, DeviceChoice, DeviceKind, MemoryInfo, Result, TokenId};

/// What a checkpoint's own files say it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelPurpose {
    /// It continues texts.
    Generate,
    /// It gives a text's embedding.
    Embed,
    /// It gives a pair of texts a score.
    Score,
    /// It writes down speech.
    Transcribe,
    /// It speaks texts.
    Speak,
}

/// What an encoder is to give for an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EncoderTask {
    /// What the checkpoint was made for: embeddings or scores.
    #[default]
    Native,
    /// Of a model that continues texts: how probable one of two answers is as the next token, so `yes / (yes + no)`.
    Judge {
        /// The answer that is scored.
        yes: TokenId,
        /// The other.
        no: TokenId,
    },
}

/// How to load an encoder.
#[derive(Debug, Clone)]
pub struct EncoderOptions {
    /// Device to run on.
    pub device: DeviceChoice,
    /// Threads for work on the CPU; `None`: one for each physical core.
    pub threads: Option<usize>,
    /// Whether each of them is bound to a core of its own.
    pub pin_threads: bool,
    /// As [`LoadOptions::activations`](crate::LoadOptions::activations).
    pub activations: Activations,
    /// What it is to give.
    pub task: EncoderTask,
    /// Most tokens of a call to [`EncoderRunner::encode`] with several inputs: bounds the memory that is set aside.
    pub max_num_batched_tokens: usize,
    /// Longest input to take, in tokens; `None`: the model's own. More than that is no error and changes nothing.
    pub max_input_len: Option<usize>,
}

impl Default for EncoderOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            threads: None,
            pin_threads: false,
            activations: Activations::default(),
            task: EncoderTask::Native,
            max_num_batched_tokens: 256,
            max_input_len: None,
        }
    }
}

/// What an encoder gives for each input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EncoderOutput {
    /// A vector.
    Embedding {
        /// Its numbers.
        dimensions: usize,
        /// Whether its length is 1.
        normalized: bool,
    },
    /// One number from 0 to 1: how well the two texts of a pair go together.
    Score,
}

impl EncoderOutput {
    /// Numbers for each input.
    #[must_use]
    pub const fn len(self) -> usize {
        match self {
            Self::Embedding { dimensions, .. } => dimensions,
            Self::Score => 1,
        }
    }

    /// Whether there are none: never, in a sound model.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// A loaded encoder, in numbers.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct EncoderInfo {
    /// As in `config.json`'s `architectures`.
    pub architecture: String,
    /// Device it runs on.
    pub device: DeviceKind,
    /// Parameters; a quantized weight counts as what it stands for.
    pub parameters: u64,
    /// Bytes of all weights as held in memory.
    pub weight_bytes: u64,
    /// E.g. `affine 4 bit, group 32`, or `bf16`.
    pub quantization: String,
    /// Longest input, special tokens included, in tokens.
    pub max_input_len: usize,
    /// Tokens known.
    pub vocab_size: usize,
    /// What it gives.
    pub output: EncoderOutput,
}

/// A text, or a pair of texts, as tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncoderInput<'a> {
    /// All tokens, special ones included: at least one.
    pub tokens: &'a [TokenId],
    /// For each token, which text it belongs to (BERT's token types); empty: all to the first.
    pub types: &'a [u32],
}

/// A loaded encoder. Lives on one thread.
pub trait EncoderRunner {
    /// The model in numbers.
    fn info(&self) -> &EncoderInfo;

    /// Memory of the model's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Numbers for each input, [`EncoderOutput::len`] of them. What one gets does not depend on the others.
    ///
    /// `pause` is called now and then, whenever nothing is under way on the device: it may block to let others have it.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the runner is ready for the next call.
    fn encode(&mut self, batch: &[EncoderInput<'_>], pause: &mut dyn FnMut()) -> Result<Vec<Vec<f32>>>;
}
