//! Where a program's values lie in its memory: those that are never there at once share it.

use std::ops::Range;

use crate::ffi::program::ALIGNMENT;

/// Something that one operation makes and later ones read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Value {
    pub bytes: usize,
    /// The number of the operation that makes it.
    pub made: usize,
    /// The number of the last operation that reads it, or of its own.
    pub last_use: usize,
}

/// Offsets in bytes for values in the order in which they are made: each in the tightest gap between those that are still
/// read, or at the end.
pub(super) fn place(values: &[Value]) -> Vec<usize> {
    // By offset.
    let mut living: Vec<(Range<usize>, usize)> = Vec::new();
    let mut offsets = Vec::with_capacity(values.len());
    for value in values {
        // What the making operation itself reads must not be written over.
        living.retain(|&(_, last_use)| last_use >= value.made);
        let len = value.bytes.next_multiple_of(ALIGNMENT).max(ALIGNMENT);
        let mut end = 0;
        let mut gaps: Vec<Range<usize>> = Vec::new();
        for (range, _) in &living {
            gaps.push(end..range.start);
            end = range.end;
        }
        let tightest = gaps.into_iter().filter(|gap| gap.len() >= len).min_by_key(Range::len);
        let start = tightest.map_or(end, |gap| gap.start);
        let at = living.partition_point(|(range, _)| range.start < start);
        living.insert(at, (start..start + len, value.last_use));
        offsets.push(start);
    }
    offsets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bytes: usize, made: usize, last_use: usize) -> Value {
        Value { bytes, made, last_use }
    }

    #[test]
    fn a_chain_needs_room_for_two() {
        let chain: Vec<_> = (0..10).map(|i| value(100, i, i + 1)).collect();
        let offsets = place(&chain);
        assert_eq!(&offsets[..4], [0, 128, 0, 128]);
        assert!(offsets.iter().all(|&at| at <= 128));
    }

    #[test]
    fn what_is_read_later_is_never_written_over() {
        // A residual stream beside short-lived values of many sizes.
        let values: Vec<_> =
            (0..60).map(|i| value(64 * (1 + i * 7 % 5), i, if i % 6 == 0 { i + 6 } else { i + 1 })).collect();
        let offsets = place(&values);
        for (i, (a, &at)) in values.iter().zip(&offsets).enumerate() {
            for (b, &other) in values.iter().zip(&offsets).skip(i + 1) {
                let together = b.made <= a.last_use;
                let apart = at + a.bytes <= other || other + b.bytes <= at;
                assert!(!together || apart, "{a:?} at {at}, {b:?} at {other}");
            }
        }
        let all: usize = values.iter().map(|value| value.bytes).sum();
        let most = values.iter().zip(&offsets).map(|(value, at)| at + value.bytes).max().unwrap_or(0);
        assert!(most < all / 4, "{most} of {all} bytes");
    }

    #[test]
    fn the_tightest_gap_is_taken() {
        let values = [value(256, 0, 0), value(64, 0, 9), value(64, 0, 0), value(64, 0, 9), value(64, 2, 3)];
        assert_eq!(place(&values), [0, 256, 320, 384, 320]);
    }
}
