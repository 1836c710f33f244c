//! Token id → bytes, computed once per tokenizer, so that decoding a token is a slice and never a library call.
//!
//! Every decoder in use for language models is a per-token rewrite followed by concatenation, but for one thing: what
//! happens to a space at the very start of the text ([`StartRule`]). Invalid UTF-8 is replaced after concatenation.

use tokenizers::{Model, Tokenizer as HfTokenizer};

use crate::error::Result;
use crate::rewrite::Rewrite;

/// Ids this far above the vocabulary's size are not searched for: a vocabulary may have holes, but not that many.
const MAX_HOLES: usize = 1 << 20;

/// What the decoder does to spaces at the start of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartRule {
    /// Nothing (byte-level BPE, Gemma).
    Keep,
    /// Removes up to this many spaces from the text (Llama 2's `Strip` after `Fuse`).
    StripText(usize),
    /// Removes the spaces at the start of the first token (`Metaspace`).
    StripFirstToken,
}

/// The bytes of every token, back to back.
#[derive(Debug)]
pub(crate) struct TokenTable {
    bytes: Vec<u8>,
    /// Where token `i` ends in `bytes`; it starts where `i - 1` ends.
    ends: Vec<u32>,
    /// Control tokens (`<|im_end|>`), left out of text by default.
    special: Vec<bool>,
    start_rule: StartRule,
}

impl TokenTable {
    /// Reads every piece of `tokenizer` through its decoder.
    pub(crate) fn build(tokenizer: &HfTokenizer) -> Result<Self> {
        let rewrite = Rewrite::of(tokenizer.get_decoder())?;
        let model = tokenizer.get_model();
        let added = tokenizer.get_added_tokens_decoder();
        let pieces = model.get_vocab_size();
        let last_added = added.keys().max().map_or(0, |&id| id as usize + 1);
        let capacity = pieces.max(last_added);
        let mut table = Self {
            bytes: Vec::with_capacity(capacity * 8),
            ends: Vec::with_capacity(capacity),
            special: Vec::with_capacity(capacity),
            start_rule: rewrite.start_rule(),
        };
        // Ids may have holes (a vocabulary shortened by hand), so go on until all of the model's pieces were seen.
        let mut seen = 0;
        while table.len() < last_added || (seen < pieces && table.len() < pieces + MAX_HOLES) {
            let id = table.len() as u32;
            let piece = model.id_to_token(id);
            seen += usize::from(piece.is_some());
            match added.get(&id) {
                Some(token) => {
                    // Written differently from its content: a normalizer went over it, and the decoder undoes that.
                    let piece = tokenizer.id_to_token(id).unwrap_or_else(|| token.content.clone());
                    let literal = piece == token.content;
                    rewrite.apply(piece, literal, &mut table.bytes);
                }
                None => rewrite.apply(piece.unwrap_or_default(), false, &mut table.bytes),
            }
            table.ends.push(table.bytes.len() as u32);
            table.special.push(added.get(&id).is_some_and(|token| token.special));
        }
        Ok(table)
    }

    /// Number of ids, holes included: one more than the largest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of `id` in the middle of a text; none for an id the tokenizer does not have.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let index = id as usize;
        let Some(&end) = self.ends.get(index) else {
            return &[];
        };
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.bytes[start as usize..end as usize]
    }

    /// Whether `id` is a control token.
    pub(crate) fn is_special(&self, id: u32) -> bool {
        self.special.get(id as usize).copied().unwrap_or(false)
    }

    /// What happens to spaces at the start of a text.
    pub(crate) fn start_rule(&self) -> StartRule {
        self.start_rule
    }
}
