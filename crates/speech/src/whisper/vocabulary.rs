//! Which of a model's tokens are text, and what the others mean.

use std::sync::Arc;

use vllm_platform::TokenId;
use vllm_text::{TextError, Tokenizer};

use super::languages::{LANGUAGES, WITHOUT_SPACES, language_code};
use super::{DecodingOptions, OptionError, Task};

/// Seconds from one token of time to the next.
pub(super) const TIME_PRECISION: f64 = 0.02;

/// Tokens of a Whisper model: its text, its marks, its times.
///
/// Marks stand behind the text: end of text, start of a transcript, a language each, what to do, and behind the last of them the
/// times in steps of 0.02 s. English-only models have one token less of text; they know the marks of languages, but never saw them.
#[derive(Debug, Clone)]
pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    size: usize,
    pub(super) sot: TokenId,
    pub(super) eot: TokenId,
    pub(super) transcribe: TokenId,
    pub(super) translate: TokenId,
    pub(super) sot_prev: TokenId,
    pub(super) no_speech: TokenId,
    pub(super) no_timestamps: TokenId,
    pub(super) timestamp_begin: TokenId,
    /// Code and token of each language; empty if the model knows English only.
    languages: Vec<(&'static str, TokenId)>,
    /// Never written: marks, and signs that stand for sounds which are no speech.
    pub(super) suppressed: Vec<TokenId>,
    /// Not written first: a space, the end.
    pub(super) blank: Vec<TokenId>,
}

/// Why a tokenizer is not one of Whisper's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VocabularyError {
    /// A mark is missing.
    #[error("the tokenizer has no token {0}: it is not one of Whisper's")]
    Missing(&'static str),
    /// The model's last layer is too small for the times.
    #[error("the model knows {size} tokens, and the tokenizer's times begin at {timestamp_begin}: {needed} are needed")]
    TooSmall {
        /// Tokens of the model.
        size: usize,
        /// First token of a time.
        timestamp_begin: TokenId,
        /// Tokens that there have to be.
        needed: usize,
    },
    /// Text that the tokenizer cannot encode or decode.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// Tokens of times: 0.00 to 30.00.
const TIMES: usize = 1501;

impl Vocabulary {
    /// Finds the marks in a tokenizer, for a model that knows `size` tokens (its last layer's rows).
    ///
    /// # Errors
    /// [`VocabularyError`] if the tokenizer is not one of Whisper's, or not this model's.
    pub fn new(tokenizer: Arc<Tokenizer>, size: usize) -> Result<Self, VocabularyError> {
        let token = |name: &'static str| tokenizer.token_to_id(name).ok_or(VocabularyError::Missing(name));
        let (eot, sot) = (token("<|endoftext|>")?, token("<|startoftranscript|>")?);
        let (translate, transcribe) = (token("<|translate|>")?, token("<|transcribe|>")?);
        let (sot_lm, sot_prev) = (token("<|startoflm|>")?, token("<|startofprev|>")?);
        // Its name was changed between the papers' tokenizer and the converted ones.
        let no_speech = token("<|nospeech|>").or_else(|missing| token("<|nocaptions|>").map_err(|_| missing))?;
        let no_timestamps = token("<|notimestamps|>")?;
        let timestamp_begin = no_timestamps + 1;
        let needed = timestamp_begin as usize + TIMES;
        if size < needed {
            return Err(VocabularyError::TooSmall { size, timestamp_begin, needed });
        }
        // GPT-2's own vocabulary ends at 50256; the multilingual one, made anew, has one token more.
        let languages = if eot == 50256 {
            vec![]
        } else {
            let known = |&(code, _): &(&'static str, _)| Some((code, tokenizer.token_to_id(&format!("<|{code}|>"))?));
            LANGUAGES.iter().filter_map(known).collect()
        };
        let mut suppressed = non_speech(&tokenizer)?;
        suppressed.extend([transcribe, translate, sot, sot_prev, sot_lm, no_speech]);
        suppressed.sort_unstable();
        suppressed.dedup();
        let mut blank = tokenizer.encode(" ", false)?;
        blank.push(eot);
        Ok(Self {
            tokenizer,
            size,
            sot,
            eot,
            transcribe,
            translate,
            sot_prev,
            no_speech,
            no_timestamps,
            timestamp_begin,
            languages,
            suppressed,
            blank,
        })
    }

    /// Tokens that the model knows: the length of its logits.
    #[must_use]
    pub fn size(&self) -> usize {
        self.size
    }

    /// Whether the model knows other languages than English.
    #[must_use]
    pub fn is_multilingual(&self) -> bool {
        !self.languages.is_empty()
    }

    /// Codes of the languages that the model knows; none for one that knows English only.
    pub fn languages(&self) -> impl Iterator<Item = &'static str> {
        self.languages.iter().map(|(code, _)| *code)
    }

    /// The code of the language that options ask for; none: the model is to say ([`detection_prompt`](Self::detection_prompt)),
    /// or knows English only.
    ///
    /// # Errors
    /// [`OptionError`] if the options ask for what this model cannot do.
    pub fn check(&self, options: &DecodingOptions) -> Result<Option<&'static str>, OptionError> {
        let in_range = |temperature: &f32| (0.0..=1.0).contains(temperature);
        if options.temperatures.is_empty() || !options.temperatures.iter().all(in_range) {
            return Err(OptionError::Temperatures(options.temperatures.clone()));
        }
        if options.task == Task::Translate && !self.is_multilingual() {
            return Err(OptionError::CannotTranslate);
        }
        let Some(name) = &options.language else { return Ok(None) };
        let code = language_code(name).ok_or_else(|| OptionError::UnknownLanguage(name.clone()))?;
        let learnt = if self.is_multilingual() { self.language_token(code).is_some() } else { code == "en" };
        if !learnt {
            return Err(OptionError::LanguageNotLearnt(name.clone()));
        }
        Ok(self.is_multilingual().then_some(code))
    }

    /// The token of a language, by its code.
    pub(super) fn language_token(&self, code: &str) -> Option<TokenId> {
        self.languages.iter().find(|(known, _)| *known == code).map(|(_, token)| *token)
    }

    /// The text after which the model says, by its logits, which language it hears.
    #[must_use]
    pub fn detection_prompt(&self) -> [TokenId; 1] {
        [self.sot]
    }

    /// The language most probable by the logits (one a token) after [`detection_prompt`](Self::detection_prompt), and how probable it is
    /// among all languages; none if the model knows English only.
    #[must_use]
    pub fn detect_language(&self, logits: &[f32]) -> Option<(&'static str, f32)> {
        let logit = |token: TokenId| logits.get(token as usize).copied().unwrap_or(f32::NEG_INFINITY);
        let (code, greatest) =
            self.languages.iter().map(|&(code, token)| (code, logit(token))).max_by(|a, b| a.1.total_cmp(&b.1))?;
        let sum: f32 = self.languages.iter().map(|&(_, token)| (logit(token) - greatest).exp()).sum();
        Some((code, 1.0 / sum))
    }

    /// What a transcript begins with.
    pub(super) fn start(&self, task: Task, language: Option<&str>) -> Vec<TokenId> {
        let Some(language) = language.and_then(|code| self.language_token(code)) else { return vec![self.sot] };
        let task = if task == Task::Translate { self.translate } else { self.transcribe };
        vec![self.sot, language, task]
    }

    /// Tokens of a prompt; marks that are written out in it (`<|endoftext|>`) are left out.
    ///
    /// # Errors
    /// [`TextError`] if the tokenizer fails on it.
    pub(super) fn encode_prompt(&self, prompt: &str) -> Result<Vec<TokenId>, TextError> {
        let mut tokens = self.tokenizer.encode(&format!(" {}", prompt.trim()), false)?;
        tokens.retain(|&token| token < self.eot);
        Ok(tokens)
    }

    /// The text of tokens, without marks and times.
    #[must_use]
    pub fn decode(&self, tokens: &[TokenId]) -> String {
        String::from_utf8_lossy(&self.bytes(tokens)).into_owned()
    }

    /// The bytes of the tokens that are text.
    pub(super) fn bytes(&self, tokens: &[TokenId]) -> Vec<u8> {
        let text = tokens.iter().filter(|&&token| token < self.eot);
        text.flat_map(|&token| self.tokenizer.token_bytes(token).unwrap_or_default()).collect()
    }

    /// Whether a language is written without spaces between words.
    pub(super) fn without_spaces(language: Option<&str>) -> bool {
        language.is_some_and(|code| WITHOUT_SPACES.contains(&code))
    }
}

/// Signs that subtitles have where nobody speaks: music, names of speakers, descriptions in brackets.
const NON_SPEECH: &str = "\" # ( ) * + / : ; < = > @ [ \\ ] ^ _ ` { | } ~ 「 」 『 』 \
    << >> <<< >>> -- --- -( -[ (' (\" (( )) ((( ))) [[ ]] {{ }} ♪♪ ♪♪♪";
/// Notes and their signs: where a tokenizer has no token for one, the first of its tokens is as good, for all begin with it.
const NOTES: &str = "♩ ♪ ♫ ♬ ♭ ♮ ♯";

/// Tokens of signs that are no speech, with and without a space before them; hyphen and apostrophe only with one, since they also
/// stand within words.
fn non_speech(tokenizer: &Tokenizer) -> Result<Vec<TokenId>, TextError> {
    let mut tokens = vec![];
    for word in [" -", " '"] {
        tokens.extend(tokenizer.encode(word, false)?.first());
    }
    let signs = NON_SPEECH.split(' ').filter(|sign| !sign.is_empty()).map(|sign| (sign, false));
    for (sign, note) in signs.chain(NOTES.split(' ').map(|sign| (sign, true))) {
        for written in [sign.to_owned(), format!(" {sign}")] {
            let encoded = tokenizer.encode(&written, false)?;
            if encoded.len() == 1 || note {
                tokens.extend(encoded.first());
            }
        }
    }
    Ok(tokens)
}
