//! Media in a rendered prompt: from placeholders to pads, and where the pads' tokens lie.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use vllm_platform::MediaSpan;

use super::prepared::{PlacedSpan, Prepared, Run};

/// Stands after the first character of what a user wrote and what isn't meant as a placeholder. A noncharacter: texts for
/// interchange don't have it.
const CUT: char = '\u{FDD0}';

/// Behind [`CUT`]: the user wrote that one.
const LITERAL: char = '\u{FDD1}';

/// Why a prompt can't be built.
#[derive(Debug, thiserror::Error)]
pub enum ExpandError<E> {
    /// The template left a medium out, or wrote one twice.
    #[error("the chat template wrote {placeholder} {written} times, for {media} images or videos of that kind")]
    Placeholders {
        /// What stands for a medium.
        placeholder: String,
        /// How often it does.
        written: usize,
        /// How many media there are.
        media: usize,
    },
    /// A prompt of tokens has more or fewer places than there are media.
    #[error("the prompt has {placeholder} {written} times, for {media} images or videos of that kind")]
    Markers {
        /// What stands for a medium.
        placeholder: String,
        /// How often it does.
        written: usize,
        /// How many media there are.
        media: usize,
    },
    /// The vocabulary doesn't go with the processor.
    #[error("the tokenizer makes {tokens} tokens of {pad}, wanted one")]
    Pad {
        /// The text that holds a feature's place.
        pad: String,
        /// What came of it.
        tokens: usize,
    },
    /// The tokens have more or fewer places for features than the media.
    #[error("the prompt's tokens don't have the places of its images and videos: something else in it reads as {pad}")]
    Places {
        /// The text that holds a feature's place.
        pad: String,
    },
    /// The tokenizer failed.
    #[error("{0}")]
    Encode(E),
}

/// Marks every one of `literals` in `text`.
pub(super) fn guard<'t>(text: &'t str, literals: &[Arc<str>]) -> Cow<'t, str> {
    let is_literal = |rest: &str| literals.iter().any(|literal| rest.starts_with(&**literal));
    let mut guarded = String::new();
    let mut done = 0;
    for (at, character) in text.char_indices() {
        let mark = match character {
            CUT => LITERAL,
            _ if is_literal(&text[at..]) => CUT,
            _ => continue,
        };
        let end = at + character.len_utf8();
        guarded.push_str(&text[done..end]);
        guarded.push(mark);
        done = end;
    }
    if done == 0 {
        return text.into();
    }
    guarded.push_str(&text[done..]);
    guarded.into()
}

/// The text without marks, in pieces that meet where a mark stood.
pub(super) fn pieces(text: &str) -> Vec<Cow<'_, str>> {
    let mut pieces: Vec<Cow<'_, str>> = vec![];
    for (i, piece) in text.split(CUT).enumerate() {
        match (piece.strip_prefix(LITERAL), pieces.last_mut()) {
            (Some(rest), Some(last)) if i > 0 => {
                let last = last.to_mut();
                last.push(CUT);
                last.push_str(rest);
            }
            _ => pieces.push(piece.into()),
        }
    }
    pieces
}

/// Placeholders by their place in the text, with the medium that each stands for.
fn places<E>(
    rendered: &str,
    media: &[Prepared],
    placeholders: &[Arc<str>],
) -> Result<Vec<(usize, usize)>, ExpandError<E>> {
    let mut places = vec![];
    for placeholder in placeholders {
        let written: Vec<usize> = rendered.match_indices(&**placeholder).map(|(at, _)| at).collect();
        let of_kind = media.iter().enumerate().filter(|(_, medium)| medium.placeholder == *placeholder);
        let of_kind: Vec<usize> = of_kind.map(|(i, _)| i).collect();
        if written.len() != of_kind.len() {
            let (placeholder, written, media) = (placeholder.to_string(), written.len(), of_kind.len());
            return Err(ExpandError::Placeholders { placeholder, written, media });
        }
        places.extend(written.into_iter().zip(of_kind));
    }
    places.sort_unstable();
    Ok(places)
}

pub(super) fn tokenize<E>(
    rendered: &str,
    media: &[Prepared],
    placeholders: &[Arc<str>],
    pads: &[Arc<str>],
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
) -> Result<(Vec<u32>, Vec<PlacedSpan>), ExpandError<E>> {
    let places = places(rendered, media, placeholders)?;
    let mut expanded =
        String::with_capacity(rendered.len() + media.iter().map(|medium| medium.text.len()).sum::<usize>());
    let mut done = 0;
    for &(at, medium) in &places {
        expanded.push_str(&rendered[done..at]);
        expanded.push_str(&media[medium].text);
        done = at + media[medium].placeholder.len();
    }
    expanded.push_str(&rendered[done..]);

    let mut tokens = vec![];
    for piece in pieces(&expanded) {
        tokens.extend(encode(&piece).map_err(ExpandError::Encode)?);
    }
    if media.is_empty() {
        return Ok((tokens, vec![]));
    }
    let spans = place(&tokens, media, &places, &pad_ids(pads, encode)?)?;
    Ok((tokens, spans))
}

/// As [`tokenize`], where the text is tokens already: those of a placeholder give way to the tokens of what stands there
/// instead, all others stay.
pub(super) fn expand_tokens<E>(
    prompt: &[u32],
    media: &[Prepared],
    placeholders: &[Arc<str>],
    pads: &[Arc<str>],
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
) -> Result<(Vec<u32>, Vec<PlacedSpan>), ExpandError<E>> {
    let mut places = vec![];
    // By medium: how many tokens its placeholder has.
    let mut lengths = vec![0; media.len()];
    for placeholder in placeholders {
        let marker = encode(placeholder).map_err(ExpandError::Encode)?;
        let written = occurrences(prompt, &marker);
        let of_kind = media.iter().enumerate().filter(|(_, medium)| medium.placeholder == *placeholder);
        let of_kind: Vec<usize> = of_kind.map(|(i, _)| i).collect();
        if written.len() != of_kind.len() {
            let (placeholder, written, media) = (placeholder.to_string(), written.len(), of_kind.len());
            return Err(ExpandError::Markers { placeholder, written, media });
        }
        of_kind.iter().for_each(|&medium| lengths[medium] = marker.len());
        places.extend(written.into_iter().zip(of_kind));
    }
    places.sort_unstable();
    let mut tokens = Vec::with_capacity(prompt.len() + media.iter().map(Prepared::tokens).sum::<usize>());
    let mut done = 0;
    for &(at, medium) in &places {
        tokens.extend(&prompt[done..at]);
        tokens.extend(encode(&media[medium].text).map_err(ExpandError::Encode)?);
        done = at + lengths[medium];
    }
    tokens.extend(&prompt[done..]);
    let spans = place(&tokens, media, &places, &pad_ids(pads, encode)?)?;
    Ok((tokens, spans))
}

/// Where `marker` begins in `tokens`; those that overlap one before don't count.
fn occurrences(tokens: &[u32], marker: &[u32]) -> Vec<usize> {
    let (mut found, mut at) = (vec![], 0);
    while !marker.is_empty() && at + marker.len() <= tokens.len() {
        if tokens[at..].starts_with(marker) {
            found.push(at);
            at += marker.len();
        } else {
            at += 1;
        }
    }
    found
}

/// The single tokens of `pads`.
fn pad_ids<'p, E>(
    pads: &'p [Arc<str>],
    encode: &dyn Fn(&str) -> Result<Vec<u32>, E>,
) -> Result<Vec<(&'p Arc<str>, u32)>, ExpandError<E>> {
    let mut ids = vec![];
    for pad in pads {
        let id = encode(pad).map_err(ExpandError::Encode)?;
        match id[..] {
            [id] => ids.push((pad, id)),
            _ => return Err(ExpandError::Pad { pad: pad.to_string(), tokens: id.len() }),
        }
    }
    Ok(ids)
}

/// Gives the runs of all media, in order of the text, the pads that are theirs by ordinal.
fn place<E: Sized>(
    tokens: &[u32],
    media: &[Prepared],
    places: &[(usize, usize)],
    ids: &[(&Arc<str>, u32)],
) -> Result<Vec<PlacedSpan>, ExpandError<E>> {
    let wrong = |pad: &dyn fmt::Display| ExpandError::Places { pad: pad.to_string() };
    let mut spans = vec![];
    let mut next = 0;
    let pad_from = |start: usize| {
        let pad_of = |token: &u32| ids.iter().find(|(_, id)| id == token);
        tokens[start..].iter().enumerate().find_map(|(i, token)| Some((start + i, pad_of(token)?)))
    };
    for &(_, index) in places {
        let medium = &media[index];
        for run in &medium.runs {
            let Some((start, &(pad, id))) = pad_from(next) else { return Err(wrong(&medium.pad)) };
            let own = tokens[start..].iter().take(run.len).take_while(|token| **token == id).count();
            if *pad != medium.pad || own != run.len {
                return Err(wrong(pad));
            }
            let Run { part, first, len, grid, bidirectional } = *run;
            let span = MediaSpan { start, len, first, grid, bidirectional, features: None };
            next = span.end();
            spans.push(PlacedSpan { media: index, part, span });
        }
    }
    match pad_from(next) {
        Some((_, (pad, _))) => Err(wrong(pad)),
        None => Ok(spans),
    }
}
