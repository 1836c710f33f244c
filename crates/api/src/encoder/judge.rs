//! Rerankers that are asked in words and answer yes or no: Qwen3-Reranker and what is trained like it.

use anyhow::Context as _;
use vllm_platform::TokenId;
use vllm_text::{EncodedInput, TextError, Tokenizer};

/// What comes before a pair, word for word as the model was trained with.
const BEFORE: &str = "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the \
    Instruct provided. Note that the answer can only be \"yes\" or \"no\".<|im_end|>\n<|im_start|>user\n";
/// What comes after it: the assistant has thought about nothing and speaks.
const AFTER: &str = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n";
/// The task of a request that names none.
const INSTRUCTION: &str = "Given a web search query, retrieve relevant passages that answer the query";

/// How a pair of texts is put to the model, in tokens as far as it is always the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgePrompt {
    before: Vec<TokenId>,
    after: Vec<TokenId>,
    /// The answer that is scored.
    pub yes: TokenId,
    /// The other.
    pub no: TokenId,
}

impl JudgePrompt {
    /// In a model's own tokens.
    ///
    /// # Errors
    /// If `yes` and `no` aren't tokens of it.
    pub fn new(tokenizer: &Tokenizer) -> anyhow::Result<Self> {
        let token = |word: &str| {
            let found = tokenizer.token_to_id(word);
            found.with_context(|| format!("{word:?} is no token of this model: it can't be asked for yes or no"))
        };
        Ok(Self {
            before: tokenizer.encode(BEFORE, false)?,
            after: tokenizer.encode(AFTER, false)?,
            yes: token("yes")?,
            no: token("no")?,
        })
    }

    /// The question for a pair, the document's end cut off so that it has at most `max` tokens.
    ///
    /// # Errors
    /// If a text can't be encoded.
    pub fn ask(
        &self,
        tokenizer: &Tokenizer,
        query: &str,
        document: &str,
        instruction: Option<&str>,
        max: usize,
    ) -> Result<EncodedInput, TextError> {
        let instruction = instruction.unwrap_or(INSTRUCTION);
        let pair = format!("<Instruct>: {instruction}\n<Query>: {query}\n<Document>: {document}");
        let pair = tokenizer.encode(&pair, false)?;
        let frame = self.before.len() + self.after.len();
        let kept = pair.len().min(max.saturating_sub(frame));
        let whole_len = pair.len() + frame;
        let tokens = self.before.iter().chain(pair.iter().take(kept)).chain(&self.after).copied().collect();
        Ok(EncodedInput { tokens, types: Vec::new(), whole_len })
    }
}
