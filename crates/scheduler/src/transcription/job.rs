//! A request to a listener, and how far it is: what it wants encoded, fed or aligned next.

use std::{collections::VecDeque, sync::Arc};

use vllm_platform::{ListenerInfo, Mel, TextId, TokenId, WindowId};
use vllm_speech::{
    Segment,
    vad::SpeechWindow,
    whisper::{Ask, DecodingOptions, LongForm, Vocabulary, WindowDecoder},
};

use super::{
    TranscriptEvent,
    queue::{Account, Entry},
    sound::{Part, Prepared, restore},
};

/// A request.
#[derive(Debug)]
pub(super) struct Job {
    pub account: Account,
    options: Arc<DecodingOptions>,
    pub duration: f64,
    /// The sound's parts, each decoded for itself; those that were told are gone.
    pub strands: VecDeque<Strand>,
    /// Segments told so far.
    segments: usize,
    pub windows: usize,
    pub tokens: usize,
    /// Why it cannot go on, if it cannot: its prompt is nothing that the tokenizer takes.
    pub refused: Option<String>,
}

/// A part of a sound, decoded window after window.
#[derive(Debug)]
pub(super) struct Strand {
    mel: Mel,
    frames: usize,
    place: Option<SpeechWindow>,
    /// None until the language is known.
    long: Option<LongForm>,
    pub stage: Stage,
    /// Segments that are to be told when those of the strands before it are.
    heard: Vec<Segment>,
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

impl Job {
    pub fn new(prepared: Prepared, account: Account, vocabulary: &Arc<Vocabulary>, listener: &ListenerInfo) -> Self {
        let Prepared { parts, options, language, duration } = prepared;
        let strand = |Part { mel, frames, place }| Strand {
            mel,
            frames,
            place,
            long: None,
            stage: Stage::Language,
            heard: Vec::new(),
        };
        let strands = parts.into_iter().map(strand).collect();
        let mut job = Self { account, options, duration, strands, segments: 0, windows: 0, tokens: 0, refused: None };
        let known = match language {
            None if vocabulary.is_multilingual() => None,
            // Nobody tells a model that knows one language which it is.
            language => Some((language.unwrap_or("en"), language)),
        };
        match known {
            Some(_) if job.strands.is_empty() => {}
            Some((code, language)) => {
                job.account.caller.tell(TranscriptEvent::Language { code, probability: 1.0 });
                job.begin(language, vocabulary, listener);
            }
            None => {
                if let Some(first) = job.strands.front_mut() {
                    let frames = first.frames.min(listener.window_frames);
                    first.stage = Stage::Window { seek: 0, frames, decoder: None };
                }
            }
        }
        job
    }

    /// The language is known: the strands that wait for it begin.
    fn begin(&mut self, language: Option<&'static str>, vocabulary: &Arc<Vocabulary>, listener: &ListenerInfo) {
        for strand in &mut self.strands {
            let (vocabulary, options) = (Arc::clone(vocabulary), Arc::clone(&self.options));
            match LongForm::new(vocabulary, options, language, strand.frames, listener) {
                Ok(long) => strand.long = Some(long),
                Err(error) => {
                    self.refused = Some(error.to_string());
                    return;
                }
            }
            if matches!(strand.stage, Stage::Language) {
                strand.advance();
            }
        }
    }

    /// The language was heard in the window of the first strand, which is decoded next.
    pub fn heard_language(
        &mut self,
        (code, probability): (&'static str, f32),
        vocabulary: &Arc<Vocabulary>,
        listener: &ListenerInfo,
    ) {
        self.account.caller.tell(TranscriptEvent::Language { code, probability });
        self.begin(Some(code), vocabulary, listener);
        if let Some(first) = self.strands.front_mut()
            && let (Stage::Text { task, .. }, Some(long)) = (&mut first.stage, &first.long)
            && let Ask::Decode { decoder, .. } = long.next()
        {
            *task = Task::Decode(decoder);
        }
    }

    /// Tells the segments that are next, and whether that was all.
    pub fn tell(&mut self, frames_per_second: f64) -> bool {
        while let Some(strand) = self.strands.front_mut() {
            for mut segment in strand.heard.drain(..) {
                restore(&mut segment, strand.place.as_ref(), frames_per_second);
                segment.id = self.segments;
                self.segments += 1;
                self.account.caller.tell(TranscriptEvent::Segment(segment));
            }
            if !matches!(strand.stage, Stage::Done) {
                return false;
            }
            self.strands.pop_front();
        }
        true
    }

    /// The windows that the model keeps for it.
    pub fn held(&self) -> impl Iterator<Item = WindowId> {
        self.strands.iter().filter_map(|strand| match strand.stage {
            Stage::Text { window, .. } => Some(window),
            _ => None,
        })
    }

    /// The `nth` strand that waits for a window.
    pub fn waiting_strand(&self, nth: usize) -> Option<usize> {
        let waits = |strand: &Strand| matches!(strand.stage, Stage::Window { .. });
        (0..self.strands.len()).filter(|&index| waits(&self.strands[index])).nth(nth)
    }
}

impl Entry for Job {
    fn account(&self) -> &Account {
        &self.account
    }

    fn account_mut(&mut self) -> &mut Account {
        &mut self.account
    }

    fn waiting(&self) -> usize {
        self.strands.iter().filter(|strand| matches!(strand.stage, Stage::Window { .. })).count()
    }
}

impl Strand {
    /// Goes on to what comes after a window.
    fn advance(&mut self) {
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
