//! A model that hears.

use std::{ops::Range, sync::Arc, time::Duration};

use vllm_scheduler::{Failure, SubmitError, TranscribeRequest, TranscriptEvent, TranscriptStream, TranscriptionHandle};
use vllm_speech::{
    Segment, Transcript,
    whisper::{DecodingOptions, OptionError, Task, Vocabulary},
};

use super::sound::Heard;

/// Everything that a request for a transcript needs.
#[derive(Debug)]
pub struct ServedTranscriber {
    /// Names it answers to; the first is its own.
    pub names: Vec<String>,
    /// Names that it is known by elsewhere, and answers to, too.
    pub aliases: Vec<String>,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Where transcripts come from.
    pub engine: TranscriptionHandle,
}

/// Why a model doesn't do what it is asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ListeningError {
    /// Options that make no sense, or not for it.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// It can't be told.
    #[error("{option}: this model goes along the sound by itself, and can't be told {what}")]
    NotTaken {
        /// The option's name.
        option: &'static str,
        /// What it would say.
        what: &'static str,
    },
}

impl ListeningError {
    /// The option that it is about.
    #[must_use]
    pub fn option(&self) -> &'static str {
        match self {
            Self::NotTaken { option, .. } => option,
            Self::Option(OptionError::Temperatures(_)) => "temperature",
            Self::Option(OptionError::CannotTranslate) => "model",
            Self::Option(_) => "language",
        }
    }
}

/// A sound, and how it is listened to.
#[derive(Debug, Clone)]
pub struct Listening {
    /// The sound.
    pub heard: Heard,
    /// Where somebody speaks, in samples; none: anywhere.
    pub speech: Option<Vec<Range<usize>>>,
    /// How.
    pub options: DecodingOptions,
}

/// What was heard.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcribed {
    /// The text.
    pub transcript: Transcript,
    /// Tokens that the model wrote for it.
    pub tokens: usize,
    /// From submission to the first work on it.
    pub queue: Duration,
    /// From then to its end.
    pub compute: Duration,
}

impl ServedTranscriber {
    /// Puts the parts together.
    #[must_use]
    pub fn new(names: Vec<String>, aliases: Vec<String>, engine: TranscriptionHandle) -> Self {
        Self { names, aliases, created: super::now(), engine }
    }

    /// What its tokens mean and which languages it knows, if it is told what to do by tokens.
    #[must_use]
    pub fn vocabulary(&self) -> Option<&Arc<Vocabulary>> {
        self.engine.vocabulary()
    }

    /// Samples a second that it hears.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        self.engine.info().mel.sample_rate
    }

    /// The code of the language that it knows, if it knows but one.
    #[must_use]
    pub fn only_language(&self) -> Option<&'static str> {
        self.vocabulary().filter(|vocabulary| !vocabulary.is_multilingual()).map(|_| "en")
    }

    /// Whether it can do what is asked.
    ///
    /// # Errors
    /// [`ListeningError`].
    pub fn check(&self, options: &DecodingOptions) -> Result<(), ListeningError> {
        if let Some(vocabulary) = self.vocabulary() {
            return Ok(vocabulary.check(options).map(drop)?);
        }
        let not_taken = |option, what| Err(ListeningError::NotTaken { option, what });
        if options.task == Task::Translate {
            return not_taken("model", "to translate");
        }
        if options.language.is_some() {
            return not_taken("language", "the language");
        }
        if options.prompt.is_some() {
            return not_taken("prompt", "what came before");
        }
        if options.temperatures.first().is_some_and(|&temperature| temperature > 0.0) {
            return not_taken("temperature", "to choose at random");
        }
        Ok(())
    }

    /// Begins a transcript. The options are expected to have passed [`check`](Self::check). Blocks for as long as the sound's
    /// spectrogram takes.
    ///
    /// # Errors
    /// [`SubmitError`] if the engine doesn't take it, or not now.
    pub fn listen(
        &self,
        listening: Listening,
        client: Option<Arc<str>>,
        timeout: Option<Duration>,
    ) -> Result<TranscriptStream, SubmitError> {
        let Listening { heard, speech, options } = listening;
        self.engine.submit(TranscribeRequest { sound: heard.samples, options, speech, client, timeout })
    }
}

/// Waits for the whole of a transcript; `each` is told of every segment as it comes.
///
/// # Errors
/// [`Failure`] if the engine fails, stops, or takes too long.
pub async fn collect(events: &mut TranscriptStream, mut each: impl FnMut(&Segment)) -> Result<Transcribed, Failure> {
    let mut transcribed = Transcribed::default();
    while let Some(event) = events.next().await {
        transcribed.take(event?, &mut each);
    }
    Ok(transcribed)
}

impl Transcribed {
    /// Adds what has come.
    pub fn take(&mut self, event: TranscriptEvent, mut each: impl FnMut(&Segment)) {
        match event {
            TranscriptEvent::Language { code, .. } => self.transcript.language = Some(code.into()),
            TranscriptEvent::Segment(segment) => {
                each(&segment);
                self.transcript.segments.push(segment);
            }
            TranscriptEvent::Done { duration, tokens, queue, compute, .. } => {
                self.transcript.duration = duration;
                (self.tokens, self.queue, self.compute) = (tokens, queue, compute);
            }
        }
    }
}
