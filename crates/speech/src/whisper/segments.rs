//! The segments of a window's tokens, and where the next window begins.

use vllm_platform::TokenId;

use super::vocabulary::TIME_PRECISION;
use super::words::seconds_of;
use super::{Decoded, Vocabulary};
use crate::transcript::Segment;

/// Frames of a spectrogram in a second.
pub(super) const FRAMES_PER_SECOND: f64 = 100.0;

/// A window's segments.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Window {
    /// In order, numbered from 0.
    pub segments: Vec<Segment>,
    /// Frame at which the next window begins.
    pub next_seek: usize,
    /// Whether the text ends with one time, after which nobody speaks in the window.
    pub ends_in_silence: bool,
}

/// Cuts what was decoded from a window of `frames` frames at `seek` into segments: at pairs of times. `stride`: frames of a place,
/// the step of the times.
///
/// A text that goes on after the last pair is heard again, from there, in the next window. Without pairs, all is one segment.
pub(super) fn cut(vocabulary: &Vocabulary, decoded: &Decoded, seek: usize, frames: usize, stride: usize) -> Window {
    let tokens = decoded.tokens.as_slice();
    let offset = seconds_of(seek);
    let time = |token: TokenId| f64::from(token.saturating_sub(vocabulary.timestamp_begin)) * TIME_PRECISION;
    let is_time = |index: usize| tokens[index] >= vocabulary.timestamp_begin;
    let segment = |tokens: &[TokenId], start: f64, end: f64| Segment {
        id: 0,
        seek,
        start: offset + start,
        end: offset + end,
        text: vocabulary.decode(tokens),
        tokens: tokens.to_vec(),
        temperature: decoded.temperature,
        avg_logprob: decoded.avg_logprob,
        compression_ratio: decoded.compression_ratio,
        no_speech_prob: decoded.no_speech_prob,
        words: vec![],
    };
    let count = tokens.len();
    let ends_in_silence = count >= 2 && is_time(count - 1) && !is_time(count - 2);
    let mut ends: Vec<usize> = (1..count).filter(|&index| is_time(index - 1) && is_time(index)).collect();
    if ends.is_empty() {
        let last = (0..count).rev().find(|&index| is_time(index)).map(|index| tokens[index]);
        let end = match last {
            Some(token) if token != vocabulary.timestamp_begin => time(token),
            _ => frames as f64 / FRAMES_PER_SECOND,
        };
        return Window { segments: vec![segment(tokens, 0.0, end)], next_seek: seek + frames, ends_in_silence };
    }
    if ends_in_silence {
        ends.push(count);
    }
    let mut segments = vec![];
    let mut begin = 0;
    for &end in &ends {
        let tokens = &tokens[begin..end];
        segments.push(segment(tokens, time(tokens[0]), time(tokens[tokens.len() - 1])));
        begin = end;
    }
    let heard = (tokens[begin - 1] - vocabulary.timestamp_begin) as usize * stride;
    let next_seek = seek + if ends_in_silence { frames } else { heard };
    Window { segments, next_seek, ends_in_silence }
}
