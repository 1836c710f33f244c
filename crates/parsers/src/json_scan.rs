//! Where a JSON value ends, in whatever pieces it comes.

mod string;

pub(crate) use string::write_char;

use string::StringScan;

/// How deep values may be nested. `serde_json`, which reads them later, allows 128.
const MOST_NESTED: usize = 100;

/// Follows one JSON value a character at a time, and writes it out again.
///
/// What is written is always the beginning of JSON. It is the text as it came, with slips of models mended whose
/// meaning is beyond doubt: in strings, control characters and backslashes that escape nothing are escaped, and halves of
/// surrogate pairs replaced; Python's `True`, `False`, `None` and single quotes become JSON's.
#[derive(Debug, Clone)]
pub(crate) struct JsonScan {
    state: State,
    /// The open arrays and objects, the innermost last.
    open: Vec<Bracket>,
    string: StringScan,
    mends: bool,
    /// What [`Self::check`] doesn't hand out; kept for its memory alone.
    unwanted: String,
}

/// What a character was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scan {
    /// Part of the value, which goes on.
    More,
    /// The value's last character.
    Done,
    /// Not part of the value any more, which is complete: only numbers end like this.
    Before,
    /// Not JSON; nothing was written for it.
    Invalid,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bracket {
    Array,
    Object,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// A value; with `or_end`, an array may end instead.
    Value {
        or_end: bool,
    },
    /// A key; with `or_end`, the object may end instead.
    Key {
        or_end: bool,
    },
    Colon,
    /// A comma or the end of what is open.
    After,
    String {
        key: bool,
    },
    Number(Number),
    /// The rest of a word as it comes, and as it is written.
    Word(&'static str, &'static str),
    Done,
}

/// Where in a number.
#[derive(Debug, Clone, Copy)]
enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    E,
    Sign,
    Exponent,
}

impl JsonScan {
    /// For values that models write: mends slips.
    pub fn mending() -> Self {
        Self {
            state: State::Value { or_end: false },
            open: Vec::new(),
            string: StringScan::new(),
            mends: true,
            unwanted: String::new(),
        }
    }

    /// Takes JSON only.
    pub fn strict() -> Self {
        Self { mends: false, ..Self::mending() }
    }

    /// Takes the next character and writes it to `out`. After anything but [`Scan::More`] nothing may be pushed.
    pub fn push(&mut self, c: char, out: &mut String) -> Scan {
        match self.state {
            State::String { key } => self.in_string(c, key, out),
            State::Number(number) => match number.then(c) {
                Some(next) => self.go(State::Number(next), c, out),
                None if !number.may_end() => Scan::Invalid,
                None if self.open.is_empty() => {
                    self.state = State::Done;
                    Scan::Before
                }
                None => {
                    self.state = State::After;
                    self.push(c, out)
                }
            },
            State::Word(read, write) => self.in_word(c, read, write, out),
            State::Done => Scan::Invalid,
            _ if matches!(c, ' ' | '\t' | '\n' | '\r') => self.go(self.state, c, out),
            State::Value { or_end } => match c {
                ']' if or_end => self.close(Bracket::Array, c, out),
                _ => self.value(c, out),
            },
            State::Key { or_end } => match c {
                '"' => self.open_string(true, c, out),
                '\'' if self.mends => self.open_string(true, c, out),
                '}' if or_end => self.close(Bracket::Object, c, out),
                _ => Scan::Invalid,
            },
            State::Colon => match c {
                ':' => self.go(State::Value { or_end: false }, c, out),
                _ => Scan::Invalid,
            },
            State::After => match (c, self.open.last()) {
                (',', Some(Bracket::Array)) => self.go(State::Value { or_end: false }, c, out),
                (',', Some(Bracket::Object)) => self.go(State::Key { or_end: false }, c, out),
                (']', _) => self.close(Bracket::Array, c, out),
                ('}', _) => self.close(Bracket::Object, c, out),
                _ => Scan::Invalid,
            },
        }
    }

    /// Takes the next character and writes nothing.
    pub fn check(&mut self, c: char) -> Scan {
        let mut unwanted = std::mem::take(&mut self.unwanted);
        let scan = self.push(c, &mut unwanted);
        unwanted.clear();
        self.unwanted = unwanted;
        scan
    }

    /// Whether the value is complete if nothing follows.
    pub fn may_end(&self) -> bool {
        match self.state {
            State::Done => true,
            State::Number(number) => self.open.is_empty() && number.may_end(),
            _ => false,
        }
    }

    fn go(&mut self, state: State, c: char, out: &mut String) -> Scan {
        self.state = state;
        out.push(c);
        Scan::More
    }

    fn value(&mut self, c: char, out: &mut String) -> Scan {
        match c {
            '{' => self.open(Bracket::Object, State::Key { or_end: true }, c, out),
            '[' => self.open(Bracket::Array, State::Value { or_end: true }, c, out),
            '"' => self.open_string(false, c, out),
            '\'' if self.mends => self.open_string(false, c, out),
            '-' => self.go(State::Number(Number::Minus), c, out),
            '0' => self.go(State::Number(Number::Zero), c, out),
            '1'..='9' => self.go(State::Number(Number::Digits), c, out),
            't' => self.go(State::Word("rue", "rue"), c, out),
            'f' => self.go(State::Word("alse", "alse"), c, out),
            'n' => self.go(State::Word("ull", "ull"), c, out),
            'T' if self.mends => self.go(State::Word("rue", "rue"), 't', out),
            'F' if self.mends => self.go(State::Word("alse", "alse"), 'f', out),
            'N' if self.mends => self.go(State::Word("one", "ull"), 'n', out),
            _ => Scan::Invalid,
        }
    }

    fn open_string(&mut self, key: bool, quote: char, out: &mut String) -> Scan {
        self.state = State::String { key };
        self.string.open(quote, out);
        Scan::More
    }

    fn open(&mut self, bracket: Bracket, inside: State, c: char, out: &mut String) -> Scan {
        if self.open.len() >= MOST_NESTED {
            return Scan::Invalid;
        }
        self.open.push(bracket);
        self.go(inside, c, out)
    }

    fn close(&mut self, bracket: Bracket, c: char, out: &mut String) -> Scan {
        if self.open.last() != Some(&bracket) {
            return Scan::Invalid;
        }
        self.open.pop();
        out.push(c);
        self.ended()
    }

    /// A value ended with the latest character.
    fn ended(&mut self) -> Scan {
        if self.open.is_empty() {
            self.state = State::Done;
            Scan::Done
        } else {
            self.state = State::After;
            Scan::More
        }
    }

    fn in_word(&mut self, c: char, read: &'static str, write: &'static str, out: &mut String) -> Scan {
        let (Some(read), mut written) = (read.strip_prefix(c), write.chars()) else { return Scan::Invalid };
        out.extend(written.next());
        if read.is_empty() {
            return self.ended();
        }
        self.state = State::Word(read, written.as_str());
        Scan::More
    }

    fn in_string(&mut self, c: char, key: bool, out: &mut String) -> Scan {
        match self.string.push(c, self.mends, out) {
            Scan::Done if key => {
                self.state = State::Colon;
                Scan::More
            }
            Scan::Done => self.ended(),
            other => other,
        }
    }
}

impl Number {
    fn then(self, c: char) -> Option<Self> {
        Some(match (self, c) {
            (Self::Minus, '0') => Self::Zero,
            (Self::Minus, '1'..='9') | (Self::Digits, '0'..='9') => Self::Digits,
            (Self::Zero | Self::Digits, '.') => Self::Point,
            (Self::Point | Self::Fraction, '0'..='9') => Self::Fraction,
            (Self::Zero | Self::Digits | Self::Fraction, 'e' | 'E') => Self::E,
            (Self::E, '+' | '-') => Self::Sign,
            (Self::E | Self::Sign | Self::Exponent, '0'..='9') => Self::Exponent,
            _ => return None,
        })
    }

    fn may_end(self) -> bool {
        matches!(self, Self::Zero | Self::Digits | Self::Fraction | Self::Exponent)
    }
}

#[cfg(test)]
mod tests;
