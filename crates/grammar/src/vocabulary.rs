//! A model's vocabulary as llguidance wants it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use llguidance::ParserFactory;
use llguidance::earley::SlicedBiasComputer;
use llguidance::toktrie::{INVALID_TOKEN, InferenceCapabilities, TokEnv, TokRxInfo, TokTrie};
use vllm_platform::TokenId;
use vllm_text::Tokenizer;

use crate::error::{GrammarError, Result};
use crate::limits;
use crate::tag::Tag;
use crate::tokens::Tokens;
use crate::workers::Workers;

/// Tokens longer than this are left out: the trie counts a token's bytes in ten bits.
const MAX_TOKEN_BYTES: usize = 1000;

/// What all grammars of one model share: the bytes of its tokens, as a trie, and the threads that work out masks.
///
/// Making one costs nothing; the trie is built by whoever compiles the first grammar.
#[derive(Debug)]
pub struct Vocabulary {
    tokenizer: Arc<Tokenizer>,
    built: OnceLock<Result<Built>>,
    tags: Mutex<HashMap<&'static str, Arc<Tag>>>,
    workers: Arc<Workers>,
}

/// What llguidance needs.
struct Built {
    factory: ParserFactory,
    env: TokEnv,
}

impl std::fmt::Debug for Built {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Built").finish_non_exhaustive()
    }
}

impl Vocabulary {
    /// The vocabulary of this tokenizer.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>) -> Self {
        Self { tokenizer, built: OnceLock::new(), tags: Mutex::default(), workers: Arc::default() }
    }

    /// Builds the trie if nobody has yet: a server may do so before the first request comes.
    ///
    /// # Errors
    /// [`GrammarError::Vocabulary`].
    pub fn build(&self) -> Result<()> {
        self.built().map(drop)
    }

    pub(crate) fn factory(&self) -> Result<&ParserFactory> {
        Ok(&self.built()?.factory)
    }

    pub(crate) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    pub(crate) fn workers(&self) -> Arc<Workers> {
        Arc::clone(&self.workers)
    }

    /// The special token that is written so.
    pub(crate) fn special(&self, text: &str) -> Option<TokenId> {
        self.tokenizer.token_to_id(text).filter(|&id| self.tokenizer.is_special(id))
    }

    /// Where a tag of a reasoning format stands in the vocabulary.
    pub(crate) fn tag(&self, text: &'static str) -> Result<Arc<Tag>> {
        let known = || self.tags.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tag) = known().get(text) {
            return Ok(Arc::clone(tag));
        }
        let tag = Arc::new(Tag::new(text, self.built()?.env.as_ref()));
        Ok(Arc::clone(known().entry(text).or_insert(tag)))
    }

    /// The bytes that a token writes; those of a special token are its name.
    pub(crate) fn bytes(&self, token: TokenId) -> &[u8] {
        self.built().map_or(&[], |built| written(built.env.tok_trie(), token))
    }

    fn built(&self) -> Result<&Built> {
        self.built.get_or_init(|| Built::new(&self.tokenizer)).as_ref().map_err(Clone::clone)
    }
}

/// The bytes that a token writes; those of a special token are its name.
pub(crate) fn written(trie: &TokTrie, token: TokenId) -> &[u8] {
    match trie.token(token) {
        [TokTrie::SPECIAL_TOKEN_MARKER, name @ ..] => name,
        bytes => bytes,
    }
}

impl Built {
    fn new(tokenizer: &Arc<Tokenizer>) -> Result<Self> {
        let words = words(tokenizer)?;
        // The library asserts what it expects of a vocabulary.
        catch_unwind(AssertUnwindSafe(|| Self::of(tokenizer, &words))).unwrap_or_else(|_| {
            Err(GrammarError::Vocabulary("its tokenizer's vocabulary is not understood".to_owned()))
        })
    }

    fn of(tokenizer: &Arc<Tokenizer>, words: &[Vec<u8>]) -> Result<Self> {
        let mut trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, INVALID_TOKEN), words);
        let known = |id: &TokenId| (*id as usize) < words.len();
        let eos: Vec<TokenId> = tokenizer.eos_ids().iter().copied().filter(known).collect();
        if !eos.is_empty() {
            trie = trie.with_eos_tokens(&eos);
        }
        let env: TokEnv = Arc::new(Tokens::new(Arc::clone(tokenizer), trie));
        let slices = SlicedBiasComputer::general_slices();
        let mut factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices)
            .map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = limits::parser();
        Ok(Self { factory, env })
    }
}

/// What each token writes. Special tokens are marked, so that no text can spell one. A token that no grammar could
/// use has no bytes: holes of the vocabulary, and what holds the byte that marks special tokens, which UTF-8 has no
/// use for.
fn words(tokenizer: &Tokenizer) -> Result<Vec<Vec<u8>>> {
    let word = |id| -> Result<Vec<u8>> {
        if tokenizer.is_special(id) {
            let name = tokenizer.id_to_token(id).unwrap_or_default();
            let marked = [TokTrie::SPECIAL_TOKEN_MARKER].into_iter().chain(name.bytes());
            return Ok(if name.is_empty() || name.len() > MAX_TOKEN_BYTES { Vec::new() } else { marked.collect() });
        }
        let bytes = tokenizer.token_bytes(id).map_err(|error| GrammarError::Vocabulary(error.to_string()))?;
        let usable = bytes.len() <= MAX_TOKEN_BYTES && !bytes.contains(&TokTrie::SPECIAL_TOKEN_MARKER);
        Ok(if usable { bytes } else { Vec::new() })
    };
    let words: Vec<Vec<u8>> = (0..tokenizer.vocab_size() as TokenId).map(word).collect::<Result<_>>()?;
    if words.iter().all(Vec::is_empty) {
        return Err(GrammarError::Vocabulary("its tokenizer has no tokens".to_owned()));
    }
    Ok(words)
}
