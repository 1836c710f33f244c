//! An engine for models that speak: see [`SynthesisEngine`].

mod handle;
mod queue;
mod run;

use std::{sync::Arc, time::Duration};

use vllm_platform::{Synthesizer, TokenId};

pub use self::handle::SynthesisHandle;
use self::run::Speaking;
use crate::{
    AnswerStream, Histogram, StartError, WorkStats,
    background::{self, Bounds, check_figures},
};

/// Bounds of an engine that speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SynthesisConfig {
    /// Requests that may be there at once; more are refused as [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Requests of one client that may be there at once; more are refused as
    /// [`SubmitError::ClientBusy`](crate::SubmitError::ClientBusy).
    pub max_waiting_per_client: usize,
    /// Longest silence after an utterance.
    pub max_pause: Duration,
}

impl Default for SynthesisConfig {
    fn default() -> Self {
        Self { max_waiting: 256, max_waiting_per_client: 192, max_pause: Duration::from_secs(10) }
    }
}

/// An utterance, and what comes after it.
#[derive(Debug, Clone, PartialEq)]
pub struct Spoken {
    /// As [`vllm_platform::Utterance::symbols`].
    pub symbols: Vec<TokenId>,
    /// As [`vllm_platform::Utterance::style`].
    pub style: Arc<[f32]>,
    /// Silence after it.
    pub pause: Duration,
}

/// A text to speak, as utterances.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeakRequest {
    /// At least one. The model speaks each for itself.
    pub utterances: Vec<Spoken>,
    /// As [`vllm_platform::Utterance::speed`].
    pub speed: f32,
    /// As [`vllm_platform::Utterance::seed`]. Each utterance has it: a text said twice sounds the same twice.
    pub seed: u64,
    /// Whose it is. Clients get equal shares; requests of nobody share as one client.
    pub client: Option<Arc<str>>,
    /// Fails with [`FailureKind::Timeout`](crate::FailureKind::Timeout) if it hasn't ended this long after its submission.
    pub timeout: Option<Duration>,
}

/// The sound of each utterance, its pause included, in order.
pub type SpeechStream = AnswerStream<Vec<f32>>;

/// Upper ends of the buckets of [`SpeechStats::first_chunk`], in seconds.
const FIRST_CHUNK: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];

/// Figures since the start, as of the last utterance.
#[derive(Debug, Clone, PartialEq)]
pub struct SpeechStats {
    /// Requests and time.
    pub work: WorkStats,
    /// Utterances spoken.
    pub utterances: u64,
    /// Their symbols.
    pub symbols: u64,
    /// Their samples, without pauses.
    pub samples: u64,
    /// From submission to the first utterance's sound, in seconds.
    pub first_chunk: Histogram,
}

impl Default for SpeechStats {
    fn default() -> Self {
        let first_chunk = Histogram::new(FIRST_CHUNK);
        Self { work: WorkStats::default(), utterances: 0, symbols: 0, samples: 0, first_chunk }
    }
}

/// Makes engines for models that speak.
///
/// Utterances are spoken one at a time, on a thread that gives way to engines that generate: the next is always one of the
/// client and then of the request that have had the fewest symbols so far. So a book holds up nobody's sentence, and
/// whoever listens has the first sentence while the second is worked out.
///
/// ```
/// use std::time::Duration;
///
/// use vllm_platform::testing::FakeSynthesizer;
/// use vllm_scheduler::{SpeakRequest, Spoken, SynthesisConfig, SynthesisEngine};
///
/// let model = || Ok(Box::new(FakeSynthesizer::new(Default::default())) as Box<_>);
/// let engine = SynthesisEngine::start(model, SynthesisConfig::default()).unwrap();
/// let style = vec![0.5; engine.info().style_len].into();
/// let hello = Spoken { symbols: vec![1, 2, 3], style, pause: Duration::ZERO };
/// let request = SpeakRequest { utterances: vec![hello; 2], speed: 1.0, seed: 0, client: None, timeout: None };
/// let mut speech = engine.submit(request).unwrap();
/// let first = speech.blocking_next().unwrap().unwrap();
/// assert_eq!(speech.blocking_next(), Some(Ok(first)));
/// assert_eq!(speech.blocking_next(), None);
/// ```
#[derive(Debug)]
pub struct SynthesisEngine;

impl SynthesisEngine {
    /// Makes a model on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`] if the configuration makes no sense or `make` fails or panics.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn start<F>(make: F, config: SynthesisConfig) -> Result<SynthesisHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn Synthesizer>> + Send + 'static,
    {
        let SynthesisConfig { max_waiting, max_waiting_per_client, max_pause } = config;
        check_figures(&[("max_waiting", max_waiting), ("max_waiting_per_client", max_waiting_per_client)])?;
        let door = background::start("synthesis", Bounds { max_waiting, max_waiting_per_client }, move || {
            let model = make()?;
            let info = model.info().clone();
            Ok((Speaking::new(model), info))
        })?;
        Ok(SynthesisHandle { door, max_pause })
    }
}
