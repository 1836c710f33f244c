//! Text that came in and was not used yet, and searches in it that never guess at what comes next.

use std::ops::Range;

/// The unread rest of an answer. Every question about it has the answer "can't be known yet" where more text could
/// change the answer, so that what a parser does can't depend on where its text was cut.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    text: String,
    at: usize,
    over: bool,
}

/// Longest whitespace between two tags.
const MAX_BLANK: usize = 64;

/// Where the first of some markers stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Find {
    /// So many bytes on; the second number says which marker.
    At(usize, usize),
    /// In none of the next so many bytes. What follows them may become a marker.
    NotIn(usize),
}

/// Whether the rest starts with one of some markers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Starts {
    /// With this one.
    With(usize),
    /// With none.
    Not,
    /// Too short to know.
    Unknown,
}

impl Feed {
    pub(crate) fn push(&mut self, text: &str) {
        if self.at > 0 {
            self.text.drain(..self.at);
            self.at = 0;
        }
        self.text.push_str(text);
    }

    /// Says that nothing follows.
    pub(crate) fn end(&mut self) {
        self.over = true;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    pub(crate) fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or_default()
    }

    /// The next `bytes` bytes, which are then read.
    pub(crate) fn take(&mut self, bytes: usize) -> &str {
        let from = self.at;
        self.at = from.saturating_add(bytes).min(self.text.len());
        self.text.get(from..self.at).unwrap_or_default()
    }

    /// Reads over characters that `skip` admits; true if another character follows or nothing more comes.
    pub(crate) fn skip(&mut self, skip: impl Fn(char) -> bool) -> bool {
        let rest = self.rest();
        let skipped = rest.len() - rest.trim_start_matches(skip).len();
        self.at += skipped;
        self.over || !self.is_empty()
    }

    /// The first of `markers`.
    pub(crate) fn find(&self, markers: &[&str]) -> Find {
        self.find_from(0, markers)
    }

    /// The first of `markers` from byte `from` on; what comes before was looked at already.
    pub(crate) fn find_from(&self, from: usize, markers: &[&str]) -> Find {
        self.find_in(from..usize::MAX, markers)
    }

    /// The first of `markers` that begins in the next `bytes` bytes, as if there were no more.
    pub(crate) fn find_in_next(&self, bytes: usize, markers: &[&str]) -> Find {
        self.find_in(0..bytes, markers)
    }

    fn find_in(&self, place: Range<usize>, markers: &[&str]) -> Find {
        let rest = self.rest();
        for (at, byte) in rest.bytes().enumerate().take(place.end).skip(place.start) {
            if !markers.iter().any(|marker| marker.as_bytes().first() == Some(&byte)) {
                continue;
            }
            match self.starts_at(at, markers) {
                Starts::With(which) => return Find::At(at, which),
                Starts::Unknown => return Find::NotIn(at),
                Starts::Not => {}
            }
        }
        Find::NotIn(rest.len().min(place.end))
    }

    /// Whether the rest starts with one of `markers`.
    pub(crate) fn starts(&self, markers: &[&str]) -> Starts {
        self.starts_at(0, markers)
    }

    /// As [`starts`](Self::starts), after whitespace. Gives the length of the whitespace, too.
    pub(crate) fn starts_after_whitespace(&self, markers: &[&str]) -> (usize, Starts) {
        let rest = self.rest();
        let blank = rest.len() - rest.trim_start().len();
        (blank, self.starts_at(blank, markers))
    }

    /// Whether one of `markers` stands `at` bytes on, behind little whitespace, or may have been about to when the answer
    /// was over. `None` if more text is needed to know.
    pub(crate) fn followed_by(&self, at: usize, markers: &[&str]) -> Option<bool> {
        let rest = self.rest().get(at..).unwrap_or_default();
        let marker = rest.trim_start();
        let blank = rest.len() - marker.len();
        match self.starts_at(at + blank, markers) {
            _ if blank > MAX_BLANK => Some(false),
            Starts::With(_) => Some(true),
            Starts::Unknown => None,
            Starts::Not => Some(self.over && markers.iter().any(|whole| whole.starts_with(marker))),
        }
    }

    /// As [`starts`](Self::starts), `at` bytes on.
    pub(crate) fn starts_at(&self, at: usize, markers: &[&str]) -> Starts {
        let rest = self.rest().as_bytes().get(at..).unwrap_or_default();
        if let Some(which) = markers.iter().position(|marker| rest.starts_with(marker.as_bytes())) {
            return Starts::With(which);
        }
        let may = !self.over && markers.iter().any(|marker| marker.as_bytes().starts_with(rest));
        if may { Starts::Unknown } else { Starts::Not }
    }
}
