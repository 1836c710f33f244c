//! The segments of a transducer's tokens: sentences, with words.

use std::time::Duration;

use vllm_platform::HeardToken;

use crate::transcript::{Segment, Word};

/// Where nobody speaks for so long a sentence ends, whatever its punctuation.
const PAUSE: Duration = Duration::from_secs(2);

/// A sentence that has no end is cut between two words after so long.
const LONGEST: Duration = Duration::from_secs(30);

/// Takes whole sentences off the front of `tokens`: as a segment each, in order of time. Those that begin at `known` or later may
/// still change; the sentence that leads up to there waits for more. `None`: nothing more comes.
///
/// `pieces` are the texts of tokens, `▁` where a word begins. A sentence ends with a word that ends with a full stop, a question
/// mark or an exclamation mark, or before a pause. `ids`: of the first segment; `words`: whether segments have them.
pub fn take_sentences(
    tokens: &mut Vec<HeardToken>,
    pieces: &[String],
    known: Option<Duration>,
    words: bool,
    mut id: usize,
) -> Vec<Segment> {
    let piece = |token: &HeardToken| pieces.get(token.token as usize).map_or("", String::as_str);
    let mut segments = Vec::new();
    let mut begin = 0;
    let fixed = known.map_or(tokens.len(), |known| tokens.partition_point(|token| token.start < known));
    for index in 0..fixed {
        let ends = match tokens.get(index + 1) {
            Some(next) if index + 1 < fixed => {
                let (token, first) = (&tokens[index], &tokens[begin]);
                let pause = next.start.saturating_sub(token.start + token.duration);
                let word_ends = begins_word(piece(next)) || !is_spaced(piece(token));
                word_ends && (ends_sentence(piece(token)) || next.start - first.start >= LONGEST) || pause >= PAUSE
            }
            // Whether a sentence ends there is known when it is known what follows.
            _ => known.is_none(),
        };
        if ends {
            segments.push(segment(&tokens[begin..=index], &piece, words, id));
            id += 1;
            begin = index + 1;
        }
    }
    tokens.drain(..begin);
    segments
}

fn begins_word(piece: &str) -> bool {
    piece.starts_with('▁')
}

/// Whether words of the piece's script have spaces between them: a full stop of another's ends a sentence by itself.
fn is_spaced(piece: &str) -> bool {
    !piece.ends_with(['。', '？', '！'])
}

fn ends_sentence(piece: &str) -> bool {
    piece.trim_end_matches(['"', '\'', '”', '’', ')']).ends_with(['.', '?', '!', '。', '？', '！'])
}

/// Tokens as a segment.
fn segment<'a>(tokens: &[HeardToken], piece: &impl Fn(&HeardToken) -> &'a str, words: bool, id: usize) -> Segment {
    let text = |tokens: &[HeardToken]| tokens.iter().map(|token| piece(token).replace('▁', " ")).collect::<String>();
    let end = |token: &HeardToken| (token.start + token.duration).as_secs_f64();
    let starts: Vec<usize> = (0..tokens.len()).filter(|&at| at == 0 || begins_word(piece(&tokens[at]))).collect();
    let ends = starts.iter().skip(1).copied().chain([tokens.len()]);
    let word = |(start, stop): (usize, usize)| {
        let tokens = &tokens[start..stop];
        let sum: f32 = tokens.iter().map(|token| token.probability).sum();
        Word {
            text: text(tokens),
            start: tokens[0].start.as_secs_f64(),
            end: end(&tokens[tokens.len() - 1]),
            probability: sum / tokens.len() as f32,
        }
    };
    let logprobs: f32 = tokens.iter().map(|token| token.probability.max(f32::MIN_POSITIVE).ln()).sum();
    let text = text(tokens);
    Segment {
        id,
        seek: 0,
        start: tokens[0].start.as_secs_f64(),
        end: end(&tokens[tokens.len() - 1]),
        compression_ratio: crate::whisper::compression_ratio(text.trim()),
        text,
        tokens: tokens.iter().map(|token| token.token).collect(),
        temperature: 0.0,
        avg_logprob: logprobs / tokens.len() as f32,
        no_speech_prob: 0.0,
        words: if words { starts.iter().copied().zip(ends).map(word).collect() } else { Vec::new() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tokens of a text, one a piece and each of 0.1 s, one after the other; a number is a pause of so many tenths.
    fn heard(text: &[&str]) -> (Vec<HeardToken>, Vec<String>) {
        let (mut tokens, mut pieces, mut tenths) = (Vec::new(), Vec::new(), 0);
        for piece in text {
            if let Ok(pause) = piece.parse::<u64>() {
                tenths += pause;
                continue;
            }
            let (start, duration) = (Duration::from_millis(tenths * 100), Duration::from_millis(100));
            tokens.push(HeardToken { token: pieces.len() as u32, start, duration, probability: 0.5 });
            pieces.push((*piece).to_owned());
            tenths += 1;
        }
        (tokens, pieces)
    }

    fn sentences(text: &[&str], known: Option<u64>) -> (Vec<String>, usize) {
        let (mut tokens, pieces) = heard(text);
        let known = known.map(|tenths| Duration::from_millis(tenths * 100));
        let segments = take_sentences(&mut tokens, &pieces, known, false, 0);
        (segments.into_iter().map(|segment| segment.text).collect(), tokens.len())
    }

    #[test]
    fn sentences_end_with_punctuation_and_pauses() {
        let long: Vec<&str> = std::iter::repeat_n("▁la", 301).collect();
        let many = " la".repeat(300);
        let cases: [(&str, &[&str], &[&str]); 7] = [
            ("nothing", &[], &[]),
            ("two", &["▁Hel", "lo", ".", "▁You", "?"], &[" Hello.", " You?"]),
            ("no end", &["▁Hel", "lo"], &[" Hello"]),
            ("a full stop within", &["▁3", ".", "5m", "▁is", "▁it", "."], &[" 3.5m is it."]),
            ("quoted", &["▁\"Yes", ".\"", "▁He", "▁said"], &[" \"Yes.\"", " He said"]),
            ("a pause", &["▁one", "5", "▁two", "20", "▁three"], &[" one two", " three"]),
            ("too long", &long, &[&many, " la"]),
        ];
        for (name, text, wanted) in cases {
            let wanted = wanted.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(sentences(text, None), (wanted, 0), "{name}");
        }
        assert_eq!(sentences(&["▁是", "。", "对", "。"], None).0, [" 是。", "对。"]);
    }

    #[test]
    fn what_may_change_waits() {
        let text = ["▁One", ".", "▁Two", ".", "▁Three"];
        // (known up to, sentences, tokens left)
        let cases: [(u64, &[&str], usize); 4] =
            [(1, &[], 5), (2, &[], 5), (3, &[" One."], 3), (5, &[" One.", " Two."], 1)];
        for (known, wanted, left) in cases {
            let wanted = wanted.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(sentences(&text, Some(known)), (wanted, left), "{known}");
        }
    }

    #[test]
    fn words_have_times_and_probabilities() {
        let (mut tokens, pieces) = heard(&["3", "▁Hel", "lo", ".", "5", "▁Mi", "a"]);
        let segments = take_sentences(&mut tokens, &pieces, None, true, 7);
        let near = |word: &Word, text: &str, start: f64, end: f64| {
            assert_eq!(word.text, text);
            assert!((word.start - start).abs() < 1e-9 && (word.end - end).abs() < 1e-9, "{word:?}");
            assert!((word.probability - 0.5).abs() < 1e-6);
        };
        assert_eq!(segments.iter().map(|segment| segment.id).collect::<Vec<_>>(), [7, 8]);
        near(&segments[0].words[0], " Hello.", 0.3, 0.6);
        near(&segments[1].words[0], " Mia", 1.1, 1.3);
        assert!((segments[0].avg_logprob - 0.5f32.ln()).abs() < 1e-6);
        assert_eq!(segments[0].tokens, [0, 1, 2]);
    }
}
