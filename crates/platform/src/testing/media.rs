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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::{
        Features, MediaSpan, ModelRunner, Row, SampleAt, SamplingParams, SeqId, SpanGrid, StepPlan, TokenId,
        testing::FakeRunner,
    };

    const PROMPT: [TokenId; 7] = [1, 9, 9, 9, 9, 2, 3];

    fn span(numbers: [f32; 4]) -> MediaSpan {
        let features = Some(Arc::new(Features::new(numbers.to_vec(), 1, 1)));
        MediaSpan { start: 1, len: 4, first: 0, grid: None, bidirectional: false, features }
    }

    /// Computes the prompt in steps that end at `ends`; media without features where they are not needed any more.
    fn answer(media: &MediaSpan, ends: &[usize]) -> Result<TokenId, String> {
        let mut runner = FakeRunner::new(Default::default());
        let params = SamplingParams::default();
        let (mut start, mut answer) = (0, None);
        for &end in ends {
            let features = media.features.clone().filter(|_| start < media.end());
            let media = [MediaSpan { features, ..media.clone() }];
            let last = end == PROMPT.len();
            let sample = last.then_some(SampleAt { params: &params, prompt: &PROMPT, output: &[], processors: &[] });
            let (tokens, seq) = (&PROMPT[start..end], SeqId(0));
            let media = if end > media[0].start { &media[..] } else { &[] };
            let row = Row { seq, tokens, start, tables: &[vec![4, 7]], media, sample };
            let output = runner.step(&StepPlan { rows: vec![row], ..Default::default() }).map_err(|e| e.to_string())?;
            (start, answer) = (end, output.sampled.first().map(|sampled| sampled.token));
        }
        answer.ok_or_else(|| "no answer".into())
    }

    #[test]
    fn the_answer_is_about_what_is_shown_and_where() {
        let plain = span([1.0, 2.0, 3.0, 4.0]);
        let wanted = answer(&plain, &[7]).unwrap();
        for ends in [&[1, 7][..], &[3, 7], &[2, 4, 6, 7], &[5, 7]] {
            assert_eq!(answer(&plain, ends), Ok(wanted), "{ends:?}");
        }
        let grid = Some(SpanGrid { columns: 2, time: 0, continues: false });
        let others = [
            ("another picture", span([1.0, 2.0, 3.0, 5.0])),
            ("in another order", span([2.0, 1.0, 3.0, 4.0])),
            ("on axes", MediaSpan { grid, ..plain.clone() }),
            ("seeing itself", MediaSpan { bidirectional: true, ..plain.clone() }),
        ];
        // One answer may be the same by chance: there are 64.
        let answers: Vec<_> = others.iter().map(|(_, other)| answer(other, &[7]).unwrap()).collect();
        assert!(answers.iter().filter(|&&answer| answer == wanted).count() <= 1, "{wanted}: {answers:?}");
        let seen = |media: &MediaSpan| super::shown(&row(media));
        for (name, other) in &others {
            assert_ne!(seen(other), seen(&plain), "{name}");
        }
    }

    fn row(media: &MediaSpan) -> Row<'_> {
        let media = std::slice::from_ref(media);
        Row { seq: SeqId(0), tokens: &PROMPT, start: 0, tables: &[], media, sample: None }
    }

    #[test]
    fn media_that_break_the_rules_are_named() {
        let plain = span([1.0; 4]);
        let cases = [
            ("no features", MediaSpan { features: None, ..plain.clone() }, &[7][..], "and has no features"),
            ("too few", MediaSpan { first: 1, ..plain.clone() }, &[7], "has too few vectors"),
            ("empty", MediaSpan { len: 0, ..plain.clone() }, &[7], "has no tokens"),
            ("cut", MediaSpan { bidirectional: true, ..plain.clone() }, &[3, 7], "is cut in two"),
        ];
        for (name, media, ends, wanted) in cases {
            let error = answer(&media, ends).unwrap_err();
            assert!(error.contains(wanted), "{name}: {error}");
        }
        let late = super::check(&row(&MediaSpan { start: 7, ..plain.clone() })).unwrap_err();
        assert!(late.contains("begins after the row's end"), "{late}");
        let twice = [plain.clone(), MediaSpan { start: 4, ..plain.clone() }];
        let error = super::check(&Row { media: &twice, ..row(&plain) }).unwrap_err();
        assert!(error.contains("before the one before it ends"), "{error}");
    }
}
