//! Words of a window's text, and when they were said.

use vllm_platform::TokenId;

use super::alignment::Attention;
use super::rules::greatest;
use super::segments::FRAMES_PER_SECOND;
use super::vocabulary::TIME_PRECISION;
use super::{Task, Vocabulary};
use crate::transcript::{Segment, Word};

/// Punctuation that belongs to the word after it, and to the one before it.
const OPENING: &str = "\"'“¿([{-";
const CLOSING: &str = "\"'.。,，!！?？:：”)]}、";
const SENTENCE_ENDS: &str = ".。!！?？";
/// ASCII's punctuation, in its order.
const PUNCTUATION: &str = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";

/// Seconds from the sound's beginning to a frame.
pub(super) fn seconds_of(frame: usize) -> f64 {
    frame as f64 / FRAMES_PER_SECOND
}

/// What a model is to be fed to find words.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Alignment {
    /// A transcript without times.
    pub tokens: Vec<TokenId>,
    /// Without its end and its last word, after which nothing is asked.
    pub fed: usize,
    /// After each of them comes a token of the text.
    pub logits: usize,
}

impl Alignment {
    pub fn of(vocabulary: &Vocabulary, task: Task, language: Option<&str>, text: &[TokenId]) -> Self {
        let mut tokens = vocabulary.start(task, language);
        tokens.push(vocabulary.no_timestamps);
        tokens.extend(text);
        tokens.push(vocabulary.eot);
        Self { fed: tokens.len() - 2, logits: text.len(), tokens }
    }
}

/// A word of a window, timed from the window's beginning.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct WordTimes {
    /// Empty if it was joined to a neighbour.
    pub text: String,
    /// How many tokens it is.
    pub tokens: usize,
    pub start: f64,
    pub end: f64,
    pub probability: f32,
}

impl WordTimes {
    fn duration(&self) -> f64 {
        self.end - self.start
    }
}

/// The words of `text`. `start`: tokens before `<|notimestamps|>`; `weights` [heads, tokens, places], of which `heard` places hold sound;
/// `logits` [text tokens, vocab], before each of them.
#[expect(clippy::too_many_arguments, reason = "what two calls of a model gave, and their shapes")]
pub(super) fn align(
    vocabulary: &Vocabulary,
    language: Option<&str>,
    text: &[TokenId],
    start: usize,
    weights: &[f32],
    places: usize,
    heard: usize,
    logits: &[f32],
) -> Vec<WordTimes> {
    if text.is_empty() || heard == 0 {
        return vec![];
    }
    let attention = Attention { weights, tokens: start + 1 + text.len() + 1, places, heard };
    let begins: Vec<f64> = attention.begins(start).into_iter().map(|place| place as f64 * TIME_PRECISION).collect();
    let probabilities: Vec<f32> = text
        .iter()
        .zip(logits.chunks_exact(vocabulary.size()))
        .map(|(&token, logits)| probability(&logits[..vocabulary.eot as usize], token))
        .collect();
    let mut words = vec![];
    let mut first = 0;
    for (text, tokens) in split(vocabulary, language, text) {
        let end = first + tokens;
        let sum: f64 = probabilities[first..end].iter().map(|&probability| f64::from(probability)).sum();
        words.push(WordTimes {
            text,
            tokens,
            start: begins[first],
            end: begins[end],
            probability: (sum / tokens as f64) as f32,
        });
        first = end;
    }
    words
}

/// How probable a token is among those of text.
fn probability(logits: &[f32], token: TokenId) -> f32 {
    let greatest = greatest(logits);
    let sum: f64 = logits.iter().map(|logit| f64::from((logit - greatest).exp())).sum();
    (f64::from((logits[token as usize] - greatest).exp()) / sum) as f32
}

/// Words of a text, each with how many tokens it is.
pub(super) fn split(vocabulary: &Vocabulary, language: Option<&str>, tokens: &[TokenId]) -> Vec<(String, usize)> {
    let parts = split_at_characters(vocabulary, tokens);
    if Vocabulary::without_spaces(language) {
        return parts;
    }
    let mut words: Vec<(String, usize)> = vec![];
    for (part, tokens) in parts {
        match words.last_mut() {
            Some(word) if !part.starts_with(' ') && !PUNCTUATION.contains(part.trim()) => {
                word.0.push_str(&part);
                word.1 += tokens;
            }
            _ => words.push((part, tokens)),
        }
    }
    words
}

/// The smallest parts of a text that are whole characters, each with how many tokens it is.
fn split_at_characters(vocabulary: &Vocabulary, tokens: &[TokenId]) -> Vec<(String, usize)> {
    let whole: Vec<char> = vocabulary.decode(tokens).chars().collect();
    let mut parts = vec![];
    let (mut first, mut offset) = (0, 0);
    for end in 1..=tokens.len() {
        let part = vocabulary.decode(&tokens[first..end]);
        // A replacement character is the rest of one that is cut, unless it also stands in the whole text.
        let cut = part.chars().position(|c| c == char::REPLACEMENT_CHARACTER);
        let is_whole =
            cut.is_none_or(|place| whole.get(offset + place).is_none_or(|&c| c == char::REPLACEMENT_CHARACTER));
        if is_whole || end == tokens.len() {
            offset += part.chars().count();
            parts.push((part, end - first));
            first = end;
        }
    }
    parts
}

/// Gives segments their words, and the segments the times of these; `offset`: seconds of the window's beginning; `last_speech`: when
/// the last word before the window ended.
///
/// A word may be found to last over a pause; those next to sentences' ends and pauses are made at most twice as long as a word is
/// in the middle of the window's.
pub(super) fn time_segments(
    vocabulary: &Vocabulary,
    segments: &mut [Segment],
    mut words: Vec<WordTimes>,
    offset: f64,
    mut last_speech: f64,
) {
    let usual = usual_duration(&words);
    let longest = usual * 2.0;
    shorten_at_sentence_ends(&mut words, longest);
    join_punctuation(&mut words);
    let round = |seconds: f64| (seconds * 100.0).round_ties_even() / 100.0;
    let mut words = words.into_iter();
    for segment in segments {
        let wanted = segment.tokens.iter().filter(|&&token| token < vocabulary.eot).count();
        let mut taken = 0;
        while taken < wanted {
            let Some(word) = words.next() else { break };
            taken += word.tokens;
            if !word.text.is_empty() {
                let (start, end) = (round(offset + word.start), round(offset + word.end));
                segment.words.push(Word { text: word.text, start, end, probability: word.probability });
            }
        }
        if !segment.words.is_empty() {
            shorten_after_pause(&mut segment.words, last_speech, usual, longest);
            fit(segment, usual);
            last_speech = segment.end;
        }
    }
}

/// How long a word lasts, the median of those that last at all, and at most 0.7 s; 0 if none does.
fn usual_duration(words: &[WordTimes]) -> f64 {
    let mut durations: Vec<f64> = words.iter().map(WordTimes::duration).filter(|&duration| duration != 0.0).collect();
    durations.sort_by(f64::total_cmp);
    let count = durations.len();
    match count {
        0 => 0.0,
        _ => 0.7f64.min((durations[(count - 1) / 2] + durations[count / 2]) / 2.0),
    }
}

fn shorten_at_sentence_ends(words: &mut [WordTimes], longest: f64) {
    if words.iter().all(|word| word.duration() == 0.0) {
        return;
    }
    for index in 1..words.len() {
        if words[index].duration() <= longest {
            continue;
        }
        if SENTENCE_ENDS.contains(&words[index].text) {
            words[index].end = words[index].start + longest;
        } else if SENTENCE_ENDS.contains(&words[index - 1].text) {
            words[index].start = words[index].end - longest;
        }
    }
}

/// Joins punctuation to the words it belongs to; what was joined is left without text and tokens.
fn join_punctuation(words: &mut [WordTimes]) {
    let mut following = words.len().saturating_sub(1);
    for index in (0..following).rev() {
        let opening = words[index].text.starts_with(' ') && OPENING.contains(words[index].text.trim());
        if opening {
            let (text, tokens) = take(&mut words[index]);
            words[following].text.insert_str(0, &text);
            words[following].tokens += tokens;
        } else {
            following = index;
        }
    }
    let mut previous = 0;
    for index in 1..words.len() {
        if !words[previous].text.ends_with(' ') && CLOSING.contains(&words[index].text) {
            let (text, tokens) = take(&mut words[index]);
            words[previous].text.push_str(&text);
            words[previous].tokens += tokens;
        } else {
            previous = index;
        }
    }
}

fn take(word: &mut WordTimes) -> (String, usize) {
    (std::mem::take(&mut word.text), std::mem::take(&mut word.tokens))
}

/// After a pause the first word, and the second, are often found to begin within it.
fn shorten_after_pause(words: &mut [Word], last_speech: f64, usual: f64, longest: f64) {
    let first = words[0].end - words[0].start;
    let second_end = words.get(1).map(|second| second.end);
    let too_long = first > longest || second_end.is_some_and(|end| end - words[0].start > longest * 2.0);
    if words[0].end - last_speech <= usual * 4.0 || !too_long {
        return;
    }
    if let Some(second) = words.get_mut(1)
        && second.end - second.start > longest
    {
        let boundary = (second.end / 2.0).max(second.end - longest);
        second.start = boundary;
        words[0].end = boundary;
    }
    words[0].start = (words[0].end - longest).max(0.0);
}

/// Makes a segment begin and end with its words, but a word that stretches far out of its segment is cut.
fn fit(segment: &mut Segment, usual: f64) {
    let Some(first) = segment.words.first_mut() else { return };
    if segment.start < first.end && segment.start - 0.5 > first.start {
        first.start = (first.end - usual).min(segment.start).max(0.0);
    } else {
        segment.start = first.start;
    }
    let Some(last) = segment.words.last_mut() else { return };
    if segment.end > last.start && segment.end + 0.5 < last.end {
        last.end = (last.start + usual).max(segment.end);
    } else {
        segment.end = last.end;
    }
}
