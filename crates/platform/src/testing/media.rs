//! What a row's media must be, and what its tokens stand for.

use super::mix;
use crate::{Features, MediaSpan, Row, rope_positions};

/// Whether a row's media are as [`Row::media`] says.
pub(super) fn check(row: &Row<'_>) -> Result<(), String> {
    let end = row.start + row.tokens.len();
    let mut before = 0;
    for (index, span) in row.media.iter().enumerate() {
        let error = |what: &str| Err(format!("medium {index}, of tokens {}..{}, {what}", span.start, span.end()));
        if span.len == 0 {
            return error("has no tokens");
        }
        if span.start < before {
            return error("begins before the one before it ends");
        }
        if span.start >= end {
            return error("begins after the row's end");
        }
        if span.bidirectional && span.end() > end {
            return error("is cut in two");
        }
        before = span.end();
        if span.end() > row.start {
            match &span.features {
                None => return error("is computed and has no features"),
                Some(features) if features.tokens() < span.first + span.len => return error("has too few vectors"),
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// For each token of a row: 0, or a digest of what it stands for and where.
pub(super) fn shown(row: &Row<'_>) -> Vec<u64> {
    let mut shown = vec![0; row.tokens.len()];
    let positions = if row.media.is_empty() { Vec::new() } else { rope_positions(row.media, row.start, shown.len()) };
    for span in row.media {
        let Some(features) = &span.features else { continue };
        for place in span.start.max(row.start)..span.end().min(row.start + shown.len()) {
            let (offset, vector) = (place - row.start, span.first + place - span.start);
            let placed = positions[offset].iter().fold(digest(features, vector), |z, &axis| mix(z, axis.into()));
            // What sees the whole span depends on all of it.
            let seen = if span.bidirectional { mix(placed, whole(span, features)) } else { placed };
            shown[offset] = seen.max(1);
        }
    }
    shown
}

fn digest(features: &Features, vector: usize) -> u64 {
    let of_level = |level: usize| &features.level(level)[vector * features.width()..(vector + 1) * features.width()];
    let numbers = (0..features.levels()).flat_map(of_level);
    numbers.fold(1, |digest, number| mix(digest, number.to_bits().into()))
}

fn whole(span: &MediaSpan, features: &Features) -> u64 {
    let vectors = span.first..span.first + span.len;
    vectors.fold(2, |all, vector| mix(all, digest(features, vector)))
}
