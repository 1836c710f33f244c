//! Cutting a text into what is said in one breath: sentences, and parts of sentences where those are too long.
//!
//! A cut too few makes an utterance longer, one too many makes a pause inside a name: in doubt, nothing is cut.

mod marks;
mod stream;

use self::marks::{closes, ends_clause, ends_sentence, is_wide_end, never_ends, starts_lower, unquoted};
pub use self::stream::SentenceStream;

/// The sentences of a text, without the white space around them.
///
/// A sentence ends at `.`, `!`, `?` or `…` (with brackets and quotes that close) before white space, unless an abbreviation, an initial
/// or a list's number ends there or the next word is in lower case; at `。`, `！` and `？` wherever they are; at an empty line, and at
/// the end of a line unless the next goes on in lower case.
///
/// ```
/// let text = "Dr. Hall paid $3.50. \"Really?\" asked Mrs. Hall.\nYes";
/// let sentences = vllm_speech::sentences::split(text);
/// assert_eq!(sentences, ["Dr. Hall paid $3.50.", "\"Really?\" asked Mrs. Hall.", "Yes"]);
/// ```
#[must_use]
pub fn split(text: &str) -> Vec<&str> {
    let mut sentences = Vec::new();
    let mut rest = text;
    while let Some(end) = first_end(rest, true) {
        sentences.extend(said(&rest[..end]));
        rest = &rest[end..];
    }
    sentences.extend(said(rest));
    sentences
}

/// [`split`], the first sentence cut once more: at the first end of a clause after at least `opening` words, so that there is something to
/// hear sooner.
#[must_use]
pub fn utterances(text: &str, opening: Option<usize>) -> Vec<&str> {
    let mut sentences = split(text);
    if let Some(words) = opening
        && let Some(first) = sentences.first().copied()
        && let Some(end) = opening_end(first, words)
    {
        sentences.splice(..1, [first[..end].trim_end(), first[end..].trim_start()]);
    }
    sentences
}

/// Two parts of a text that is too long for one utterance: cut where a clause ends, as near to the middle as can be; without such a place
/// between words; without words between characters. `None` if there is nothing to cut.
#[must_use]
pub fn halves(text: &str) -> Option<(&str, &str)> {
    let middle = text.len() / 2;
    let nearest = |places: &mut dyn Iterator<Item = usize>| places.min_by_key(|place| place.abs_diff(middle));
    let spaces = || text.char_indices().filter(|(place, c)| c.is_whitespace() && *place > 0).map(|(place, _)| place);
    // Rather in the middle of a clause than a few words off the end.
    let far = |place: &usize| (text.len() / 4..=text.len() - text.len() / 4).contains(place);
    let place = nearest(&mut clause_ends(text).filter(far))
        .or_else(|| nearest(&mut spaces()))
        .or_else(|| nearest(&mut text.char_indices().map(|(place, _)| place).skip(1)))?;
    let (left, right) = (text[..place].trim(), text[place..].trim());
    (!left.is_empty() && !right.is_empty()).then_some((left, right))
}

/// Without white space; nothing, if there is nothing that could be said.
fn said(sentence: &str) -> Option<&str> {
    let sentence = sentence.trim();
    // A line of dashes or stars is no sentence.
    sentence.chars().any(char::is_alphanumeric).then_some(sentence)
}

/// Where the first sentence ends, if another follows: behind its marks. If `text` isn't `whole`, only once the next has a letter, whose case
/// may tell that this one goes on.
fn first_end(text: &str, whole: bool) -> Option<usize> {
    let undecided = |rest: &str| rest.trim().is_empty() || (!whole && unquoted(rest).is_empty());
    let mut places = text.char_indices().peekable();
    let mut begun = false;
    while let Some((place, c)) = places.next() {
        let after = place + c.len_utf8();
        begun |= c.is_alphanumeric();
        if !begun {
            continue;
        }
        if c == '\n' {
            let next = text[after..].trim_start_matches([' ', '\t', '\r']);
            if undecided(next) {
                return None;
            }
            if next.starts_with('\n') || !starts_lower(next) {
                return Some(after);
            }
        } else if ends_sentence(c) {
            // All marks that stand together: `?!`, `...`, `."`.
            let mut end = after;
            while let Some(&(place, mark)) = places.peek()
                && (ends_sentence(mark) || closes(mark))
            {
                end = place + mark.len_utf8();
                places.next();
            }
            let (marks, rest) = (&text[place..end], &text[end..]);
            if undecided(rest) {
                return None;
            }
            let wide = marks.chars().any(is_wide_end);
            let parted = rest.starts_with(char::is_whitespace) && !starts_lower(rest);
            if wide || (parted && !(marks == "." && never_ends(&text[..place]))) {
                return Some(end);
            }
        }
    }
    None
}

/// Where clauses end: behind the mark. Not at the very end.
fn clause_ends(text: &str) -> impl Iterator<Item = usize> {
    text.char_indices().filter_map(|(place, c)| {
        let end = place + c.len_utf8();
        let rest = &text[end..];
        (ends_clause(c, rest) && !rest.trim().is_empty()).then_some(end)
    })
}

/// Where the first clause of at least `words` words ends, if at least three words follow.
fn opening_end(sentence: &str, words: usize) -> Option<usize> {
    let count = |text: &str| text.split_whitespace().filter(|word| word.contains(char::is_alphanumeric)).count();
    clause_ends(sentence).find(|&end| count(&sentence[..end]) >= words && count(&sentence[end..]) >= 3)
}

#[cfg(test)]
mod tests;
