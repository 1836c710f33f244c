//! What models without a model hear: stretches that are loud.

use std::ops::Range;

use crate::{Mel, TokenId};

/// The stretches of a spectrogram, in frames, where some band is above `loud`.
pub(super) fn bursts(mel: &Mel, loud: f32) -> Vec<Range<usize>> {
    let bands = mel.numbers.len() / mel.frames.max(1);
    let frames = mel.numbers.chunks_exact(bands.max(1));
    let mut bursts: Vec<Range<usize>> = Vec::new();
    for (frame, _) in frames.enumerate().filter(|(_, bands)| bands.iter().any(|&number| number > loud)) {
        match bursts.last_mut() {
            Some(burst) if burst.end == frame => burst.end += 1,
            _ => bursts.push(frame..frame + 1),
        }
    }
    bursts
}

/// Which of `words` a burst is: the longer by `unit` frames, the later.
pub(super) fn word(burst: &Range<usize>, unit: usize, words: &Range<TokenId>) -> TokenId {
    let length = (burst.len() + unit / 2) / unit;
    words.start + (length % words.len()) as TokenId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_are_runs_of_loud_frames() {
        let mel = |loud: &[u8]| Mel {
            numbers: loud.iter().flat_map(|&loud| [-1.0, f32::from(loud)]).collect(),
            frames: loud.len(),
        };
        assert_eq!(bursts(&mel(&[0, 1, 1, 0, 0, 1]), 0.5), [1..3, 5..6]);
        assert_eq!(bursts(&mel(&[0, 0]), 0.5), []);
        assert_eq!(bursts(&mel(&[]), 0.5), []);
        assert_eq!([8, 10, 12, 20, 50].map(|len| word(&(0..len), 10, &(100..105))), [101, 101, 101, 102, 100]);
    }
}
