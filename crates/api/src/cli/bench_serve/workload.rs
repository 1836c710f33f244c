//! What is asked: prompts and conversations, made from a seed or read from a file.

use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::{rng::Rng, words};

/// The shapes of load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Workload {
    /// Prompts that differ from their first word on
    Random,
    /// The same system message before every prompt
    SharedPrefix,
    /// Conversations: each question follows the answers before it
    MultiTurn,
    /// What --prompt-file holds
    File,
}

/// One client's requests, each sent when the one before is answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// For each request, the messages that it adds to those before it and their answers.
    pub turns: Vec<Vec<Value>>,
}

/// Makes the conversations of a workload.
#[derive(Debug)]
pub struct Source {
    /// Makes other prompts of the same kind.
    pub seed: u64,
    /// About how many tokens a question has.
    pub prompt_tokens: usize,
    /// What stands before every prompt, if anything does.
    pub prefix: Option<String>,
    /// Questions of a conversation.
    pub turns: usize,
    /// In place of made-up prompts; not empty.
    pub file: Option<Vec<Vec<Value>>>,
}

/// The sequence of random numbers that the shared prefix is made from; prompts are numbered from 0.
const PREFIX: u64 = u64::MAX;

impl Source {
    /// A shared prefix of about `tokens` tokens: the same for the same seed.
    pub fn shared_prefix(seed: u64, tokens: usize) -> String {
        words::text(seed, &mut Rng::new(seed, PREFIX), tokens)
    }

    /// The conversation with this number. Two numbers give different ones, except that a file begins anew after its end.
    pub fn conversation(&self, number: u64) -> Conversation {
        if let Some(file) = &self.file {
            let line = (number % file.len() as u64) as usize;
            return Conversation { turns: vec![file[line].clone()] };
        }
        let mut rng = Rng::new(self.seed, number);
        // The opening says which seed it was, too: a server may still hold the prompts of the run before.
        let first = (self.seed << 12).wrapping_add(number.wrapping_mul(self.turns as u64));
        let mut turns: Vec<Vec<Value>> = (0..self.turns as u64)
            .map(|turn| vec![user(&words::text(first.wrapping_add(turn), &mut rng, self.prompt_tokens))])
            .collect();
        if let (Some(prefix), Some(messages)) = (&self.prefix, turns.first_mut()) {
            messages.insert(0, json!({ "role": "system", "content": prefix }));
        }
        Conversation { turns }
    }
}

fn user(text: &str) -> Value {
    json!({ "role": "user", "content": text })
}

/// Reads prompts, one a line: text, a JSON string, or a JSON list of messages.
///
/// # Errors
/// A file that cannot be read or has no prompt; a list that isn't one of messages. With the line's number.
pub fn read(path: &Path) -> anyhow::Result<Vec<Vec<Value>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let prompts: Vec<_> = lines
        .map(|(index, line)| prompt(line.trim()).with_context(|| format!("{}, line {}", path.display(), index + 1)))
        .collect::<anyhow::Result<_>>()?;
    if prompts.is_empty() {
        bail!("{} holds no prompt", path.display());
    }
    Ok(prompts)
}

fn prompt(line: &str) -> anyhow::Result<Vec<Value>> {
    if line.starts_with('"') {
        let text: String = serde_json::from_str(line).context("not a JSON string")?;
        return Ok(vec![user(&text)]);
    }
    if !line.starts_with('[') {
        return Ok(vec![user(line)]);
    }
    let messages: Vec<Value> = serde_json::from_str(line).context("not a JSON list of messages")?;
    if messages.is_empty() || messages.iter().any(|message| !message["role"].is_string()) {
        bail!("a list of messages has at least one, each an object with a role");
    }
    Ok(messages)
}

/// Messages as one text, for `/v1/completions`.
pub fn as_text(messages: &[Value]) -> String {
    let texts = messages.iter().filter_map(|message| message["content"].as_str());
    texts.collect::<Vec<_>>().join("\n\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn source() -> Source {
        Source { seed: 3, prompt_tokens: 12, prefix: None, turns: 1, file: None }
    }

    fn first_word(conversation: &Conversation, turn: usize) -> String {
        let text = conversation.turns[turn].last().unwrap()["content"].as_str().unwrap();
        text.split(' ').next().unwrap().to_owned()
    }

    #[test]
    fn prompts_repeat_with_their_seed_and_differ_from_the_first_word_on() {
        let one = source();
        assert_eq!(one.conversation(9), one.conversation(9));
        let first: HashSet<String> = (0..1000).map(|number| first_word(&one.conversation(number), 0)).collect();
        assert_eq!(first.len(), 1000);
        let other = Source { seed: 4, ..source() };
        assert_ne!(first_word(&one.conversation(9), 0), first_word(&other.conversation(9), 0));
    }

    #[test]
    fn a_shared_prefix_is_a_system_message_before_different_questions() {
        let source = Source { prefix: Some(Source::shared_prefix(3, 40)), ..source() };
        let (a, b) = (source.conversation(0), source.conversation(1));
        assert_eq!(a.turns[0][0], b.turns[0][0]);
        assert_eq!(a.turns[0][0]["role"], "system");
        assert_ne!(a.turns[0][1], b.turns[0][1]);
    }

    #[test]
    fn turns_of_all_conversations_differ() {
        let source = Source { turns: 4, ..source() };
        let conversations: Vec<_> = (0..50).map(|number| source.conversation(number)).collect();
        let words: HashSet<String> =
            conversations.iter().flat_map(|c| (0..4).map(|turn| first_word(c, turn))).collect();
        assert_eq!(words.len(), 200);
    }

    #[test]
    fn lines_are_text_strings_or_messages() {
        let cases = [
            ("What is it?", Some(json!([{ "role": "user", "content": "What is it?" }]))),
            (r#""two\nlines""#, Some(json!([{ "role": "user", "content": "two\nlines" }]))),
            (
                r#"[{"role":"system","content":"s"},{"role":"user","content":"u"}]"#,
                Some(json!([{ "role": "system", "content": "s" }, { "role": "user", "content": "u" }])),
            ),
            ("[]", None),
            ("[1]", None),
            (r#"["a""#, None),
            (r#""open"#, None),
        ];
        for (line, wanted) in cases {
            assert_eq!(prompt(line).ok().map(Value::from), wanted, "{line}");
        }
        let messages = prompt(cases_line()).unwrap();
        assert_eq!(as_text(&messages), "s\n\nu");
    }

    fn cases_line() -> &'static str {
        r#"[{"role":"system","content":"s"},{"role":"user","content":"u"}]"#
    }
}
