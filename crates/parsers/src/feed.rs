//! Text that came in and was not used yet, and searches in it that never guess at what comes next.

/// The unread rest of an answer. Every question about it has the answer "can't be known yet" where more text could
/// change the answer, so that what a parser does can't depend on where its text was cut.
#[derive(Debug, Default)]
pub(crate) struct Feed {
    text: String,
    at: usize,
    over: bool,
}

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
        let rest = self.rest();
        for (at, byte) in rest.bytes().enumerate() {
            if !markers.iter().any(|marker| marker.as_bytes().first() == Some(&byte)) {
                continue;
            }
            match self.starts_at(at, markers) {
                Starts::With(which) => return Find::At(at, which),
                Starts::Unknown => return Find::NotIn(at),
                Starts::Not => {}
            }
        }
        Find::NotIn(rest.len())
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
