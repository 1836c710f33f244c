//! Which tokens may come next.

use llguidance::toktrie::SimpleVob;
use vllm_platform::TokenId;

const WORD: usize = u32::BITS as usize;

/// Each bit of a word by itself: a comparison with these is a vector instruction, a shift by the index is not on
/// every processor.
const BITS: [u32; WORD] = {
    let mut bits = [0; WORD];
    let mut at = 0;
    while at < WORD {
        bits[at] = 1 << at;
        at += 1;
    }
    bits
};

/// What is left of a vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mask {
    /// All but these.
    Except(Vec<TokenId>),
    /// The tokens whose bits are set. Ids behind the last word are not among them.
    Only(Vec<u32>),
}

impl Mask {
    /// These tokens.
    pub fn of(tokens: &[TokenId]) -> Self {
        let mut mask = Self::Only(Vec::new());
        mask.allow(tokens);
        mask
    }

    /// Adds tokens.
    pub fn allow(&mut self, tokens: &[TokenId]) {
        match self {
            Self::Except(forbidden) => forbidden.retain(|token| !tokens.contains(token)),
            Self::Only(words) => {
                for &token in tokens {
                    let at = token as usize / WORD;
                    if at >= words.len() {
                        words.resize(at + 1, 0);
                    }
                    if let Some(word) = words.get_mut(at) {
                        *word |= 1 << (token as usize % WORD);
                    }
                }
            }
        }
    }

    /// Makes the logits of all other tokens negative infinity.
    pub fn apply(&self, logits: &mut [f32]) {
        match self {
            Self::Except(forbidden) => forbid(forbidden, logits),
            Self::Only(words) => {
                let (known, padding) = logits.split_at_mut(logits.len().min(words.len() * WORD));
                let (chunks, last) = known.as_chunks_mut::<WORD>();
                for (chunk, &word) in chunks.iter_mut().zip(words) {
                    match word {
                        u32::MAX => {}
                        0 => chunk.fill(f32::NEG_INFINITY),
                        _ => select(chunk, word),
                    }
                }
                if let Some(&word) = words.get(chunks.len()) {
                    select(last, word);
                }
                padding.fill(f32::NEG_INFINITY);
            }
        }
    }
}

/// Makes the logits of these tokens negative infinity.
pub(crate) fn forbid(tokens: &[TokenId], logits: &mut [f32]) {
    for &token in tokens {
        if let Some(logit) = logits.get_mut(token as usize) {
            *logit = f32::NEG_INFINITY;
        }
    }
}

/// Without branches: which bits are set can't be foreseen.
fn select(logits: &mut [f32], word: u32) {
    for (logit, bit) in logits.iter_mut().zip(BITS) {
        *logit = if word & bit == 0 { f32::NEG_INFINITY } else { *logit };
    }
}

impl From<SimpleVob> for Mask {
    fn from(tokens: SimpleVob) -> Self {
        Self::Only(tokens.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(mask: &Mask, vocab: usize) -> Vec<usize> {
        let mut logits = vec![1.0; vocab];
        mask.apply(&mut logits);
        assert!(logits.iter().all(|&logit| logit == 1.0 || logit == f32::NEG_INFINITY));
        (0..vocab).filter(|&token| logits[token] == 1.0).collect()
    }

    #[test]
    fn what_is_left() {
        let full: Vec<u32> = (0..64).collect();
        let cases: [(&str, Mask, usize, Vec<usize>); 9] = [
            ("none", Mask::of(&[]), 40, vec![]),
            ("a few", Mask::of(&[0, 31, 32, 39]), 40, vec![0, 31, 32, 39]),
            ("a whole word", Mask::of(&full), 64, (0..64).collect()),
            ("padded vocabulary", Mask::of(&full), 100, (0..64).collect()),
            ("beyond the logits", Mask::of(&[3, 70, 900]), 65, vec![3]),
            ("half a word of logits", Mask::of(&full), 50, (0..50).collect()),
            ("all", Mask::Except(vec![]), 5, (0..5).collect()),
            ("all but some", Mask::Except(vec![1, 3, 99]), 5, vec![0, 2, 4]),
            ("no logits", Mask::of(&[1]), 0, vec![]),
        ];
        for (name, mask, vocab, wanted) in cases {
            assert_eq!(left(&mask, vocab), wanted, "{name}");
        }
    }

    #[test]
    fn more_may_be_allowed() {
        let mut mask = Mask::of(&[1]);
        mask.allow(&[64, 1]);
        assert_eq!(left(&mask, 80), [1, 64]);
        let mut mask = Mask::Except(vec![1, 2]);
        mask.allow(&[2]);
        assert_eq!(left(&mask, 3), [0, 2]);
    }
}
