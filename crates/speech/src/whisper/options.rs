//! What a client may ask of a transcription.

/// What is written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Task {
    /// What is said, in its own language.
    #[default]
    Transcribe,
    /// What is said, in English.
    Translate,
}

/// How a sound is decoded. The defaults are openai-whisper's.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodingOptions {
    /// What is written down.
    pub task: Task,
    /// Code or English name of the language spoken; none: the model says from the first 30 seconds.
    pub language: Option<String>,
    /// A text that might have come before the sound: names, how it is spelled.
    pub prompt: Option<String>,
    /// Temperatures tried on a window in turn until its text is good enough; 0 takes the most probable token each time.
    pub temperatures: Vec<f32>,
    /// A text that compresses better than this repeats itself, and is tried again.
    pub compression_ratio_threshold: Option<f32>,
    /// A text whose tokens' mean logprob is below this is tried again.
    pub logprob_threshold: Option<f32>,
    /// A window is silent if nobody speaks in it with more than this probability, and its text is below `logprob_threshold`.
    pub no_speech_threshold: Option<f32>,
    /// Whether a window's text is the next one's prompt.
    pub condition_on_previous_text: bool,
    /// Whether segments have words with times.
    pub word_timestamps: bool,
    /// Whether the model writes no times: a window is one segment.
    pub without_timestamps: bool,
    /// Of sampling, at temperatures above 0.
    pub seed: u64,
}

impl Default for DecodingOptions {
    fn default() -> Self {
        Self {
            task: Task::Transcribe,
            language: None,
            prompt: None,
            temperatures: vec![0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
            condition_on_previous_text: true,
            word_timestamps: false,
            without_timestamps: false,
            seed: 0,
        }
    }
}

/// Why options are not taken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum OptionError {
    /// No language of this name.
    #[error("language {0:?}: no language of Whisper's has this code or English name")]
    UnknownLanguage(String),
    /// A language, but not of this model.
    #[error("language {0:?}: this model has not learnt it")]
    LanguageNotLearnt(String),
    /// Translation wanted of a model that knows English only.
    #[error("this model understands English only: it cannot translate into it")]
    CannotTranslate,
    /// No temperature at all, or one out of range.
    #[error("temperatures {0:?}: at least one is needed, each from 0 to 1")]
    Temperatures(Vec<f32>),
}
