//! Grammars of ours, written as llguidance reads them.
//!
//! llguidance cuts text into lexemes greedily, as a compiler's lexer does: a lexeme that may go on does. `any text
//! without </p>` followed by `</p>` would, as two lexemes, never end. So whatever is regular and stands side by side
//! is written as one regular expression, where that question doesn't arise.

use std::fmt::Write as _;

use serde_json::Value;
use vllm_platform::TokenId;

use crate::error::{GrammarError, Result};
use crate::limits;

/// Parts that a lexeme may be copied in front of.
const MAX_COPIED: usize = 200;

/// How Lark writes the empty text.
const EMPTY: &str = "\"\"";

/// A part of a grammar.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Terminal(Terminal),
    Token(TokenId),
    Json(Value),
    Rule(String),
    Sequence(Vec<Self>),
    OneOf(Vec<Self>),
    Repeat(Box<Self>, usize, Option<usize>),
}

/// Something regular.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Terminal {
    /// As Lark writes it.
    pub text: String,
    /// Whether it may go on where it could also end.
    pub open: bool,
}

/// A whole grammar.
#[derive(Debug)]
pub(crate) struct Rules {
    pub start: Node,
    pub rules: Vec<(String, Node)>,
    pub terminals: Vec<(String, String)>,
}

impl Node {
    fn terminal(text: String, open: bool) -> Self {
        Self::Terminal(Terminal { text, open })
    }

    pub fn literal(text: &str) -> Self {
        // Lark's strings are JSON's, but for one control character more that must be escaped.
        Self::terminal(Value::from(text).to_string().replace('\u{7f}', "\\u007f"), false)
    }

    /// A regular expression, in slashes or not at all: two slashes would begin a comment.
    pub fn regex(regex: &str) -> Self {
        if regex.is_empty() { Self::literal("") } else { Self::terminal(format!("/{regex}/"), true) }
    }

    /// Any text in which none of these occurs.
    pub fn text(without: &[String]) -> Self {
        if without.is_empty() {
            return Self::regex("(?s:.*)");
        }
        let without: Vec<String> = without.iter().map(|text| escape(text)).collect();
        let text = format!("(/(?s:.*)/ & ~/(?s:.*)(?:{})(?s:.*)/)", without.join("|"));
        Self::terminal(text, true)
    }

    /// One after the other.
    pub fn sequence(parts: Vec<Self>) -> Self {
        let mut done: Vec<Self> = Vec::new();
        for part in flat(parts) {
            match (done.pop(), part) {
                (Some(Self::Terminal(before)), Self::Terminal(part)) => {
                    done.push(Self::terminal(format!("{} {}", before.text, part.text), before.open | part.open));
                }
                (Some(Self::Terminal(before)), part) if before.open && part.size() <= MAX_COPIED => {
                    done.extend(flat(vec![part.behind(&before)]));
                }
                (before, part) => done.extend(before.into_iter().chain([part])),
            }
        }
        match done.len() {
            0 => Self::literal(""),
            1 => done.remove(0),
            _ => Self::Sequence(done),
        }
    }

    /// Any of them.
    pub fn one_of(parts: Vec<Self>) -> Self {
        let terminals = parts.iter().map(|part| match part {
            Self::Terminal(terminal) => Some(terminal),
            _ => None,
        });
        match terminals.collect::<Option<Vec<&Terminal>>>() {
            Some(terminals) if !terminals.is_empty() => {
                let texts: Vec<&str> = terminals.iter().map(|terminal| terminal.text.as_str()).collect();
                // One that begins like another may go on where the other ends.
                let open = texts.len() > 1 || terminals.iter().any(|terminal| terminal.open);
                Self::terminal(format!("({})", texts.join(" | ")), open)
            }
            _ => Self::OneOf(parts),
        }
    }

    /// Several times.
    pub fn repeat(part: Self, least: usize, most: Option<usize>) -> Self {
        match (part, least, most) {
            (_, _, Some(0)) => Self::literal(""),
            (part, 1, Some(1)) => part,
            (Self::Terminal(part), ..) => Self::terminal(format!("({}){}", part.text, times(least, most)), true),
            (part, ..) => Self::Repeat(Box::new(part), least, most),
        }
    }

    /// This, with `before` as part of its first lexeme.
    fn behind(self, before: &Terminal) -> Self {
        let alone = || Self::Terminal(before.clone());
        match self {
            Self::OneOf(parts) => Self::OneOf(parts.into_iter().map(|part| part.behind(before)).collect()),
            Self::Sequence(parts) => Self::sequence([alone()].into_iter().chain(parts).collect()),
            Self::Repeat(part, least, most) => {
                let most = most.map(|most| most.saturating_sub(1));
                let more = Self::repeat((*part).clone(), least.saturating_sub(1), most);
                let some = Self::sequence(vec![part.behind(before), more]);
                if least == 0 { Self::OneOf(vec![alone(), some]) } else { some }
            }
            part @ Self::Terminal(_) => Self::sequence(vec![alone(), part]),
            part @ (Self::Token(_) | Self::Json(_) | Self::Rule(_)) => Self::Sequence(vec![alone(), part]),
        }
    }

    fn size(&self) -> usize {
        match self {
            Self::Sequence(parts) | Self::OneOf(parts) => 1 + parts.iter().map(Self::size).sum::<usize>(),
            Self::Repeat(part, ..) => 1 + part.size(),
            _ => 1,
        }
    }
}

/// Without sequences in sequences, and without what is empty.
fn flat(parts: Vec<Node>) -> Vec<Node> {
    let inner = |part| match part {
        Node::Sequence(parts) => flat(parts),
        Node::Terminal(terminal) if terminal.text == EMPTY => Vec::new(),
        part => vec![part],
    };
    parts.into_iter().flat_map(inner).collect()
}

/// How Lark writes a number of times.
fn times(least: usize, most: Option<usize>) -> String {
    match (least, most) {
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (0, Some(1)) => "?".to_owned(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

/// A text as a regular expression between slashes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            c if r"\.+*?()|[]{}^$#&-~/".contains(c) => escaped.extend(['\\', c]),
            c => escaped.push(c),
        }
    }
    escaped
}

/// A grammar of one rule.
pub(crate) fn write(start: &Node) -> String {
    write_rules(&Rules { start: start.clone(), rules: Vec::new(), terminals: Vec::new() })
}

/// A grammar as text.
pub(crate) fn write_rules(rules: &Rules) -> String {
    let mut writer = Writer::default();
    writer.rule("start", &rules.start);
    for (name, node) in &rules.rules {
        writer.rule(name, node);
    }
    for (name, text) in &rules.terminals {
        let _ = writeln!(writer.text, "{name}: {text}");
    }
    writer.text
}

/// What is written, and the number of rules and terminals it needed names for.
#[derive(Default)]
struct Writer {
    text: String,
    names: usize,
}

impl Writer {
    fn rule(&mut self, name: &str, node: &Node) {
        let expression = self.expression(node);
        let _ = writeln!(self.text, "{name}: {expression}");
    }

    fn expression(&mut self, node: &Node) -> String {
        let all = |writer: &mut Self, parts: &[Node], between: &str| {
            let parts: Vec<String> = parts.iter().map(|part| writer.expression(part)).collect();
            if parts.is_empty() { EMPTY.to_owned() } else { format!("({})", parts.join(between)) }
        };
        match node {
            Node::Terminal(terminal) if terminal.text == EMPTY => terminal.text.clone(),
            Node::Terminal(terminal) => self.named('T', &terminal.text),
            Node::Token(token) => format!("<[{token}]>"),
            Node::Json(schema) => self.named('j', &format!("%json {schema}")),
            Node::Rule(name) => name.clone(),
            Node::Sequence(parts) => all(self, parts, " "),
            Node::OneOf(parts) => all(self, parts, " | "),
            Node::Repeat(part, least, most) => format!("({}){}", self.expression(part), times(*least, *most)),
        }
    }

    fn named(&mut self, letter: char, definition: &str) -> String {
        let name = format!("{letter}{}", self.names);
        self.names += 1;
        let _ = writeln!(self.text, "{name}: {definition}");
        name
    }
}

/// Refuses a client's Lark text that nests too deeply for what reads it, by recursion. What else is wrong with it
/// llguidance says.
pub(crate) fn check(text: &str) -> Result<()> {
    let (mut depth, mut deepest, mut nots) = (0usize, 0, 0);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '"' => skip_to('"', &mut rest),
            '/' if rest.peek() == Some(&'/') => skip_line(&mut rest),
            '/' => skip_to('/', &mut rest),
            '#' => skip_line(&mut rest),
            '(' | '[' | '{' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            '~' => nots += 1,
            _ => {}
        }
    }
    GrammarError::check_size("levels of nesting in the grammar", deepest, limits::MAX_DEPTH)?;
    GrammarError::check_size("operators ~ in the grammar", nots, limits::MAX_PARTS)
}

fn skip_to(end: char, rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    while let Some(c) = rest.next() {
        match c {
            '\\' => drop(rest.next()),
            c if c == end => return,
            _ => {}
        }
    }
}

fn skip_line(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) {
    let _ = rest.find(|&c| c == '\n');
}
