//! How many words of a text were heard wrongly: the word error rate, which is what synthesis and transcription are judged by.

mod words;

pub use self::words::words;

/// What has to be changed in a text to get what was said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// Words of what was said.
    pub words: usize,
    /// Words heard as others.
    pub replaced: usize,
    /// Words not heard.
    pub missed: usize,
    /// Words heard that nobody said.
    pub added: usize,
}

impl WordErrors {
    /// Of a text that was heard, beside what was said. Case, punctuation and how numbers are written make no difference: [`words`].
    ///
    /// ```
    /// let errors = vllm_speech::wer::WordErrors::between("She paid 40 dollars.", "she pays forty dollars now");
    /// assert_eq!((errors.words, errors.replaced, errors.missed, errors.added), (4, 1, 0, 1));
    /// assert_eq!(errors.rate(), 0.5);
    /// ```
    #[must_use]
    pub fn between(said: &str, heard: &str) -> Self {
        let (said, heard) = (words(said), words(heard));
        // For each beginning of what was heard: the errors beside the beginning of what was said that is looked at.
        let mut row: Vec<Self> = (0..=heard.len()).map(|added| Self { added, ..Self::default() }).collect();
        for word in &said {
            let mut diagonal = row[0];
            row[0].missed += 1;
            for (i, other) in heard.iter().enumerate() {
                let same = Self { replaced: diagonal.replaced + usize::from(word != other), ..diagonal };
                let missed = Self { missed: row[i + 1].missed + 1, ..row[i + 1] };
                let added = Self { added: row[i].added + 1, ..row[i] };
                diagonal = row[i + 1];
                row[i + 1] = [same, missed, added].into_iter().min_by_key(Self::errors).unwrap_or(same);
            }
        }
        Self { words: said.len(), ..row[heard.len()] }
    }

    /// All errors.
    #[must_use]
    pub const fn errors(&self) -> usize {
        self.replaced + self.missed + self.added
    }

    /// Errors for each word that was said; 0 if nothing was said and nothing heard.
    #[must_use]
    pub fn rate(&self) -> f64 {
        if self.errors() == 0 { 0.0 } else { self.errors() as f64 / self.words.max(1) as f64 }
    }
}

impl std::ops::Add for WordErrors {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            words: self.words + other.words,
            replaced: self.replaced + other.replaced,
            missed: self.missed + other.missed,
            added: self.added + other.added,
        }
    }
}

impl std::iter::Sum for WordErrors {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), std::ops::Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted() {
        let cases = [
            ("none", "one two three", "One, two, three!", (3, 0, 0, 0)),
            ("replaced", "one two three", "one too three", (3, 1, 0, 0)),
            ("missed", "one two three", "one three", (3, 0, 1, 0)),
            ("added", "one two three", "one two and three", (3, 0, 0, 1)),
            ("nothing heard", "one two", "", (2, 0, 2, 0)),
            ("nothing said", "", "one", (0, 0, 0, 1)),
        ];
        for (case, said, heard, (words, replaced, missed, added)) in cases {
            assert_eq!(WordErrors::between(said, heard), WordErrors { words, replaced, missed, added }, "{case}");
        }
        assert_eq!(WordErrors::between("", "").rate(), 0.0);
        let both: WordErrors =
            [("a b", "a c"), ("d", "d")].iter().map(|(said, heard)| WordErrors::between(said, heard)).sum();
        assert_eq!((both.words, both.errors()), (3, 1));
    }
}
