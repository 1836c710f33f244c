//! Why a constraint is refused.

/// A result of this crate.
pub type Result<T, E = GrammarError> = std::result::Result<T, E>;

/// Characters of a library's message that are passed on.
const MAX_MESSAGE: usize = 500;

/// A constraint that cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GrammarError {
    /// It says something that cannot be followed, or that nothing could satisfy.
    #[error("{0}")]
    Invalid(String),
    /// It is larger than what is worked on for one request.
    #[error("{what}: {size}, at most {most} allowed")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// How large it is, or how much of it was looked at.
        size: usize,
        /// How large it may be.
        most: usize,
    },
    /// The model's tokenizer doesn't say what its tokens write.
    #[error("structured output is not possible with this model: {0}")]
    Vocabulary(String),
}

impl GrammarError {
    pub(crate) fn from_library(error: impl std::fmt::Display) -> Self {
        Self::Invalid(library_message(&format!("{error:#}")))
    }

    pub(crate) fn check_size(what: &'static str, size: usize, most: usize) -> Result<()> {
        if size > most { Err(Self::TooLarge { what, size, most }) } else { Ok(()) }
    }
}

/// What llguidance says, without what only its authors can use, and of a sane length.
pub(crate) fn library_message(text: &str) -> String {
    let text = text.split("\n<").next().unwrap_or_default();
    // What is wrong with a regular expression stands behind a drawing of it.
    let text = match text.split_once("\nerror: ") {
        Some((_, error)) => format!("invalid regular expression: {}", error.lines().next().unwrap_or_default()),
        None => text.to_owned(),
    };
    let mut message: String = text.chars().take(MAX_MESSAGE).collect();
    if message.len() < text.len() {
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut() {
        let cases = [
            ("short", "bad schema".to_owned(), "bad schema".to_owned()),
            ("state of the parser", "bad\n<state>\nTokens\n</state>".to_owned(), "bad".to_owned()),
            (
                "regular expression",
                "regex parse error:\n    (?=a)\n    ^^^\nerror: look-around is not supported\n 1 | T0".to_owned(),
                "invalid regular expression: look-around is not supported".to_owned(),
            ),
            ("long, not in the middle of a character", "é".repeat(600), format!("{}…", "é".repeat(500))),
        ];
        for (name, message, wanted) in cases {
            assert_eq!(GrammarError::from_library(message), GrammarError::Invalid(wanted), "{name}");
        }
    }
}
