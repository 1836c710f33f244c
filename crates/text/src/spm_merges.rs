//! SentencePiece BPE (pieces with scores) as ranked merges.
//!
//! SentencePiece joins, again and again, the two neighbours whose joined piece has the best score. That is BPE with one
//! merge for every way to cut a piece into two pieces, ranked by the whole piece's score (Kudo & Richardson 2018; the
//! order among equals is that of the `transformers` converter, so that both give the same tokens).

use tokenizers::models::bpe::{Merges, Vocab};

/// A way to make piece `token` out of two.
struct Cut {
    token: u32,
    /// Byte offset of the cut in the piece.
    at: u32,
    score: f32,
    /// Lengths of the two parts in characters.
    left: u32,
    right: u32,
}

/// All merges that lead to the pieces for which `is_normal` holds, best first.
pub(crate) fn from_scores(
    tokens: &[String],
    scores: &[f32],
    is_normal: impl Fn(usize) -> bool,
    vocab: &Vocab,
) -> Merges {
    let mut cuts = Vec::with_capacity(tokens.len() * 2);
    for (id, (piece, &score)) in tokens.iter().zip(scores).enumerate() {
        if !is_normal(id) {
            continue;
        }
        let first = cuts.len();
        for (left, (at, _)) in piece.char_indices().enumerate().skip(1) {
            let (start, end) = piece.split_at(at);
            if vocab.contains_key(start) && vocab.contains_key(end) {
                cuts.push(Cut { token: id as u32, at: at as u32, score, left: left as u32, right: 0 });
            }
        }
        if cuts.len() > first {
            let length = piece.chars().count() as u32;
            for cut in &mut cuts[first..] {
                cut.right = length - cut.left;
            }
        }
    }
    cuts.sort_by(|a, b| b.score.total_cmp(&a.score).then(b.left.cmp(&a.left)).then(b.right.cmp(&a.right)));
    cuts.iter()
        .map(|cut| {
            let (left, right) = tokens[cut.token as usize].split_at(cut.at as usize);
            (left.to_owned(), right.to_owned())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn merges_are_ranked_by_the_score_of_what_they_make() {
        let pieces = ["<s>", "a", "b", "c", "ab", "bc", "abc"];
        let scores = [0.0, -10.0, -11.0, -12.0, -2.0, -1.0, -3.0];
        let tokens: Vec<String> = pieces.iter().map(|&piece| piece.to_owned()).collect();
        let vocab: Vocab = tokens.iter().cloned().zip(0..).collect();
        let merges = from_scores(&tokens, &scores, |id| id != 0, &vocab);
        let merges: Vec<(&str, &str)> = merges.iter().map(|(l, r)| (l.as_str(), r.as_str())).collect();
        // "abc" twice, the longer left part first; "<s>" never, though its characters might be pieces.
        assert_eq!(merges, [("b", "c"), ("a", "b"), ("ab", "c"), ("a", "bc")]);
    }
}
