//! Who gets which layers.

use std::ops::Range;

use vllm_platform::ModelOutline;

/// How a model is to be spread over ranks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Split {
    /// Bytes as each rank has memory.
    #[default]
    Memory,
    /// Bytes as these, by rank.
    Bytes(Vec<u64>),
    /// So many layers, by rank.
    Layers(Vec<usize>),
}

/// Why it can't.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// `--pipeline-split` is for another number of ranks.
    #[error("--pipeline-split has {given} numbers for {ranks} ranks")]
    Count {
        /// Numbers.
        given: usize,
        /// Ranks.
        ranks: usize,
    },
    /// The layers don't add up.
    #[error("--pipeline-split adds up to {given} layers, each rank at least 1: the model has {layers}")]
    Sum {
        /// By the option.
        given: usize,
        /// By the model.
        layers: usize,
    },
    /// Somebody would have none.
    #[error("{ranks} ranks can't share {layers} layers")]
    TooMany {
        /// Ranks.
        ranks: usize,
        /// Layers.
        layers: usize,
    },
    /// Weights exceed a rank's memory.
    #[error("rank {rank} would hold {} MiB of weights, and has {} MiB of memory", bytes >> 20, memory >> 20)]
    Memory {
        /// The rank.
        rank: usize,
        /// Of its weights.
        bytes: u64,
        /// Of its memory.
        memory: u64,
    },
}

/// The layers of each rank, by rank: the last rank has the first ones. `memory` has the bytes that each rank has.
///
/// By bytes, no rank's load (bytes of its weights, by its share) is larger than it must be.
///
/// # Errors
/// [`SplitError`].
pub fn split(outline: &ModelOutline, split: &Split, memory: &[u64]) -> Result<Vec<Range<usize>>, SplitError> {
    let (ranks, layers) = (memory.len(), outline.layers.len());
    if ranks > layers {
        return Err(SplitError::TooMany { ranks, layers });
    }
    let shares = match split {
        Split::Memory => memory,
        Split::Bytes(shares) => shares,
        Split::Layers(counts) => {
            let ranges = by_counts(counts, ranks, layers)?;
            return fitting(outline, ranges, memory);
        }
    };
    if shares.len() != ranks {
        return Err(SplitError::Count { given: shares.len(), ranks });
    }
    fitting(outline, by_bytes(outline, shares), memory)
}

fn by_counts(counts: &[usize], ranks: usize, layers: usize) -> Result<Vec<Range<usize>>, SplitError> {
    if counts.len() != ranks {
        return Err(SplitError::Count { given: counts.len(), ranks });
    }
    let given = counts.iter().sum();
    if given != layers || counts.contains(&0) {
        return Err(SplitError::Sum { given, layers });
    }
    let mut end = layers;
    let range = |&count: &usize| {
        end -= count;
        end..end + count
    };
    Ok(counts.iter().map(range).collect())
}

/// The cuts with the least largest load, found for the first stages first.
fn by_bytes(outline: &ModelOutline, shares: &[u64]) -> Vec<Range<usize>> {
    let (ranks, layers) = (shares.len(), outline.layers.len());
    let load = |rank: usize, range: Range<usize>| outline.bytes(&range) as f64 / shares[rank].max(1) as f64;
    // best[end]: the largest load if the stages so far share the layers before `end`, and where the last of them begins.
    let mut best: Vec<Option<f64>> = vec![None; layers + 1];
    best[0] = Some(0.0);
    let mut begins: Vec<Vec<usize>> = Vec::new();
    for rank in (0..ranks).rev() {
        let mut next = vec![None; layers + 1];
        let mut begin = vec![0; layers + 1];
        for end in 1..=layers {
            for (start, before) in best.iter().enumerate().take(end) {
                let Some(before) = *before else { continue };
                let largest = load(rank, start..end).max(before);
                if next[end].is_none_or(|least| largest < least) {
                    (next[end], begin[end]) = (Some(largest), start);
                }
            }
        }
        best = next;
        begins.push(begin);
    }
    let mut end = layers;
    let back = |begin: Vec<usize>| {
        let range = begin[end]..end;
        end = range.start;
        range
    };
    // The stages last found are rank 0's.
    begins.into_iter().rev().map(back).collect()
}

fn fitting(outline: &ModelOutline, ranges: Vec<Range<usize>>, memory: &[u64]) -> Result<Vec<Range<usize>>, SplitError> {
    for (rank, (range, &memory)) in ranges.iter().zip(memory).enumerate() {
        let bytes = outline.bytes(range);
        if bytes > memory {
            return Err(SplitError::Memory { rank, bytes, memory });
        }
    }
    Ok(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outline(layers: usize, ends: u64) -> ModelOutline {
        let (architecture, fingerprint) = (String::new(), String::new());
        ModelOutline { architecture, fingerprint, layers: vec![100; layers], before: ends, after: ends }
    }

    #[test]
    fn layers_go_where_the_bytes_have_room() {
        for (name, ends, how, memory, wanted) in [
            ("alike", 0, Split::Memory, &[1000, 1000][..], vec![5..10, 0..5]),
            ("three", 0, Split::Memory, &[1000, 1000, 1000], vec![7..10, 3..7, 0..3]),
            ("twice as much", 0, Split::Memory, &[4000, 2000], vec![3..10, 0..3]),
            ("bytes", 0, Split::Bytes(vec![1, 4]), &[2000, 2000], vec![8..10, 0..8]),
            ("large ends", 300, Split::Memory, &[2000, 2000, 2000], vec![7..10, 2..7, 0..2]),
            ("layers", 0, Split::Layers(vec![1, 7, 2]), &[2000, 2000, 2000], vec![9..10, 2..9, 0..2]),
        ] {
            let found = split(&outline(10, ends), &how, memory).unwrap();
            // Cuts may be as good elsewhere: what counts is the largest load.
            let load = |ranges: &[Range<usize>]| {
                let shares: Vec<u64> = match &how {
                    Split::Bytes(shares) => shares.clone(),
                    _ => memory.to_vec(),
                };
                let loads =
                    ranges.iter().zip(&shares).map(|(range, share)| outline(10, ends).bytes(range) * 1000 / share);
                loads.max().unwrap()
            };
            assert_eq!(load(&found), load(&wanted), "{name}: {found:?}, {wanted:?} wanted");
            assert_eq!((found[0].end, found.last().unwrap().start), (10, 0), "{name}");
            assert!(found.windows(2).all(|pair| pair[1].end == pair[0].start), "{name}: {found:?}");
        }
    }

    #[test]
    fn what_cannot_be_split_is_refused() {
        let memory = &[500u64, 500][..];
        for (name, layers, how, memory, wanted) in [
            ("too few numbers", 4, Split::Layers(vec![4]), memory, "--pipeline-split has 1 numbers for 2 ranks"),
            ("too few bytes", 4, Split::Bytes(vec![4]), memory, "--pipeline-split has 1 numbers for 2 ranks"),
            ("too few layers", 4, Split::Layers(vec![1, 2]), memory, "--pipeline-split adds up to 3 layers"),
            ("none for one", 4, Split::Layers(vec![4, 0]), memory, "each rank at least 1"),
            ("more ranks than layers", 1, Split::Memory, memory, "2 ranks can't share 1 layers"),
            ("too large", 40, Split::Memory, memory, "rank 0 would hold 0 MiB of weights, and has 0 MiB of memory"),
        ] {
            let error = split(&outline(layers, 0), &how, memory).unwrap_err().to_string();
            assert!(error.contains(wanted), "{name}: {error}");
        }
    }
}
