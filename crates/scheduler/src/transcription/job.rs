//! A request to a listener, and how far it is.

use std::{collections::VecDeque, sync::Arc};

use vllm_platform::{ListenerInfo, WindowId};
use vllm_speech::whisper::{Ask, DecodingOptions, LongForm, Vocabulary};

use super::{
    TranscriptEvent,
    queue::{Account, Entry},
    sound::{Prepared, restore},
    strand::{Stage, Strand, Task},
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

impl Job {
    pub fn new(prepared: Prepared, account: Account, vocabulary: &Arc<Vocabulary>, listener: &ListenerInfo) -> Self {
        let Prepared { parts, options, language, duration } = prepared;
        let strands = parts.into_iter().map(Strand::new).collect();
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
                    let frames = first.mel.frames.min(listener.window_frames);
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
            match LongForm::new(vocabulary, options, language, strand.mel.frames, listener) {
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
