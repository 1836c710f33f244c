//! A tag, such as `</think>`, and the tokens that write it.

use llguidance::toktrie::TokenizerEnv;
use vllm_platform::TokenId;

use crate::vocabulary::written;

/// A text that may be one token or a dozen, looked for in the bytes of tokens.
#[derive(Debug)]
pub(crate) struct Tag {
    text: &'static str,
    /// By how many of its bytes are there already.
    after: Vec<Next>,
}

/// Tokens that matter once the first bytes of a tag are there.
#[derive(Debug, Default)]
pub(crate) struct Next {
    /// They write more of the tag, and nothing else.
    pub continuing: Vec<TokenId>,
    /// They write the rest of it, and nothing but newlines behind it.
    pub closing: Vec<TokenId>,
    /// They write the rest of it, and something else behind it.
    pub overshooting: Vec<TokenId>,
    /// The first token of the rest: a special one that is all of it, else as the model's tokenizer cuts it.
    pub forced: Option<TokenId>,
}

impl Tag {
    /// Looks at every token once.
    pub fn new(text: &'static str, env: &(dyn TokenizerEnv + Sync)) -> Self {
        let trie = env.tok_trie();
        let mut after: Vec<Next> = Vec::new();
        for known in 0..text.len() {
            let forced = env.tokenize_bytes(text.as_bytes().get(known..).unwrap_or_default()).first().copied();
            after.push(Next { forced, ..Next::default() });
        }
        for token in 0..trie.vocab_size() as TokenId {
            let bytes = written(trie, token);
            if bytes.is_empty() {
                continue;
            }
            for (known, next) in after.iter_mut().enumerate() {
                let rest = text.as_bytes().get(known..).unwrap_or_default();
                if bytes == rest && trie.is_special_token(token) {
                    next.forced = Some(token);
                }
                if let Some(behind) = bytes.strip_prefix(rest) {
                    let clean = behind.iter().all(|byte| *byte == b'\n');
                    if clean { &mut next.closing } else { &mut next.overshooting }.push(token);
                } else if rest.starts_with(bytes) {
                    next.continuing.push(token);
                }
            }
        }
        Self { text, after }
    }

    /// Length in bytes.
    pub fn len(&self) -> usize {
        self.text.len()
    }

    /// What may come once `known` of its bytes are there.
    pub fn after(&self, known: usize) -> Option<&Next> {
        self.after.get(known)
    }

    /// Numbers of its first bytes that `text` ends in, longest first, 0 always among them.
    pub fn ends<'a>(&'a self, text: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let tag = self.text.as_bytes();
        (0..tag.len()).rev().filter(move |&known| tag.get(..known).is_some_and(|start| text.ends_with(start)))
    }

    /// Where `text` goes on behind it, if it is there.
    pub fn find(&self, text: &[u8]) -> Option<usize> {
        let tag = self.text.as_bytes();
        // An empty tag has no windows to look at.
        text.windows(tag.len().max(1)).position(|window| window == tag).map(|at| at + tag.len())
    }

    /// What is missing behind its first `known` bytes.
    pub fn rest(&self, known: usize) -> &'static [u8] {
        self.text.as_bytes().get(known..).unwrap_or_default()
    }
}
