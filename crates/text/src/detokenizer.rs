//! Tokens in, text out, one token at a time.

use std::sync::Arc;

use crate::error::Result;
use crate::token_table::{StartRule, TokenTable};
use crate::tokenizer::Tokenizer;
use crate::utf8::Utf8Assembler;

/// Turns a growing token sequence into text: O(1) amortised per token, and never half a character.
///
/// The concatenation of everything that [`push`](Self::push) and [`finish`](Self::finish) return equals
/// [`Tokenizer::decode`] of the whole sequence; bytes that are not UTF-8 become U+FFFD as soon as that is certain.
///
/// ```
/// # use vllm_text::{Detokenizer, Tokenizer};
/// # fn main() -> Result<(), vllm_text::TextError> {
/// # let json = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
/// #   "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
/// #   "model": {"type": "BPE", "vocab": {"Ã": 0, "©": 1, "!": 2}, "merges": []}}"#;
/// let tokenizer = Tokenizer::from_json_bytes(json.as_bytes(), "example")?; // tokens: 0xC3, 0xA9, "!"
/// let mut detokenizer = Detokenizer::new(&tokenizer, &[], true)?;
/// assert_eq!(detokenizer.push(0), ""); // half of é: wait
/// assert_eq!(detokenizer.push(1), "é");
/// assert_eq!(detokenizer.push(0), "");
/// assert_eq!(detokenizer.finish(), "\u{FFFD}"); // the other half never came
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Detokenizer {
    table: Arc<TokenTable>,
    utf8: Utf8Assembler,
    skip_special: bool,
    /// Control tokens that give text all the same; few.
    keep: Vec<u32>,
    /// Spaces still to be removed; `StartRule::Keep` once the start of the text is over.
    start_rule: StartRule,
    /// Text of the latest push, reused so that a push does not allocate.
    out: String,
}

impl Detokenizer {
    /// Starts after `prompt_tail`, the last tokens of the prompt (all of it, or its last few; none for a text that
    /// starts here). Its text is not given out. It only decides whether the SentencePiece space at the start of a text
    /// belongs to the answer, and completes a character that the prompt left unfinished.
    ///
    /// With `skip_special` control tokens such as `<|im_end|>` give no text.
    ///
    /// # Errors
    /// [`TextError::UnsupportedDecoder`](crate::TextError::UnsupportedDecoder) for tokenizers that cannot be streamed
    /// (WordPiece).
    pub fn new(tokenizer: &Tokenizer, prompt_tail: &[u32], skip_special: bool) -> Result<Self> {
        let table = tokenizer.table()?;
        let mut detokenizer = Self {
            start_rule: table.start_rule(),
            table,
            utf8: Utf8Assembler::default(),
            skip_special,
            keep: Vec::new(),
            out: String::new(),
        };
        for &token in prompt_tail {
            detokenizer.push(token);
        }
        Ok(detokenizer)
    }

    /// From now on these control tokens give text whatever `skip_special` says: the markers that a parser looks for.
    #[must_use]
    pub fn keeping(mut self, tokens: &[u32]) -> Self {
        self.keep = tokens.to_vec();
        self
    }

    /// Adds a token and returns the text that became certain by it (often, but not always, the token's own).
    ///
    /// An id that the tokenizer does not know gives no text: a model's output layer is often padded beyond the
    /// vocabulary.
    pub fn push(&mut self, token: u32) -> &str {
        self.out.clear();
        if !(self.skip_special && self.table.is_special(token) && !self.keep.contains(&token)) {
            let bytes = strip_start(&mut self.start_rule, self.table.bytes(token));
            self.utf8.push(bytes, &mut self.out);
        }
        &self.out
    }

    /// Ends the text: returns U+FFFD if a character was left unfinished, otherwise nothing.
    pub fn finish(&mut self) -> &str {
        self.out.clear();
        self.utf8.finish(&mut self.out);
        &self.out
    }
}

/// Removes from `bytes` what `rule` wants gone, and moves `rule` on.
fn strip_start<'a>(rule: &mut StartRule, bytes: &'a [u8]) -> &'a [u8] {
    let spaces = bytes.iter().take_while(|&&byte| byte == b' ').count();
    let strip = match *rule {
        StartRule::Keep => return bytes,
        _ if bytes.is_empty() => return bytes,
        StartRule::StripText(left) => {
            let strip = spaces.min(left);
            // The text is still all spaces only if this token was nothing else.
            *rule =
                if strip == bytes.len() && strip < left { StartRule::StripText(left - strip) } else { StartRule::Keep };
            strip
        }
        StartRule::StripFirstToken => {
            *rule = StartRule::Keep;
            spaces
        }
    };
    &bytes[strip..]
}

/// The text of a whole sequence.
pub(crate) fn decode(table: &TokenTable, tokens: &[u32], skip_special: bool) -> String {
    let mut rule = table.start_rule();
    let mut bytes = Vec::with_capacity(tokens.len() * 4);
    for &token in tokens {
        if !(skip_special && table.is_special(token)) {
            bytes.extend_from_slice(strip_start(&mut rule, table.bytes(token)));
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    }
}
