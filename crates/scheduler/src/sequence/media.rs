//! The media of a sequence, and which of their features are at hand.

use std::{collections::HashMap, sync::Arc};

use vllm_cache::MediaMark;
use vllm_platform::{ContentHash, Features, MediaSpan};

use crate::{FeatureOrigin, FeatureSource, RequestMedia, Wake};

/// Features are needed of what its prefix in the KV cache does not cover: they are asked for before it is admitted, kept
/// until they are computed, and asked for again if it has to start again.
#[derive(Debug)]
pub(crate) struct Media {
    /// In order; with features where they are at hand and still needed.
    spans: Vec<MediaSpan>,
    /// What each span shows.
    parts: Vec<Part>,
    stage: Stage,
    /// The most of its prefix that may count as cached: more could not be taken over for want of room.
    limit: usize,
}

/// What a span shows.
#[derive(Debug)]
struct Part {
    /// Those with the same key have the same features.
    key: ContentHash,
    source: Arc<dyn FeatureSource>,
    /// Where the features came from when they were last at hand, as far as that is known.
    origin: Option<FeatureOrigin>,
}

/// Features, if they are there, and where they came from.
type Answer = Option<(Arc<Features>, Option<FeatureOrigin>)>;

/// How far a sequence that waits is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Nobody has looked what it needs.
    New,
    /// It needs features that were not asked for yet.
    Wanting,
    /// They were asked for.
    Asking,
    /// All it needs is at hand, if its prefix is still in the cache.
    Ready,
}

impl Media {
    /// The media of a request, and their marks for its prefix.
    pub fn new(media: Vec<RequestMedia>) -> (Self, Vec<MediaMark>) {
        let marks = media.iter().map(|medium| MediaMark::of(&medium.span, medium.key)).collect();
        let stage = if media.is_empty() { Stage::Ready } else { Stage::New };
        let split = |RequestMedia { span, key, features: source }| {
            (MediaSpan { features: None, ..span }, Part { key, source, origin: None })
        };
        let (spans, parts) = media.into_iter().map(split).unzip();
        (Self { spans, parts, stage, limit: usize::MAX }, marks)
    }

    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    pub fn stage(&self) -> Stage {
        self.stage
    }

    pub fn set_stage(&mut self, stage: Stage) {
        self.stage = stage;
    }

    pub fn limit(&self) -> usize {
        self.limit
    }

    /// All that begin before token `end`.
    pub fn until(&self, end: usize) -> &[MediaSpan] {
        &self.spans[..self.spans.partition_point(|span| span.start < end)]
    }

    /// Whether any features are held.
    pub fn holds_any(&self) -> bool {
        self.spans.iter().any(|span| span.features.is_some())
    }

    /// Spans not covered by the first `covered` tokens whose features are not at hand.
    pub fn lacking(&self, covered: usize) -> usize {
        self.spans.iter().filter(|span| lacks(span, covered)).count()
    }

    /// Asks for what [is lacking](Self::lacking).
    ///
    /// # Errors
    /// Why there are no features of one of them.
    pub fn ask(&mut self, covered: usize, wake: &Wake) -> Result<(), String> {
        // Spans of one picture, or of equal ones, are asked for once.
        let mut known: HashMap<ContentHash, Answer> = HashMap::new();
        for (span, part) in self.spans.iter().zip(&self.parts) {
            if let Some(features) = &span.features {
                known.insert(part.key, Some((Arc::clone(features), part.origin)));
            }
        }
        for (index, (span, part)) in self.spans.iter_mut().zip(&mut self.parts).enumerate() {
            if !lacks(span, covered) {
                continue;
            }
            let answer = match known.get(&part.key) {
                Some(answer) => answer.clone(),
                None => {
                    let answer = part.source.poll(wake).transpose();
                    let answer = answer.map_err(|why| format!("medium {index} of the prompt: {why}"))?;
                    let answer = answer.map(|features| (features, part.source.origin()));
                    known.insert(part.key, answer.clone());
                    answer
                }
            };
            let Some((features, origin)) = answer else { continue };
            let (there, wanted) = (features.tokens(), span.first + span.len);
            if there < wanted {
                return Err(format!("medium {index} of the prompt has {there} vectors, and its tokens take {wanted}"));
            }
            (span.features, part.origin) = (Some(features), origin);
        }
        Ok(())
    }

    /// Lets go of all features.
    pub fn let_go(&mut self) {
        self.spans.iter_mut().for_each(|span| span.features = None);
    }

    /// It turned out that no more than `covered` tokens of its prefix can be had, and features are lacking.
    pub fn look_again(&mut self, covered: usize) {
        self.stage = Stage::New;
        self.limit = covered;
    }

    /// Nothing of the sequence is computed any more.
    pub fn start_again(&mut self) {
        if !self.is_empty() {
            self.stage = Stage::New;
            self.limit = usize::MAX;
        }
    }

    /// The KV of the first `computed` tokens is there: features of what they cover are not needed any more.
    pub fn mark_computed(&mut self, computed: usize) {
        let covered = self.spans.iter_mut().take_while(|span| span.end() <= computed);
        covered.for_each(|span| span.features = None);
    }

    /// `until`, or another place near it for a step from token `from` on to end at, so that it cuts no span in two whose
    /// tokens see each other: before such a span if there is something to compute before it, else after it.
    pub fn end_of_step(&self, from: usize, until: usize) -> usize {
        let cut = self.until(until).last().filter(|span| span.bidirectional && span.end() > until);
        cut.map_or(until, |span| if span.start > from { span.start } else { span.end() })
    }

    /// Tokens that stand for media among those before `end`.
    pub fn tokens(&self, end: usize) -> usize {
        self.spans.iter().map(|span| span.end().min(end).saturating_sub(span.start)).sum()
    }

    /// Tokens after the first `covered` ones whose features nobody had to work out for this sequence.
    pub fn reused_tokens(&self, covered: usize) -> usize {
        use FeatureOrigin::{Joined, Memory, Ssd};
        let reused = |part: &Part| matches!(part.origin, Some(Joined | Memory | Ssd));
        let spans = self.spans.iter().zip(&self.parts).filter(|(_, part)| reused(part));
        spans.map(|(span, _)| span.end().saturating_sub(covered.max(span.start))).sum()
    }
}

fn lacks(span: &MediaSpan, covered: usize) -> bool {
    span.end() > covered && span.features.is_none()
}
