//! Text that may become a marker is held back.

use std::borrow::Cow;

/// Finds markers in text that comes a character at a time.
///
/// Held back is the longest end of the text that begins a marker, and no more. The marker that begins first wins; of
/// several that begin at the same place, the longest. Each character costs a look at each marker at most as often as
/// the longest marker has characters, whatever the text's length.
#[derive(Debug, Clone)]
pub(crate) struct HoldBack {
    markers: Vec<Cow<'static, str>>,
    /// What markers begin with: nothing else needs a closer look.
    firsts: Vec<char>,
    held: String,
}

/// A marker was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Which one, in the order in which they were given.
    pub marker: usize,
    /// Text behind it, which was needed to see that it was not a longer one.
    pub rest: String,
}

impl HoldBack {
    /// Looks for these markers. Empty ones are never found.
    pub fn new<M: Into<Cow<'static, str>>>(markers: impl IntoIterator<Item = M>) -> Self {
        let markers: Vec<Cow<'static, str>> = markers.into_iter().map(Into::into).collect();
        let mut firsts: Vec<char> = markers.iter().filter_map(|marker| marker.chars().next()).collect();
        firsts.sort_unstable();
        firsts.dedup();
        Self { markers, firsts, held: String::new() }
    }

    /// How much at the beginning of `text` is certainly no marker.
    pub fn plain(&self, text: &str) -> usize {
        if self.held.is_empty() { text.find(self.firsts.as_slice()).unwrap_or(text.len()) } else { 0 }
    }

    /// The marker of that number.
    pub fn marker(&self, index: usize) -> &str {
        self.markers.get(index).map_or("", |marker| marker)
    }

    /// Takes the next character. What is certainly no marker goes to `text`.
    pub fn push(&mut self, c: char, text: &mut String) -> Option<Found> {
        if self.held.is_empty() && !self.firsts.contains(&c) {
            text.push(c);
            return None;
        }
        self.held.push(c);
        self.decide(text, false)
    }

    /// The text is over: what was held back goes to `text`, unless it is a marker. Behind a marker there may be another
    /// one: call this until it returns `None`, with [`Found::rest`] pushed in between.
    pub fn finish(&mut self, text: &mut String) -> Option<Found> {
        self.decide(text, true)
    }

    fn decide(&mut self, text: &mut String, over: bool) -> Option<Found> {
        while !self.held.is_empty() {
            let held = self.held.as_str();
            if !over && self.markers.iter().any(|marker| marker.len() > held.len() && marker.starts_with(held)) {
                return None;
            }
            let longest = (0..self.markers.len())
                .filter(|&index| !self.marker(index).is_empty() && held.starts_with(self.marker(index)))
                .max_by_key(|&index| (self.marker(index).len(), std::cmp::Reverse(index)));
            if let Some(marker) = longest {
                let rest = held.get(self.marker(marker).len()..).unwrap_or_default().to_owned();
                self.held.clear();
                return Some(Found { marker, rest });
            }
            text.push(self.held.remove(0));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text outside, and the markers found, of `input` followed by its end.
    fn all(markers: &[&'static str], input: &str) -> (String, Vec<usize>) {
        let (mut hold, mut text, mut found) = (HoldBack::new(markers.iter().copied()), String::new(), Vec::new());
        let mut queue: std::collections::VecDeque<char> = input.chars().collect();
        loop {
            let hit = match queue.pop_front() {
                Some(c) => hold.push(c, &mut text),
                None => match hold.finish(&mut text) {
                    None => return (text, found),
                    hit => hit,
                },
            };
            if let Some(hit) = hit {
                found.push(hit.marker);
                hit.rest.chars().rev().for_each(|c| queue.push_front(c));
            }
        }
    }

    #[test]
    fn markers_are_found() {
        let cases: [(_, &[&'static str], _, _, &[usize]); 11] = [
            ("none", &["<a>"], "text", "text", &[]),
            ("one", &["<a>"], "x<a>y", "xy", &[0]),
            ("a false start", &["<a>"], "<<a>", "<", &[0]),
            ("a beginning at the end", &["<a>"], "x<a", "x<a", &[]),
            ("the longest wins", &["[", "[ab]"], "[ab]", "", &[1]),
            ("the shorter one, and what looked longer", &["[", "[ab]"], "[abc", "abc", &[0]),
            ("twice the shorter one", &["[", "[[x"], "[[[", "", &[0, 0, 0]),
            ("of equals the first", &["<a>", "<a>"], "<a>", "", &[0]),
            ("inside a false start", &["aab"], "aaab", "a", &[0]),
            ("other alphabets", &["<｜a｜>"], "é<｜a<｜a｜>é", "é<｜aé", &[0]),
            ("an empty marker", &[""], "x", "x", &[]),
        ];
        for (name, markers, input, text, found) in cases {
            assert_eq!(all(markers, input), (text.to_owned(), found.to_vec()), "{name}");
        }
    }

    #[test]
    fn no_more_is_held_back_than_may_become_a_marker() {
        let (mut hold, mut text) = (HoldBack::new(["<tool>"]), String::new());
        for (c, so_far) in [('a', "a"), ('<', "a"), ('t', "a"), ('<', "a<t"), ('x', "a<t<x")] {
            assert_eq!(hold.push(c, &mut text), None);
            assert_eq!(text, so_far);
        }
    }
}
