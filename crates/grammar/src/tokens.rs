//! Bytes to tokens, for text that a grammar forces.

use std::sync::Arc;

use llguidance::toktrie::{TokTrie, TokenizerEnv};
use vllm_platform::TokenId;
use vllm_text::Tokenizer;

/// Texts that a tokenizer must give back as they are before it is trusted with forced text.
const PROBES: &[&str] = &["{\"name\": \"", "\": [", " a", "a", "</", "\n\n", "true, \"b\"", "é€"];

/// A tokenizer that writes forced text as the model would.
///
/// Where a grammar leaves no choice, llguidance lets only the token pass that the tokenizer itself would write there:
/// a model that is made to spell `{"name"` one byte at a time has never seen such a text. That needs a tokenizer that
/// neither adds nor drops anything. Those that put a space before a text don't qualify (Llama 2's), and any text that
/// comes back changed is written with the longest tokens that fit instead.
pub(crate) struct Tokens {
    tokenizer: Arc<Tokenizer>,
    trie: TokTrie,
    canonical: bool,
}

impl Tokens {
    pub fn new(tokenizer: Arc<Tokenizer>, trie: TokTrie) -> Self {
        let mut tokens = Self { tokenizer, trie, canonical: false };
        tokens.canonical = PROBES.iter().all(|probe| tokens.exact(probe.as_bytes()).is_some());
        tokens
    }

    /// The tokenizer's own tokens, if they write just these bytes.
    fn exact(&self, bytes: &[u8]) -> Option<Vec<TokenId>> {
        let text = std::str::from_utf8(bytes).ok()?;
        let tokens = self.tokenizer.encode(text, false).ok()?;
        (self.trie.decode_raw(&tokens) == bytes).then_some(tokens)
    }
}

impl TokenizerEnv for Tokens {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let exact = if self.canonical { self.exact(bytes) } else { None };
        exact.unwrap_or_else(|| self.trie.greedy_tokenize(bytes))
    }

    fn tokenize_is_canonical(&self) -> bool {
        self.canonical
    }
}
