//! Lexemes of GBNF.

use std::fmt;
use std::iter::Peekable;
use std::str::Chars;

use crate::error::{GrammarError, Result};
use crate::limits;

/// A lexeme.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Lexeme {
    Name(String),
    Assign,
    Literal(String),
    /// A character class, as a regular expression.
    Class(String),
    Open,
    Close,
    Bar,
    Times(usize, Option<usize>),
}

impl fmt::Display for Lexeme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "`{name}`"),
            Self::Literal(text) => write!(f, "{text:?}"),
            Self::Class(class) => write!(f, "{class}"),
            Self::Assign => f.write_str("`::=`"),
            Self::Open => f.write_str("`(`"),
            Self::Close => f.write_str("`)`"),
            Self::Bar => f.write_str("`|`"),
            Self::Times(..) => f.write_str("a number of times"),
        }
    }
}

type Rest<'a> = Peekable<Chars<'a>>;

/// All lexemes of a text.
pub(crate) fn lex(text: &str) -> Result<Vec<Lexeme>> {
    let mut rest = text.chars().peekable();
    let mut lexemes = Vec::new();
    while let Some(c) = rest.next() {
        lexemes.push(match c {
            c if c.is_whitespace() => continue,
            '#' => {
                let _ = rest.find(|&c| c == '\n');
                continue;
            }
            '"' => literal(&mut rest)?,
            '[' => class(&mut rest)?,
            '.' => Lexeme::Class("(?s:.)".to_owned()),
            '(' => Lexeme::Open,
            ')' => Lexeme::Close,
            '|' => Lexeme::Bar,
            '*' => Lexeme::Times(0, None),
            '+' => Lexeme::Times(1, None),
            '?' => Lexeme::Times(0, Some(1)),
            '{' => times(&mut rest)?,
            ':' if rest.next() == Some(':') && rest.next() == Some('=') => Lexeme::Assign,
            c if is_name(c) => {
                let mut name = String::from(c);
                while let Some(c) = rest.next_if(|&c| is_name(c)) {
                    name.push(c);
                }
                Lexeme::Name(name)
            }
            c => return Err(GrammarError::Invalid(format!("{c:?} means nothing here"))),
        });
    }
    Ok(lexemes)
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_')
}

fn literal(rest: &mut Rest<'_>) -> Result<Lexeme> {
    let mut text = String::new();
    loop {
        match rest.next() {
            None => return Err(GrammarError::Invalid("a string is not closed".to_owned())),
            Some('"') => return Ok(Lexeme::Literal(text)),
            Some('\\') => text.push(escaped(rest)?),
            Some(c) => text.push(c),
        }
    }
}

fn class(rest: &mut Rest<'_>) -> Result<Lexeme> {
    let mut class = String::from(if rest.next_if_eq(&'^').is_some() { "[^" } else { "[" });
    loop {
        let c = match rest.next() {
            None => return Err(GrammarError::Invalid("a character class is not closed".to_owned())),
            Some(']') => break,
            Some('-') => {
                class.push('-');
                continue;
            }
            Some('\\') => escaped(rest)?,
            Some(c) => c,
        };
        class.push_str(&format!("\\x{{{:x}}}", u32::from(c)));
    }
    class.push(']');
    Ok(Lexeme::Class(class))
}

fn escaped(rest: &mut Rest<'_>) -> Result<char> {
    let c = rest.next().ok_or_else(|| GrammarError::Invalid("a backslash at the end".to_owned()))?;
    let digits = match c {
        'n' => return Ok('\n'),
        'r' => return Ok('\r'),
        't' => return Ok('\t'),
        'x' => 2,
        'u' => 4,
        'U' => 8,
        '\\' | '"' | '[' | ']' | '-' | '^' | '/' | '\'' | '.' => return Ok(c),
        c => return Err(GrammarError::Invalid(format!("\\{c} is no escape"))),
    };
    let code: String = rest.by_ref().take(digits).collect();
    let value = u32::from_str_radix(&code, 16).ok().filter(|_| code.len() == digits).and_then(char::from_u32);
    value.ok_or_else(|| GrammarError::Invalid(format!("\\{c}{code} is no character")))
}

/// `{m}`, `{m,}` or `{m,n}`, its brace taken already.
fn times(rest: &mut Rest<'_>) -> Result<Lexeme> {
    let text: String = rest.by_ref().take_while(|&c| c != '}').take(limits::MAX_DEPTH).collect();
    let number = |text: &str| text.trim().parse::<usize>().ok().filter(|&times| times <= limits::MAX_TIMES);
    let bounds = match text.split_once(',') {
        None => number(&text).map(|times| (times, Some(times))),
        Some((least, most)) if most.trim().is_empty() => number(least).map(|least| (least, None)),
        Some((least, most)) => number(least).zip(number(most).map(Some)),
    };
    match bounds {
        Some((least, most)) if most.is_none_or(|most| least <= most) => Ok(Lexeme::Times(least, most)),
        _ => Err(GrammarError::Invalid(format!("{{{text}}} is no number of times"))),
    }
}
