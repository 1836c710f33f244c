//! Which tokens of an answer are of which part of it.
//!
//! Parsers see text, and hold back what may turn out to be a marker; so a token's part is known only when something
//! comes of it.

use vllm_scheduler::GeneratedToken;

/// A part of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Chain of thought, with its markers.
    Reasoning,
    /// Text for the user.
    Text,
    /// Calls, with their markers.
    Call,
}

/// Counts tokens. Where several come in one chunk, the chunk in which the chain of thought ends is not counted to it.
#[derive(Debug)]
pub struct Tally {
    part: Option<Part>,
    /// Tokens of which nothing has come yet.
    pending: usize,
    /// How many of them are of the latest chunk.
    fresh: usize,
    /// Those of them that have log probabilities.
    tokens: Vec<GeneratedToken>,
    fresh_tokens: usize,
    reasoning: usize,
}

impl Tally {
    /// For an answer that begins inside a chain of thought, or doesn't.
    pub fn new(open: bool) -> Self {
        let part = open.then_some(Part::Reasoning);
        Self { part, pending: 0, fresh: 0, tokens: Vec::new(), fresh_tokens: 0, reasoning: 0 }
    }

    /// A chunk of `count` tokens; `tokens` are those with log probabilities.
    pub fn take_in(&mut self, count: usize, tokens: &[GeneratedToken]) {
        self.pending += count;
        self.fresh = count;
        self.tokens.extend_from_slice(tokens);
        self.fresh_tokens = tokens.len();
    }

    /// Something has come of it; returns the tokens with log probabilities that it is made of.
    pub fn comes_of(&mut self, part: Part) -> Vec<GeneratedToken> {
        let before = self.part.replace(part);
        match (before, part) {
            (_, Part::Reasoning) => self.reasoning += self.pending,
            (Some(Part::Reasoning), _) => self.reasoning += self.pending - self.fresh,
            _ => {}
        }
        self.pending = 0;
        let mut tokens = std::mem::take(&mut self.tokens);
        if before.is_some_and(|before| before != part) {
            // What came before the latest chunk was the marker between the two.
            tokens.drain(..tokens.len() - self.fresh_tokens);
        }
        (self.fresh, self.fresh_tokens) = (0, 0);
        tokens
    }

    /// The answer is over; returns the tokens with log probabilities that end its text without adding to it.
    pub fn finish(&mut self) -> Vec<GeneratedToken> {
        if self.part == Some(Part::Reasoning) {
            self.reasoning += self.pending;
        }
        self.pending = 0;
        let tokens = std::mem::take(&mut self.tokens);
        if self.part == Some(Part::Text) { tokens } else { Vec::new() }
    }

    /// Tokens of the chain of thought so far.
    pub fn reasoning(&self) -> usize {
        self.reasoning
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(ids: &[u32]) -> Vec<GeneratedToken> {
        ids.iter().map(|&token| GeneratedToken { token, logprobs: None }).collect()
    }

    #[test]
    fn tokens_go_to_the_part_that_comes_of_them() {
        use Part::{Call, Reasoning, Text};
        // Chunks, one token each unless it says more: what comes of them, at once.
        type Chunks = &'static [(usize, &'static [Part])];
        let cases: [(&str, bool, Chunks, usize, &[u32]); 7] = [
            ("text only", false, &[(1, &[]), (1, &[Text]), (1, &[Text])], 0, &[0, 1, 2]),
            ("<think> a </think> b", false, &[(1, &[]), (1, &[Reasoning]), (1, &[]), (1, &[Text])], 3, &[3]),
            ("a </think> b", true, &[(1, &[Reasoning]), (1, &[]), (1, &[Text])], 2, &[2]),
            ("cut inside", true, &[(1, &[Reasoning]), (1, &[])], 2, &[]),
            ("marker and text in one token", true, &[(1, &[Reasoning]), (1, &[Reasoning, Text])], 2, &[]),
            ("a call after text", false, &[(1, &[Text]), (1, &[]), (1, &[Call]), (1, &[])], 0, &[0]),
            ("text that ends in silence", false, &[(1, &[Text]), (1, &[])], 0, &[0, 1]),
        ];
        for (name, open, chunks, reasoning, text) in cases {
            let (mut tally, mut of_text, mut next) = (Tally::new(open), Vec::new(), 0);
            for &(count, parts) in chunks {
                let ids: Vec<u32> = (next..).take(count).collect();
                next += count as u32;
                tally.take_in(count, &tokens(&ids));
                for &part in parts {
                    let came = tally.comes_of(part);
                    of_text.extend((part == Text).then_some(came).into_iter().flatten());
                }
            }
            of_text.extend(tally.finish());
            assert_eq!((tally.reasoning(), of_text), (reasoning, tokens(text)), "{name}");
        }
    }
}
