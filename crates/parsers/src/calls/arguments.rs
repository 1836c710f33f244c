//! The value of `"arguments"`: a JSON object, or one inside of a JSON string.

use super::scanner::Step;
use crate::json_scan::{JsonScan, Scan};

/// Reads arguments a character at a time and writes them as a JSON object.
///
/// `null` and an empty string, which models write for a tool without parameters, are the empty object.
#[derive(Debug)]
pub(crate) enum Arguments {
    /// Before the value.
    Start,
    /// An object.
    Object(JsonScan),
    /// An object that is written as a string.
    Quoted(Quoted),
    /// The rest of `null`.
    Null(&'static str),
}

/// Undoes the quoting of an object.
#[derive(Debug)]
pub(crate) struct Quoted {
    object: JsonScan,
    /// Whether the object has begun, and whether it is complete.
    begun: bool,
    complete: bool,
    /// An escape so far, or empty.
    escape: String,
    /// The first half of a surrogate pair.
    high: Option<u16>,
}

impl Arguments {
    /// Takes the next character and writes what it means to `out`. White space before the value is skipped.
    pub fn push(&mut self, c: char, out: &mut String) -> Step {
        match self {
            Self::Start => match c {
                ' ' | '\t' | '\n' | '\r' => {}
                '"' => *self = Self::Quoted(Quoted::new()),
                'n' => *self = Self::Null("ull"),
                '{' => {
                    let mut object = JsonScan::mending();
                    object.push(c, out);
                    *self = Self::Object(object);
                }
                _ => return Step::Refused,
            },
            Self::Object(object) => return step(object.push(c, out)),
            Self::Quoted(quoted) => return quoted.push(c, out),
            Self::Null(rest) => match rest.strip_prefix(c) {
                Some("") => {
                    out.push_str("{}");
                    return Step::Done;
                }
                Some(left) => *rest = left,
                None => return Step::Refused,
            },
        }
        Step::More
    }
}

fn step(scan: Scan) -> Step {
    match scan {
        Scan::More => Step::More,
        Scan::Done => Step::Done,
        Scan::Before | Scan::Invalid => Step::Refused,
    }
}

impl Quoted {
    fn new() -> Self {
        Self { object: JsonScan::mending(), begun: false, complete: false, escape: String::new(), high: None }
    }

    fn push(&mut self, c: char, out: &mut String) -> Step {
        if !self.escape.is_empty() {
            return self.in_escape(c, out);
        }
        match c {
            '\\' => {
                self.escape.push(c);
                Step::More
            }
            '"' if !self.begun => {
                out.push_str("{}");
                Step::Done
            }
            '"' if self.complete => Step::Done,
            '"' => Step::Refused,
            _ => self.inner(c, out),
        }
    }

    fn in_escape(&mut self, c: char, out: &mut String) -> Step {
        let short = match (self.escape.len(), c) {
            (1, 'n') => '\n',
            (1, 't') => '\t',
            (1, 'r') => '\r',
            (1, 'b') => '\u{8}',
            (1, 'f') => '\u{c}',
            (1, '"' | '\\' | '/') => c,
            (1, 'u') | (2..=4, '0'..='9' | 'a'..='f' | 'A'..='F') => {
                self.escape.push(c);
                return Step::More;
            }
            (5, '0'..='9' | 'a'..='f' | 'A'..='F') => {
                self.escape.push(c);
                return self.unit(out);
            }
            _ => return Step::Refused,
        };
        self.escape.clear();
        self.inner(short, out)
    }

    /// `escape` is a whole `\uXXXX`.
    fn unit(&mut self, out: &mut String) -> Step {
        let unit = self.escape.get(2..).and_then(|digits| u16::from_str_radix(digits, 16).ok()).unwrap_or_default();
        self.escape.clear();
        let pair: &[u16] = match self.high.take() {
            Some(high) => &[high, unit],
            None if matches!(unit, 0xd800..=0xdbff) => {
                self.high = Some(unit);
                return Step::More;
            }
            None => &[unit],
        };
        for c in char::decode_utf16(pair.iter().copied()) {
            match self.inner(c.unwrap_or(char::REPLACEMENT_CHARACTER), out) {
                Step::More => {}
                other => return other,
            }
        }
        Step::More
    }

    /// A character of the object.
    fn inner(&mut self, c: char, out: &mut String) -> Step {
        if self.high.take().is_some() {
            // Half a character was written: only a string can hold it, and only as what stands for it.
            let lost = self.inner(char::REPLACEMENT_CHARACTER, out);
            if lost != Step::More {
                return lost;
            }
        }
        if !self.begun || self.complete {
            match c {
                ' ' | '\t' | '\n' | '\r' => return Step::More,
                '{' if !self.begun => self.begun = true,
                _ => return Step::Refused,
            }
        }
        match self.object.push(c, out) {
            Scan::More => Step::More,
            Scan::Done => {
                self.complete = true;
                Step::More
            }
            Scan::Before | Scan::Invalid => Step::Refused,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &str) -> (String, Option<Step>) {
        let (mut arguments, mut out) = (Arguments::Start, String::new());
        for c in input.chars() {
            match arguments.push(c, &mut out) {
                Step::More => {}
                end => return (out, Some(end)),
            }
        }
        (out, None)
    }

    #[test]
    fn arguments_are_an_object_however_they_are_written() {
        for (input, object) in [
            (r#" {"a": "b"}"#, r#"{"a": "b"}"#),
            ("null", "{}"),
            (r#""""#, "{}"),
            (r#"" { } ""#, "{ }"),
            (r#""{\"a\": \"b\\\"c\\n\"}""#, r#"{"a": "b\"c\n"}"#),
            (r#""{\"a\": \"x\ny\"}""#, r#"{"a": "x\ny"}"#),
            (r#""{\"a\": \"\u00e9\ud83d\ude00\"}""#, r#"{"a": "é😀"}"#),
            (r#""{\"a\": \"\ud83d!\"}""#, "{\"a\": \"\u{fffd}!\"}"),
            (r#""{\u0022a\": 1}""#, r#"{"a": 1}"#),
        ] {
            assert_eq!(read(input), (object.to_owned(), Some(Step::Done)), "{input}");
        }
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for (input, written) in [
            ("[1]", ""),
            ("1", ""),
            ("nil", ""),
            (r#""text""#, ""),
            (r#""{\"a\": 1""#, r#"{"a": 1"#),
            (r#""{} x""#, "{}"),
            (r#""\x""#, ""),
            (r#"{"a": x"#, r#"{"a": "#),
        ] {
            assert_eq!(read(input), (written.to_owned(), Some(Step::Refused)), "{input}");
        }
    }
}
