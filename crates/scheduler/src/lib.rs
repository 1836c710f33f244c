//! The engine: when which tokens of which request are computed.
//!
//! [`Engine::start`] makes a [`ModelRunner`](vllm_platform::ModelRunner) on a thread of its own and returns an
//! [`EngineHandle`]. A [`Request`] submitted there yields an [`EventStream`]. The thread plans each step like
//! vLLM's v1 scheduler: a request is computed tokens chasing known tokens, and one budget of tokens a step is
//! shared by prefill chunks and decode tokens.
//!
//! [`EncoderEngine`] does the same for models that encode whole texts, [`VisionEngine`] for encoders that look at the
//! pictures in [`Request::media`], [`TranscriptionEngine`] for models that hear and [`SynthesisEngine`] for models that speak;
//! where they have work beside it, generation goes first.
//!
//! **Invariant:** numbers only, of tokens, blocks, samples; what they mean to a model that hears, `vllm-speech` knows. No
//! tensor, no wire format; of tokio only the channels.
//!
//! ```
//! use vllm_platform::testing::{FakeConfig, FakeRunner};
//! use vllm_scheduler::{Engine, EngineConfig, Event, Request};
//!
//! let runner = || Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>);
//! let engine = Engine::start(runner, EngineConfig::default()).unwrap();
//! let request = Request { prompt: vec![1, 2, 3], max_tokens: 4, ..Request::new("first") };
//! let mut events = engine.submit(request).unwrap();
//! let mut answer = Vec::new();
//! while let Some(event) = events.blocking_next() {
//!     match event {
//!         Event::Token(generated) => answer.push(generated.token),
//!         Event::Finished(finished) => assert_eq!(finished.usage.completion_tokens, 4),
//!         Event::Failed(error) => panic!("{error}"),
//!     }
//! }
//! assert_eq!(answer.len(), 4);
//! ```

mod background;
mod config;
mod encoder;
mod engine;
mod error;
mod handle;
mod histogram;
mod kv_events;
mod load;
mod media;
mod planner;
mod request;
mod sequence;
mod stats;
mod stream;
mod synthesis;
mod transcription;
mod turn;
mod vision;
mod waiting;

pub use config::{EngineConfig, SsdOptions};
pub use encoder::{
    EncodeInput, EncodeRequest, Encoded, EncoderConfig, EncoderEngine, EncoderHandle, EncoderStats, Ticket,
};
pub use engine::Engine;
pub use error::{FlushError, StartError, SubmitError};
pub use handle::EngineHandle;
pub use histogram::Histogram;
pub use kv_events::{KvBatch, KvEvents, KvNews, KvSnapshot};
pub use load::{Load, LoadChanges};
pub use media::{FeatureOrigin, FeatureSource, RequestMedia, Wake};
pub use request::{
    Event, EventStream, Failure, FailureKind, FinishReason, Finished, GeneratedToken, Request, RequestId, Span,
    SpanKind, Timings, Usage,
};
pub use stats::{
    BlockStats, EngineState, Histograms, Phase, PrefixCacheStats, Profile, RequestStatus, Stats, WorkStats,
};
pub use stream::AnswerStream;
pub use synthesis::{
    SpeakRequest, SpeechStats, SpeechStream, Spoken, SynthesisConfig, SynthesisEngine, SynthesisHandle,
};
pub use transcription::{
    SpeechText, TranscribeRequest, TranscriptEvent, TranscriptStream, TranscriptionConfig, TranscriptionEngine,
    TranscriptionHandle, TranscriptionStats,
};
pub use vision::{VisionConfig, VisionEngine, VisionHandle, VisionStats};
pub use vllm_cache::{KvEvent, KvTier, MediaMark, SsdStats, StoredBlock};
