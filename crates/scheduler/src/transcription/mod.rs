//! An engine for models that hear: see [`TranscriptionEngine`].

mod handle;
mod job;
mod join;
mod listen;
mod queue;
mod run;
mod sound;
mod strand;
mod transduce;

use std::{ops::Range, sync::Arc, time::Duration};

use vllm_platform::Transcriber;
use vllm_speech::{
    Segment,
    whisper::{DecodingOptions, Vocabulary, VocabularyError},
};

pub use self::handle::TranscriptionHandle;
use self::run::Hearing;
use crate::{
    AnswerStream, StartError, WorkStats,
    background::{self, Bounds, check_figures},
};

/// Bounds of an engine that hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TranscriptionConfig {
    /// Windows of sound that are decoded side by side, those of all requests together. Each takes memory for what the decoder
    /// attends to: 6 MB in Whisper's smallest model, 240 MB in its largest.
    pub max_windows: usize,
    /// Of these, windows that are encoded in one call. More are hardly faster on a CPU.
    pub max_encode: usize,
    /// Requests that may be there at once; more are refused as [`SubmitError::Busy`](crate::SubmitError::Busy).
    pub max_waiting: usize,
    /// Requests of one client that may be there at once; more are refused as
    /// [`SubmitError::ClientBusy`](crate::SubmitError::ClientBusy).
    pub max_waiting_per_client: usize,
    /// Longest stretch that a model which takes sounds of any length is given at once.
    pub max_chunk: Duration,
    /// How much of one such stretch is heard again in the next.
    pub overlap: Duration,
}

impl Default for TranscriptionConfig {
    fn default() -> Self {
        Self {
            max_windows: 8,
            max_encode: 4,
            max_waiting: 256,
            max_waiting_per_client: 192,
            max_chunk: Duration::from_secs(120),
            overlap: Duration::from_secs(10),
        }
    }
}

/// Makes the vocabulary of a model that knows so many tokens, which are [`TranscriberInfo::vocab_size`](
/// vllm_platform::TranscriberInfo::vocab_size).
pub type SpeechText = Box<dyn FnOnce(usize) -> Result<Vocabulary, VocabularyError> + Send>;

/// A sound to write down.
#[derive(Debug, Clone, PartialEq)]
pub struct TranscribeRequest {
    /// One channel, at [`MelSettings::sample_rate`](vllm_platform::MelSettings::sample_rate) of the model.
    pub sound: Arc<[f32]>,
    /// How it is written down.
    pub options: DecodingOptions,
    /// Where somebody speaks, in samples, in order: nothing else is heard. Stretches are put together into windows that are
    /// decoded side by side, so that no window's text is the next one's prompt. `None`: all of it, window after window.
    pub speech: Option<Vec<Range<usize>>>,
    /// Whose it is. Clients get equal shares; requests of nobody share as one client.
    pub client: Option<Arc<str>>,
    /// Fails with [`FailureKind::Timeout`](crate::FailureKind::Timeout) if it hasn't ended this long after its submission.
    pub timeout: Option<Duration>,
}

/// Something became known of a sound.
#[derive(Debug, Clone, PartialEq)]
pub enum TranscriptEvent {
    /// The language spoken, before all segments: heard in the first window, or as asked for. There is none if nothing is heard
    /// at all, or the model does not say.
    Language {
        /// Its code.
        code: &'static str,
        /// How probable it is, among all languages; 1 if it was asked for, or the model knows no other.
        probability: f32,
    },
    /// The next stretch of the transcript.
    Segment(Segment),
    /// All has been heard. The last event.
    Done {
        /// Seconds of sound.
        duration: f64,
        /// Tokens written, those of attempts that were given up too.
        tokens: usize,
        /// Windows, or stretches, that were heard.
        windows: usize,
        /// From submission until the model first listened.
        queue: Duration,
        /// From then to the end.
        compute: Duration,
    },
}

/// What becomes known of a sound, in order.
pub type TranscriptStream = AnswerStream<TranscriptEvent>;

/// Figures since the start, as of the last call of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct TranscriptionStats {
    /// Requests and time.
    pub work: WorkStats,
    /// Windows encoded, or stretches heard.
    pub windows: u64,
    /// Windows that are held now.
    pub windows_held: usize,
    /// Time that encoding them took; all of the time of a model that only does that.
    pub encode_time: Duration,
    /// Steps of the decoder.
    pub decode_steps: u64,
    /// Time that they took, giving way to others included.
    pub decode_time: Duration,
    /// Texts that took part in steps, one for each step: by `decode_steps`, how many go on together.
    pub decode_rows: u64,
    /// Tokens written, those of attempts that were given up too.
    pub tokens: u64,
    /// Attempts after the first at a window's text, at higher temperatures.
    pub fallbacks: u64,
    /// Seconds of sound of the requests that were answered.
    pub audio_seconds: f64,
}

/// Makes engines for models that hear.
///
/// What is there to be done for all requests is done together: windows that wait are encoded in one call, as many as there
/// is room for, and each step of the decoder goes on with all texts under way. Who is next when there is room is decided by
/// what clients, and then requests, have had so far. All that runs in slices that give way to engines that generate.
///
/// A sound is heard window after window, each beginning where the text of the one before ended; stretches of speech that
/// are known beforehand are heard side by side.
#[derive(Debug)]
pub struct TranscriptionEngine;

impl TranscriptionEngine {
    /// Makes a model on a new thread and returns when it is ready. `text` is needed for a [`Transcriber::Listener`].
    ///
    /// # Errors
    /// [`StartError`] if the configuration makes no sense, `make` fails or panics, or a listener has no vocabulary that fits.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn start<F>(
        make: F,
        text: Option<SpeechText>,
        config: TranscriptionConfig,
    ) -> Result<TranscriptionHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Transcriber> + Send + 'static,
    {
        config.check()?;
        let bounds = Bounds { max_waiting: config.max_waiting, max_waiting_per_client: config.max_waiting_per_client };
        let hearing = config.clone();
        let door = background::start("transcription", bounds, move || Hearing::new(make()?, text, &hearing))?;
        Ok(TranscriptionHandle::new(door, config))
    }
}

impl TranscriptionConfig {
    fn check(&self) -> Result<(), StartError> {
        check_figures(&[
            ("max_windows", self.max_windows),
            ("max_encode", self.max_encode),
            ("max_waiting", self.max_waiting),
            ("max_waiting_per_client", self.max_waiting_per_client),
        ])?;
        if self.overlap * 2 > self.max_chunk || self.max_chunk < Duration::from_secs(1) {
            let value = self.max_chunk.as_secs() as usize;
            let allowed = format!("at least 1 second, and twice the overlap of {:?}", self.overlap);
            return Err(StartError::Config { field: "max_chunk", value, allowed });
        }
        Ok(())
    }
}
