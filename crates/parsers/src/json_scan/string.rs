//! Strings in JSON.

use super::Scan;

/// Follows one string behind its opening quote, and can be used again for the next.
#[derive(Debug, Clone)]
pub(super) struct StringScan {
    /// What opened it and closes it: Python has two.
    quote: char,
    /// An escape so far, or empty. Written when it is whole, since it may have to be mended.
    escape: String,
    /// The first half of a surrogate pair, an escape as well: alone it is no character.
    high: String,
}

/// What stands for a surrogate that has lost its other half.
const REPLACEMENT: &str = "\\ufffd";

impl StringScan {
    pub fn new() -> Self {
        Self { quote: '"', escape: String::new(), high: String::new() }
    }

    /// The opening quote was read.
    pub fn open(&mut self, quote: char, out: &mut String) {
        self.quote = quote;
        out.push('"');
    }

    /// Takes the next character; [`Scan::Done`] is the closing quote.
    pub fn push(&mut self, c: char, mends: bool, out: &mut String) -> Scan {
        if !self.escape.is_empty() {
            return self.in_escape(c, mends, out);
        }
        if c == '\\' {
            self.escape.push(c);
            return Scan::More;
        }
        if c < ' ' && !mends {
            return Scan::Invalid;
        }
        self.flush_high(out);
        if c == self.quote {
            out.push('"');
            return Scan::Done;
        }
        if c == '"' {
            out.push('\\');
        }
        escape(c, out);
        Scan::More
    }

    fn in_escape(&mut self, c: char, mends: bool, out: &mut String) -> Scan {
        match (self.escape.len(), c) {
            (1, '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't') => {
                self.flush_high(out);
                out.push('\\');
                out.push(c);
                self.escape.clear();
            }
            (1, '\'') if self.quote == c => {
                self.flush_high(out);
                out.push(c);
                self.escape.clear();
            }
            (1, 'u') | (2..=4, '0'..='9' | 'a'..='f' | 'A'..='F') => self.escape.push(c),
            (5, '0'..='9' | 'a'..='f' | 'A'..='F') => {
                self.escape.push(c);
                self.unit(out);
            }
            _ if mends => {
                self.flush_high(out);
                out.push('\\');
                out.push_str(&std::mem::take(&mut self.escape));
                return self.push(c, mends, out);
            }
            _ => return Scan::Invalid,
        }
        Scan::More
    }

    /// `escape` is a whole `\uXXXX`.
    fn unit(&mut self, out: &mut String) {
        let escape = std::mem::take(&mut self.escape);
        match escape.get(2..).and_then(|digits| u16::from_str_radix(digits, 16).ok()) {
            Some(0xd800..=0xdbff) => {
                self.flush_high(out);
                self.high = escape;
            }
            Some(0xdc00..=0xdfff) if self.high.is_empty() => out.push_str(REPLACEMENT),
            Some(0xdc00..=0xdfff) => {
                out.push_str(&std::mem::take(&mut self.high));
                out.push_str(&escape);
            }
            _ => {
                self.flush_high(out);
                out.push_str(&escape);
            }
        }
    }

    /// No other half followed.
    fn flush_high(&mut self, out: &mut String) {
        if !self.high.is_empty() {
            self.high.clear();
            out.push_str(REPLACEMENT);
        }
    }
}

/// Writes a character of a string's text into JSON, quotes and backslashes as they are.
fn escape(c: char, out: &mut String) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
        _ => out.push(c),
    }
}

/// Writes a character into a JSON string.
pub(crate) fn write_char(c: char, out: &mut String) {
    if matches!(c, '"' | '\\') {
        out.push('\\');
    }
    escape(c, out);
}
