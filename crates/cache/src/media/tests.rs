use proptest::prelude::*;
use vllm_platform::SpanGrid;

use super::*;

fn mark(start: usize, len: usize, key: u8, first: usize) -> MediaMark {
    MediaMark { start, len, key: ContentHash([key; 16]), first }
}

/// For each of the first `len` tokens, what it stands for.
fn spelled(marks: &[MediaMark], len: usize) -> Vec<Option<(ContentHash, usize)>> {
    let shown = |place: usize| {
        let mark = marks.iter().find(|mark| (mark.start..mark.start + mark.len).contains(&place))?;
        Some((mark.key, mark.first + place - mark.start))
    };
    (0..len).map(shown).collect()
}

const LEN: usize = 24;

/// Marks in order, of few keys, so that equal ones and ones that go on are frequent.
fn marks() -> impl Strategy<Value = Vec<MediaMark>> {
    let one = (0usize..3, 0usize..5, 0u8..2, 0usize..4, any::<bool>());
    prop::collection::vec(one, 0..6).prop_map(|steps| {
        let mut marks: Vec<MediaMark> = Vec::new();
        let mut place = 0;
        for (gap, len, key, first, goes_on) in steps {
            let last = marks.last().copied().filter(|_| goes_on);
            let next = match last {
                Some(last) => mark(last.end(), len, last.key.0[0], last.first + last.len),
                None => mark(place + gap, len, key, first),
            };
            place = next.end();
            if place <= LEN {
                marks.push(next);
            }
        }
        marks
    })
}

proptest! {
    #[test]
    fn marks_say_what_they_spell(a in marks(), b in marks(), cut in 0usize..LEN, len in 0usize..LEN) {
        let (there, other) = (put_together(a.clone()), put_together(b));
        prop_assert_eq!(spelled(&there, LEN), spelled(&a, LEN));
        let (first, second) = (spelled(&there, LEN), spelled(&other, LEN));
        let wanted = first.iter().zip(&second).position(|(a, b)| a != b).unwrap_or(usize::MAX);
        prop_assert_eq!(first_difference(&there, &other), wanted);
        prop_assert_eq!(there == other, first == second, "one way of saying it");
        let end = LEN.min(cut + len);
        let inside = within(&there, cut, end);
        prop_assert_eq!(spelled(&inside, end - cut), spelled(&there, LEN)[cut..end].to_vec());
        prop_assert_eq!(put_together(inside.clone()), inside);
    }
}

#[test]
fn keys_cover_all_that_kv_depends_on() {
    let content = ContentHash([7; 16]);
    let plain = MediaSpan { start: 9, len: 6, first: 2, grid: None, bidirectional: false, features: None };
    assert_eq!(MediaMark::of(&plain, content), MediaMark { start: 9, len: 6, key: content, first: 2 });
    let grid = SpanGrid { columns: 3, time: 0, continues: false };
    let on = |grid| MediaSpan { grid: Some(grid), ..plain.clone() };
    let whole = MediaSpan { bidirectional: true, ..plain.clone() };
    let spans = [
        plain.clone(),
        on(grid),
        on(SpanGrid { columns: 2, ..grid }),
        on(SpanGrid { time: 1, ..grid }),
        on(SpanGrid { continues: true, ..grid }),
        // Another row of the picture.
        MediaSpan { first: 3, ..on(grid) },
        whole.clone(),
        MediaSpan { len: 5, ..whole.clone() },
        MediaSpan { first: 3, ..whole.clone() },
        MediaSpan { bidirectional: true, ..on(grid) },
    ];
    let mut keys: Vec<ContentHash> = spans.iter().map(|span| MediaMark::of(span, content).key).collect();
    keys.push(MediaMark::of(&whole, ContentHash([8; 16])).key);
    keys.extend(["a", "b"].map(|fingerprint| seen_by(fingerprint, content)));
    let count = keys.len();
    keys.sort_unstable();
    keys.dedup();
    assert_eq!(keys.len(), count);
    // Where in the sequence, and how much of a picture whose tokens see only what is before them, is all the same.
    let elsewhere = MediaSpan { start: 1, len: 2, ..on(grid) };
    assert_eq!(MediaMark::of(&elsewhere, content).key, MediaMark::of(&on(grid), content).key);
}
