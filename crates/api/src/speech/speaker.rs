//! A model that speaks.

use std::{sync::Arc, time::Duration};

use vllm_scheduler::{SpeakRequest, SpeechStream, Spoken, SubmitError, SynthesisHandle};
use vllm_speech::{
    phonemes::{Language, PhonemeError, Phonemizer, symbols},
    sentences,
    voices::{Voice, VoiceError, Voices},
};

/// The voice of requests that name none, if the model has it: the original's.
const DEFAULT_VOICE: &str = "af_heart";

/// Fewest words of the first utterance, if its sentence is cut after a clause.
const OPENING_WORDS: usize = 3;

/// Everything that a request for speech needs.
#[derive(Debug)]
pub struct ServedSpeaker {
    /// Names it answers to; the first is its own.
    pub names: Vec<String>,
    /// Names that it is known by elsewhere, and answers to, too.
    pub aliases: Vec<String>,
    /// When it was loaded, in seconds since 1970.
    pub created: u64,
    /// Who can speak.
    pub voices: Voices,
    /// Where speech comes from.
    pub engine: SynthesisHandle,
}

/// How a text is spoken.
#[derive(Debug, Clone, PartialEq)]
pub struct Speaking {
    /// A voice or a blend of some; none: [`ServedSpeaker::default_voice`].
    pub voice: Option<String>,
    /// Its language, as Kokoro's letter or a tag; none: the voice's.
    pub language: Option<String>,
    /// 1 as the model would by itself, 2 twice as fast.
    pub speed: f32,
    /// The same seed, the same sound.
    pub seed: u64,
    /// Whether the first utterance is kept short, so that it is heard sooner.
    pub soon: bool,
}

impl Default for Speaking {
    fn default() -> Self {
        Self { voice: None, language: None, speed: 1.0, seed: 0, soon: true }
    }
}

/// Why a text can't be spoken.
#[derive(Debug, thiserror::Error)]
pub enum SpeakError {
    /// There is no such voice.
    #[error(transparent)]
    Voice(#[from] VoiceError),
    /// A voice has to be named.
    #[error("voice is missing: it must be one of {0}")]
    NoVoice(String),
    /// There is no such language.
    #[error(
        "lang_code is {0:?}: it must be a letter of Kokoro's (a, b, e, f, h, i, j, p, z) or a language's tag, as en-us"
    )]
    Language(String),
    /// The text can't be read out.
    #[error(transparent)]
    Phonemes(#[from] PhonemeError),
}

/// A text, ready to be spoken.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    utterances: Vec<Spoken>,
    speed: f32,
    seed: u64,
}

impl Plan {
    /// Symbols of all of it.
    #[must_use]
    pub fn symbols(&self) -> usize {
        self.utterances.iter().map(|utterance| utterance.symbols.len()).sum()
    }

    /// What is spoken in one go, each by itself.
    #[must_use]
    pub fn utterances(&self) -> &[Spoken] {
        &self.utterances
    }
}

impl ServedSpeaker {
    /// Puts the parts together.
    #[must_use]
    pub fn new(names: Vec<String>, aliases: Vec<String>, voices: Voices, engine: SynthesisHandle) -> Self {
        Self { names, aliases, created: super::now(), voices, engine }
    }

    /// Samples a second of what it says.
    #[must_use]
    pub fn sample_rate(&self) -> u32 {
        self.engine.info().sample_rate
    }

    /// Whose voice it is where nobody is named.
    #[must_use]
    pub fn default_voice(&self) -> Option<&str> {
        self.voices.names().find(|name| *name == DEFAULT_VOICE)
    }

    /// Makes ready what speaking a voice's language needs, so that the first request need not wait for it. Blocks.
    ///
    /// # Errors
    /// [`SpeakError`] if the language can't be spoken here.
    pub fn warm(&self) -> Result<(), SpeakError> {
        let language = self.default_voice().and_then(Language::of_voice);
        Ok(language.map_or(Ok(()), |language| Phonemizer::new(language).prepare())?)
    }

    /// What there is to say, sentence by sentence. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`SpeakError`].
    pub fn plan(&self, text: &str, speaking: &Speaking) -> Result<Plan, SpeakError> {
        let all = || SpeakError::NoVoice(self.voices.names().collect::<Vec<_>>().join(", "));
        let name = speaking.voice.as_deref().or_else(|| self.default_voice()).ok_or_else(all)?;
        let voice = self.voices.get(name)?;
        let language = match &speaking.language {
            None => voice.language(),
            Some(tag) => Some(Language::parse(tag).ok_or_else(|| SpeakError::Language(tag.clone()))?),
        };
        // A voice whose name says nothing is an American.
        let phonemizer = Phonemizer::new(language.unwrap_or(Language::AmericanEnglish));
        let mut utterances = Vec::new();
        for sentence in sentences::utterances(text, speaking.soon.then_some(OPENING_WORDS)) {
            match self.say(sentence, phonemizer, &voice, &mut utterances) {
                // A line of signs among others.
                Ok(()) | Err(PhonemeError::Nothing) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if utterances.is_empty() {
            return Err(PhonemeError::Nothing.into());
        }
        Ok(Plan { utterances, speed: speaking.speed, seed: speaking.seed })
    }

    /// Whether there is such a voice, or such a blend of some.
    ///
    /// # Errors
    /// [`SpeakError::Voice`].
    pub fn check_voice(&self, name: &str) -> Result<(), SpeakError> {
        Ok(self.voices.get(name).map(drop)?)
    }

    /// Begins to speak.
    ///
    /// # Errors
    /// [`SubmitError`] if the engine doesn't take it, or not now.
    pub fn speak(
        &self,
        plan: Plan,
        client: Option<Arc<str>>,
        timeout: Option<Duration>,
    ) -> Result<SpeechStream, SubmitError> {
        let Plan { utterances, speed, seed } = plan;
        self.engine.submit(SpeakRequest { utterances, speed, seed, client, timeout })
    }

    /// Adds what a sentence is to be said as: in one go, or in several if it is too long for one.
    fn say(
        &self,
        sentence: &str,
        phonemizer: Phonemizer,
        voice: &Voice,
        utterances: &mut Vec<Spoken>,
    ) -> Result<(), PhonemeError> {
        let info = self.engine.info();
        for part in phonemizer.within(sentence, info.max_symbols)? {
            let mut symbols = symbols(&part.phonemes, &info.symbols)?;
            // A phoneme that the model hasn't learnt can take two of its symbols: at the very end of an utterance as long as can be,
            // one goes.
            symbols.truncate(info.max_symbols);
            let style = voice.style(symbols.len()).into();
            utterances.push(Spoken { symbols, style, pause: Duration::ZERO });
        }
        Ok(())
    }
}
