//! A part of a sound and what it wants next: to be encoded, fed or aligned.

use vllm_platform::{Mel, TextId, TokenId, WindowId};
use vllm_speech::{
    Segment,
    vad::SpeechWindow,
    whisper::{Ask, LongForm, Vocabulary, WindowDecoder},
};

use super::sound::Part;

/// A part of a sound, decoded window after window.
#[derive(Debug)]
pub(super) struct Strand {
    pub mel: Mel,
    pub place: Option<SpeechWindow>,
    /// None until the language is known.
    pub long: Option<LongForm>,
    pub stage: Stage,
    /// Segments that are to be told when those of the strands before it are.
    pub heard: Vec<Segment>,
}

/// What a strand waits for.
#[derive(Debug)]
pub(super) enum Stage {
    /// Until the language was heard in the first window.
    Language,
    /// For a window to be encoded; without a decoder, the one in which the language is heard.
    Window { seek: usize, frames: usize, decoder: Option<Box<WindowDecoder>> },
    /// For the model to go on with a text about an encoded window.
    Text { window: WindowId, text: Option<TextId>, task: Task },
    /// Nothing.
    Done,
}

/// Why a text is written about a window.
#[derive(Debug)]
pub(super) enum Task {
    /// To know the language.
    Detect,
    /// To know what is said.
    Decode(Box<WindowDecoder>),
    /// To know how probable its words are; `tokens` are aligned with the window, and the first `fed` of them are fed.
    Align { tokens: Vec<TokenId>, fed: usize, logits: usize, weights: Option<Vec<f32>> },
}

/// Tokens to feed about a window.
#[derive(Debug)]
pub(super) struct Feeding {
    pub window: WindowId,
    /// The text to go on with, or to be ended.
    pub text: Option<TextId>,
    /// Whether another is to be begun.
    pub begins: bool,
    pub tokens: Vec<TokenId>,
    pub logits: usize,
}

/// What logits led to.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// The window is needed no more.
    pub forget: Option<WindowId>,
    /// Attempts that were given up.
    pub fallbacks: usize,
    /// The language that was heard, if it was asked for.
    pub language: Option<(&'static str, f32)>,
}

impl Strand {
    pub fn new(Part { mel, place }: Part) -> Self {
        Self { mel, place, long: None, stage: Stage::Language, heard: Vec::new() }
    }

    /// Goes on to what comes after a window.
    pub fn advance(&mut self) {
        self.stage = match self.long.as_ref().map(LongForm::next) {
            Some(Ask::Decode { seek, frames, decoder }) => Stage::Window { seek, frames, decoder: Some(decoder) },
            _ => Stage::Done,
        };
    }

    /// The window that is to be encoded, if it waits for one.
    pub fn window(&self, bands: usize, window_frames: usize) -> Option<Mel> {
        let Stage::Window { seek, frames, .. } = self.stage else { return None };
        Some(vllm_speech::mel::cut(&self.mel, bands, seek..seek + frames, window_frames))
    }

    /// Its window was encoded.
    pub fn encoded(&mut self, window: WindowId) {
        if let Stage::Window { decoder, .. } = &mut self.stage {
            let task = decoder.take().map_or(Task::Detect, Task::Decode);
            self.stage = Stage::Text { window, text: None, task };
        }
    }

    /// What is to be fed next.
    pub fn feeding(&self, vocabulary: &Vocabulary) -> Option<Feeding> {
        let Stage::Text { window, text, task } = &self.stage else { return None };
        let (begins, tokens, logits) = match task {
            Task::Detect => (true, vocabulary.detection_prompt().to_vec(), 1),
            Task::Decode(decoder) => {
                let feed = decoder.feed()?;
                (feed.begins, feed.tokens.to_vec(), feed.logits)
            }
            Task::Align { tokens, fed, logits, .. } => (true, tokens[..*fed].to_vec(), *logits),
        };
        Some(Feeding { window: *window, text: *text, begins, tokens, logits })
    }

    /// What was fed belongs to this text.
    pub fn fed(&mut self, id: TextId) {
        if let Stage::Text { text, .. } = &mut self.stage {
            *text = Some(id);
        }
    }

    /// The window and text that the model is to align, if that is what comes next.
    pub fn alignment(&self) -> Option<(WindowId, &[TokenId])> {
        match &self.stage {
            Stage::Text { window, task: Task::Align { tokens, weights: None, .. }, .. } => Some((*window, tokens)),
            _ => None,
        }
    }

    /// Takes the weights of what was aligned.
    pub fn aligned(&mut self, found: Vec<f32>) {
        if let Stage::Text { task: Task::Align { weights, .. }, .. } = &mut self.stage {
            *weights = Some(found);
        }
    }

    /// Takes the logits of what was fed.
    pub fn take(&mut self, logits: &mut [f32], vocabulary: &Vocabulary) -> Outcome {
        let mut outcome = Outcome::default();
        let Stage::Text { window, task, .. } = &mut self.stage else { return outcome };
        let window = *window;
        match task {
            Task::Detect => {
                outcome.language = vocabulary.detect_language(logits);
                return outcome;
            }
            Task::Decode(decoder) => {
                let attempts = decoder.attempts();
                decoder.take(logits);
                outcome.fallbacks = decoder.attempts() - attempts;
                if decoder.feed().is_some() {
                    return outcome;
                }
            }
            Task::Align { .. } => {}
        }
        // The text is complete.
        let stage = std::mem::replace(&mut self.stage, Stage::Done);
        let Stage::Text { task, text, .. } = stage else { return outcome };
        if let Some(long) = &mut self.long {
            let segments = match task {
                Task::Decode(decoder) => decoder.finish().map(|decoded| long.decoded(decoded)),
                Task::Align { weights, .. } => weights.map(|weights| long.aligned(&weights, logits)),
                Task::Detect => None,
            };
            self.heard.extend(segments.unwrap_or_default());
            if let Ask::Align { tokens, fed, logits } = long.next() {
                let task = Task::Align { tokens, fed, logits, weights: None };
                self.stage = Stage::Text { window, text, task };
                return outcome;
            }
        }
        outcome.forget = Some(window);
        self.advance();
        outcome
    }
}
