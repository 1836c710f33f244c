//! Media within a sequence: which of its tokens only hold the place of a picture's vectors.

use sha2::{Digest, Sha256};
use vllm_platform::{ContentHash, MediaSpan, SpanGrid};

/// A stretch of tokens that stand for vectors of one medium, one after the other. Tokens under a mark are what their
/// vectors are: their ids are the same for all pictures and say nothing.
///
/// Marks of a sequence, or of a block, are in order and don't overlap; and none goes on where another ends that has the
/// same key and the vectors before it, for that would be one mark. So two lists of marks say the same only if they are
/// equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MediaMark {
    /// The first of the tokens, from the start of the sequence or of the block.
    pub start: usize,
    /// Tokens.
    pub len: usize,
    /// What they show, and all else that their keys and values depend on.
    pub key: ContentHash,
    /// The vector that the first token stands for.
    pub first: usize,
}

impl MediaMark {
    /// The mark of a span that shows `content`.
    ///
    /// What stands in a KV cache for a token is more than its vector: where it stands on the axes of the rotary embedding
    /// (which the place in its span decides) and, in spans whose tokens see each other, the whole span. Marks of spans
    /// that differ in these have different keys.
    #[must_use]
    pub fn of(span: &MediaSpan, content: ContentHash) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(content.0);
        let mut number = |number: usize| hasher.update((number as u64).to_le_bytes());
        if let Some(SpanGrid { columns, time, continues }) = span.grid {
            [1, columns, time, usize::from(continues), span.first].into_iter().for_each(&mut number);
        }
        if span.bidirectional {
            [2, span.first, span.len].into_iter().for_each(&mut number);
        }
        let plain = span.grid.is_none() && !span.bidirectional;
        let key = if plain { content } else { short(hasher) };
        Self { start: span.start, len: span.len, key, first: span.first }
    }

    fn end(&self) -> usize {
        self.start + self.len
    }

    /// Whether `next` could be the rest of this mark.
    fn goes_on_as(&self, next: &Self) -> bool {
        self.key == next.key && self.end() == next.start && self.first + self.len == next.first
    }
}

/// What `content` is to one encoder: weights of another kind see another thing in it.
#[must_use]
pub fn seen_by(fingerprint: &str, content: ContentHash) -> ContentHash {
    let mut hasher = Sha256::new();
    hasher.update(content.0);
    hasher.update(fingerprint);
    short(hasher)
}

fn short(hasher: Sha256) -> ContentHash {
    let mut hash = [0; 16];
    hash.copy_from_slice(&hasher.finalize()[..16]);
    ContentHash(hash)
}

/// Marks in order, without those that are empty, and those put together that are one.
pub(crate) fn put_together(marks: impl IntoIterator<Item = MediaMark>) -> Vec<MediaMark> {
    let mut together: Vec<MediaMark> = Vec::new();
    for mark in marks.into_iter().filter(|mark| mark.len > 0) {
        match together.last_mut() {
            Some(last) if last.goes_on_as(&mark) => last.len += mark.len,
            _ => together.push(mark),
        }
    }
    together
}

/// What of `marks` lies within `start..end`, counted from `start`.
pub(crate) fn within(marks: &[MediaMark], start: usize, end: usize) -> Vec<MediaMark> {
    let first = marks.partition_point(|mark| mark.end() <= start);
    let inside = marks[first..].iter().take_while(|mark| mark.start < end && start < end);
    inside
        .map(|mark| {
            let skipped = start.saturating_sub(mark.start);
            let len = mark.end().min(end) - mark.start - skipped;
            MediaMark { start: mark.start + skipped - start, len, key: mark.key, first: mark.first + skipped }
        })
        .collect()
}

/// The first token that the two say different things of; `usize::MAX` if there is none.
pub(crate) fn first_difference(a: &[MediaMark], b: &[MediaMark]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    match (a.get(same), b.get(same)) {
        (Some(a), Some(b)) if (a.start, a.key, a.first) == (b.start, b.key, b.first) => a.start + a.len.min(b.len),
        (Some(a), Some(b)) => a.start.min(b.start),
        (Some(mark), None) | (None, Some(mark)) => mark.start,
        (None, None) => usize::MAX,
    }
}

#[cfg(test)]
mod tests;
