//! The seam between vllm-mlx's control plane and its data plane.
//!
//! Above it stand the scheduler, the caches and the servers, which deal in token ids, block ids and plain
//! values. Below it stands a [`Platform`], which owns devices, memory and tensors. Neither knows the other:
//! they meet in [`ModelRunner::step`], which takes a [`StepPlan`] and returns a [`StepOutput`], and in
//! [`EncoderRunner::encode`], which takes texts as tokens and returns a vector or a score for each, and
//! [`VisionEncoder::encode`], which takes pictures as patches and returns the [`Features`] that stand in for them; in a
//! [`Transcriber`], which takes spectrograms and gives texts, and a [`Synthesizer`], which takes phonemes and gives sound.
//!
//! The split follows vLLM's platform plugins, one level above tensors: a platform registers itself with
//! [`inventory`] and is found by [`platforms`], so that the binary alone decides what is linked.
//!
//! This crate knows neither MLX nor tokio.

mod device;
mod encoder;
mod error;
mod media;
mod model;
mod registry;
mod runner;
pub mod sampling;
mod speech;
mod stage;
mod step;
#[cfg(feature = "testing")]
pub mod testing;

pub use device::{DeviceChoice, DeviceKind, MemoryInfo, ParseDeviceError};
pub use encoder::{EncoderInfo, EncoderInput, EncoderOptions, EncoderOutput, EncoderRunner, EncoderTask, ModelPurpose};
pub use error::{Error, Result};
pub use inventory;
pub use media::{ContentHash, Features, MediaSpan, SpanGrid, VisionEncoder, VisionInfo, VisionInput, rope_positions};
pub use model::{KvCacheSpec, KvDtype, KvGroup, ModelInfo, ModelSource};
pub use registry::{PlatformPlugin, platforms};
pub use runner::{
    Activations, KvStoreChoice, LoadOptions, LoadProgress, ModelRunner, Platform, VisionOptions, WorkTime,
};
pub use sampling::SamplingParams;
pub use speech::{
    HeardToken, Listener, ListenerInfo, Mel, MelScale, MelSettings, SpeechOptions, Synthesizer, SynthesizerInfo,
    TextId, TextRow, Transcriber, TranscriberInfo, Transducer, Utterance, WindowId,
};
pub use stage::{HiddenDtype, Link, ModelOutline, StageOutput, StageRunner};
pub use step::{
    BlockCopy, BlockId, Logprob, NO_BLOCK, Row, SampleAt, Sampled, SeqId, StepOutput, StepPlan, TokenId, TokenLogprobs,
};
