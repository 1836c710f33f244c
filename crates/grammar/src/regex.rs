//! Regular expressions of clients.

use regex_syntax::hir::{Hir, HirKind};

use crate::error::{GrammarError, Result};
use crate::limits;

/// Refuses a regular expression that is long, or that would be if its repetitions were written out.
pub(crate) fn check(regex: &str) -> Result<()> {
    GrammarError::check_size("bytes of regular expression", regex.len(), limits::MAX_REGEX)?;
    // What can't be read llguidance refuses as well, and says why.
    let Ok(parsed) = regex_syntax::parse(regex) else { return Ok(()) };
    let size = unrolled(&parsed);
    GrammarError::check_size("characters of regular expression, unrolled", size as usize, limits::MAX_UNROLLED as usize)
}

/// Characters with all repetitions written out, about. Parsing has limited how deep it goes.
fn unrolled(regex: &Hir) -> u64 {
    match regex.kind() {
        HirKind::Empty | HirKind::Look(_) => 0,
        HirKind::Literal(literal) => literal.0.len() as u64,
        HirKind::Class(_) => 1,
        HirKind::Capture(capture) => unrolled(&capture.sub),
        HirKind::Repetition(repetition) => {
            let times = repetition.max.unwrap_or(repetition.min).max(1);
            unrolled(&repetition.sub).saturating_mul(u64::from(times))
        }
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().fold(0, |sum, part| sum.saturating_add(unrolled(part)))
        }
    }
}

/// A client's regular expression as one for Lark, that matches texts as a whole.
///
/// `\d` and `\w` become ASCII. The languages differ in what these mean; these match in all of them. Their opposites
/// stay what they are in Unicode, for the same reason.
pub(crate) fn for_lark(regex: &str) -> String {
    let regex = regex.strip_prefix('^').unwrap_or(regex);
    let regex = match regex.strip_suffix('$') {
        Some(before) if !is_escaped_at_end(before) => before,
        _ => regex,
    };
    let mut out = String::with_capacity(regex.len());
    let mut rest = regex.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => match rest.next() {
                Some('d') => out.push_str("[0-9]"),
                Some('w') => out.push_str("[0-9A-Za-z_]"),
                // Ends of words in the `regex` crate, which llguidance has no use for, and nothing special elsewhere.
                Some(c @ ('<' | '>')) => out.push(c),
                Some('/') => out.push_str("\\/"),
                Some('\n') => out.push_str("\\n"),
                Some(c) => out.extend(['\\', c]),
                None => out.push('\\'),
            },
            '/' => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    out
}

/// Whether what follows `text` has a backslash before it that means it.
fn is_escaped_at_end(text: &str) -> bool {
    text.bytes().rev().take_while(|byte| *byte == b'\\').count() % 2 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_expressions_of_clients() {
        let cases = [
            ("plain", "a+b", "a+b"),
            ("anchored", "^a$", "a"),
            ("a dollar", r"^a\$", r"a\$"),
            ("a backslash at the end", r"a\\$", r"a\\"),
            ("digits", r"\d\D[\d_]", r"[0-9]\D[[0-9]_]"),
            ("a backslash and a d", r"\\d", r"\\d"),
            ("slashes", r"a/b\/c", r"a\/b\/c"),
            ("angle brackets", r"\<a\>", "<a>"),
            ("line breaks", "a\nb\\\nc", r"a\nb\nc"),
            ("a backslash too many", "a\\", "a\\"),
        ];
        for (name, regex, wanted) in cases {
            assert_eq!(for_lark(regex), wanted, "{name}");
        }
    }
}
