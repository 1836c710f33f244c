//! GBNF, the notation of llama.cpp, which vLLM's `guided_grammar` takes as well.
//!
//! Rules that don't lead back to themselves become regular expressions; only the others need a parser's stack.

use std::collections::HashMap;

use crate::error::{GrammarError, Result};
use crate::gbnf_lexer::{Lexeme, lex};
use crate::lark::{Node, Rules, Terminal};
use crate::limits;

/// Whether a text is GBNF: Lark has no `::=`.
pub(crate) fn is_gbnf(text: &str) -> bool {
    text.contains("::=")
}

/// Reads a grammar; its rule `root` is where it starts.
pub(crate) fn parse(text: &str) -> Result<Rules> {
    let lexemes = lex(text)?;
    let mut parser = Parser { lexemes: &lexemes, at: 0 };
    let (mut indices, mut bodies) = (HashMap::new(), Vec::new());
    while let Some(lexeme) = parser.next() {
        let (Lexeme::Name(name), Some(Lexeme::Assign)) = (lexeme, parser.next()) else {
            return Err(GrammarError::Invalid(format!("expected a rule, as in `root ::= \"a\"`, not {lexeme}")));
        };
        if indices.insert(name.as_str(), bodies.len()).is_some() {
            return Err(GrammarError::Invalid(format!("rule {name} is defined twice")));
        }
        bodies.push(parser.alternatives(1)?);
        if let Some(lexeme) = parser.peek().filter(|_| !parser.at_rule()) {
            return Err(GrammarError::Invalid(format!("{lexeme} is not expected in rule {name}")));
        }
    }
    let root =
        *indices.get("root").ok_or_else(|| GrammarError::Invalid("the grammar has no rule `root`".to_owned()))?;
    let regular = regular(&bodies, &indices)?;
    let builder = Builder { indices: &indices, regular: &regular };
    let mut rules = Rules { start: builder.reference(root), rules: Vec::new(), terminals: Vec::new() };
    for (index, body) in bodies.iter().enumerate() {
        match builder.node(body)? {
            Node::Terminal(terminal) if regular.contains(&index) => {
                rules.terminals.push((format!("G{index}"), terminal.text));
            }
            node => rules.rules.push((format!("r{index}"), node)),
        }
    }
    Ok(rules)
}

/// What a rule says.
#[derive(Debug)]
enum Body {
    Literal(String),
    Class(String),
    Name(String),
    Sequence(Vec<Self>),
    OneOf(Vec<Self>),
    Repeat(Box<Self>, usize, Option<usize>),
}

struct Parser<'a> {
    lexemes: &'a [Lexeme],
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a Lexeme> {
        self.lexemes.get(self.at)
    }

    fn next(&mut self) -> Option<&'a Lexeme> {
        let lexeme = self.peek()?;
        self.at += 1;
        Some(lexeme)
    }

    /// Whether the next rule begins here.
    fn at_rule(&self) -> bool {
        matches!(self.lexemes.get(self.at..self.at + 2), Some([Lexeme::Name(_), Lexeme::Assign]))
    }

    fn alternatives(&mut self, depth: usize) -> Result<Body> {
        GrammarError::check_size("levels of nesting in the grammar", depth, limits::MAX_DEPTH)?;
        let mut all = vec![self.sequence(depth)?];
        while self.peek() == Some(&Lexeme::Bar) {
            self.at += 1;
            all.push(self.sequence(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Body::OneOf(all) })
    }

    fn sequence(&mut self, depth: usize) -> Result<Body> {
        let mut parts = Vec::new();
        while !self.at_rule() {
            let part = match self.peek() {
                Some(Lexeme::Literal(text)) => Body::Literal(text.clone()),
                Some(Lexeme::Class(class)) => Body::Class(class.clone()),
                Some(Lexeme::Name(name)) => Body::Name(name.clone()),
                Some(Lexeme::Open) => {
                    self.at += 1;
                    let inner = self.alternatives(depth + 1)?;
                    if self.peek() != Some(&Lexeme::Close) {
                        return Err(GrammarError::Invalid("a parenthesis is not closed".to_owned()));
                    }
                    inner
                }
                _ => break,
            };
            self.at += 1;
            let mut part = part;
            while let Some(&Lexeme::Times(least, most)) = self.peek() {
                self.at += 1;
                part = Body::Repeat(Box::new(part), least, most);
            }
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.remove(0) } else { Body::Sequence(parts) })
    }
}

/// Names of the rules in a body.
fn names<'a>(body: &'a Body, found: &mut Vec<&'a str>) {
    match body {
        Body::Literal(_) | Body::Class(_) => {}
        Body::Name(name) => found.push(name),
        Body::Sequence(parts) | Body::OneOf(parts) => parts.iter().for_each(|part| names(part, found)),
        Body::Repeat(part, ..) => names(part, found),
    }
}

/// The rules that refer to regular ones only.
fn regular(bodies: &[Body], indices: &HashMap<&str, usize>) -> Result<Vec<usize>> {
    let mut waiting = Vec::new();
    for (index, body) in bodies.iter().enumerate() {
        let mut found = Vec::new();
        names(body, &mut found);
        let unknown = |name: &&str| !indices.contains_key(name);
        if let Some(name) = found.iter().find(|name| unknown(name)) {
            return Err(GrammarError::Invalid(format!("rule {name} is not defined")));
        }
        let needs: Vec<usize> = found.iter().filter_map(|name| indices.get(name).copied()).collect();
        waiting.push((index, needs));
    }
    let mut regular = Vec::new();
    loop {
        let (ready, rest): (Vec<_>, Vec<_>) =
            waiting.into_iter().partition(|(_, needs)| needs.iter().all(|need| regular.contains(need)));
        if ready.is_empty() {
            return Ok(regular);
        }
        regular.extend(ready.iter().map(|(index, _)| *index));
        waiting = rest;
    }
}

struct Builder<'a> {
    indices: &'a HashMap<&'a str, usize>,
    regular: &'a [usize],
}

impl Builder<'_> {
    fn reference(&self, index: usize) -> Node {
        if self.regular.contains(&index) {
            return Node::Terminal(Terminal { text: format!("G{index}"), open: true });
        }
        Node::Rule(format!("r{index}"))
    }

    fn node(&self, body: &Body) -> Result<Node> {
        let all = |parts: &[Body]| parts.iter().map(|part| self.node(part)).collect::<Result<Vec<_>>>();
        Ok(match body {
            Body::Literal(text) => Node::literal(text),
            Body::Class(class) => Node::Terminal(Terminal { text: format!("/{class}/"), open: false }),
            Body::Name(name) => match self.indices.get(name.as_str()) {
                Some(&index) => self.reference(index),
                None => return Err(GrammarError::Invalid(format!("rule {name} is not defined"))),
            },
            Body::Sequence(parts) => Node::sequence(all(parts)?),
            Body::OneOf(parts) => Node::one_of(all(parts)?),
            Body::Repeat(part, least, most) => Node::repeat(self.node(part)?, *least, *most),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lark::write_rules;

    #[test]
    fn grammars() {
        let cases = [
            ("regular", "root ::= \"a\" [0-9]+ | word\nword ::= \"b\"?", "start: T0\n"),
            (
                "recursive",
                "root ::= \"(\" root \")\" | \"\"",
                "start: r0\nT0: \"(\"\nT1: \")\"\nr0: ((T0 r0 T1) | \"\")\n",
            ),
        ];
        for (name, text, wanted) in cases {
            let written = write_rules(&parse(text).unwrap());
            assert!(written.contains(wanted) || written.ends_with(wanted), "{name}: {written}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let cases = [
            ("no root", "a ::= \"b\"", "the grammar has no rule `root`"),
            ("unknown rule", "root ::= b", "rule b is not defined"),
            ("twice", "root ::= \"a\" root ::= \"b\"", "rule root is defined twice"),
            ("open parenthesis", "root ::= (\"a\"", "a parenthesis is not closed"),
            ("closed too often", "root ::= \"a\")", "`)` is not expected in rule root"),
            ("no rule", "\"a\" ::= \"b\"", "expected a rule, as in `root ::= \"a\"`, not \"a\""),
            ("open string", "root ::= \"a", "a string is not closed"),
        ];
        for (name, text, wanted) in cases {
            assert_eq!(parse(text).unwrap_err().to_string(), wanted, "{name}");
        }
        let deep = format!("root ::= {}\"a\"{}", "(".repeat(10_000), ")".repeat(10_000));
        assert!(matches!(parse(&deep), Err(GrammarError::TooLarge { .. })));
    }
}
