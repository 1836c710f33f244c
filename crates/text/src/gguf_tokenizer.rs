//! Tokenizers out of GGUF metadata: the vocabulary is in the file, the rules only by name.

use tokenizers::decoders::byte_fallback::ByteFallback;
use tokenizers::decoders::byte_level::ByteLevel;
use tokenizers::decoders::fuse::Fuse;
use tokenizers::decoders::sequence::Sequence as DecoderSequence;
use tokenizers::decoders::strip::Strip;
use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::replace::Replace;
use tokenizers::normalizers::unicode::NFC;
use tokenizers::normalizers::{Prepend, Sequence as NormalizerSequence};
use tokenizers::{AddedToken, DecoderWrapper, NormalizerWrapper, Tokenizer as HfTokenizer};
use vllm_checkpoint::{GgufVocab, TokenType};

use crate::error::{Result, TextError};
use crate::pre_tokenizer::Rules;
use crate::spm_merges;

/// What SentencePiece writes for a space.
const SPACE_MARK: &str = "▁";

/// A tokenizer and what it puts around a text.
pub(crate) struct GgufTokenizer {
    pub(crate) inner: HfTokenizer,
    pub(crate) prefix: Option<u32>,
    pub(crate) suffix: Option<u32>,
}

/// Builds the tokenizer of `vocab`.
pub(crate) fn build(vocab: &GgufVocab) -> Result<GgufTokenizer> {
    Builder { file: vocab }.build()
}

/// The steps of building; `file` is the metadata (`tokenizer.ggml.*`).
struct Builder<'a> {
    file: &'a GgufVocab,
}

fn invalid(message: impl Into<String>) -> TextError {
    TextError::Gguf(message.into())
}

impl Builder<'_> {
    fn build(&self) -> Result<GgufTokenizer> {
        self.check()?;
        let (mut inner, add_bos) = match self.file.model.as_str() {
            "gpt2" => self.byte_level_bpe()?,
            "llama" => (self.sentence_piece(Self::merges_by_score, true)?, true),
            // SentencePiece's spaces and byte tokens, but with a merge list.
            "gemma4" => (self.sentence_piece(Self::merges, false)?, true),
            other => {
                return Err(invalid(format!(
                    "unknown model {other:?} (tokenizer.ggml.model); known are \"gpt2\" (byte-level BPE), \"llama\" (SentencePiece) and \"gemma4\""
                )));
            }
        };
        inner.add_tokens(self.added_tokens()).map_err(|error| invalid(error.to_string()))?;
        Ok(GgufTokenizer {
            inner,
            prefix: self.edge("bos", self.file.add_bos.unwrap_or(add_bos), self.file.bos_id)?,
            suffix: self.edge("eos", self.file.add_eos.unwrap_or(false), self.file.eos_id)?,
        })
    }

    fn check(&self) -> Result<()> {
        let tokens = self.file.tokens.len();
        if tokens == 0 {
            return Err(invalid("no tokens (tokenizer.ggml.tokens is missing or empty)"));
        }
        let lengths = [("token_type", self.file.token_types.len()), ("scores", self.file.scores.len())];
        for (key, length) in lengths {
            if length != 0 && length != tokens {
                return Err(invalid(format!(
                    "tokenizer.ggml.{key} has {length} entries, {tokens} tokens want as many"
                )));
            }
        }
        Ok(())
    }

    fn token_type(&self, id: usize) -> TokenType {
        self.file.token_types.get(id).copied().unwrap_or(TokenType::Normal)
    }

    /// The token that stands before or after a text, if `wanted`.
    fn edge(&self, name: &str, wanted: bool, id: Option<u32>) -> Result<Option<u32>> {
        match id {
            _ if !wanted => Ok(None),
            Some(id) if (id as usize) < self.file.tokens.len() => Ok(Some(id)),
            Some(id) => {
                Err(invalid(format!("{name}_token_id is {id}, but there are {} tokens", self.file.tokens.len())))
            }
            None => Err(invalid(format!("texts want a {name} token, but tokenizer.ggml.{name}_token_id is missing"))),
        }
    }

    /// Piece → id. Empty pieces stay holes.
    fn vocab(&self) -> Result<Vocab> {
        let mut vocab = Vocab::with_capacity(self.file.tokens.len());
        for (id, piece) in self.file.tokens.iter().enumerate().filter(|(_, piece)| !piece.is_empty()) {
            if let Some(first) = vocab.insert(piece.clone(), id as u32) {
                return Err(invalid(format!("piece {piece:?} stands twice, as token {first} and as token {id}")));
            }
        }
        Ok(vocab)
    }

    /// Tokens that are found in text before anything else happens to it.
    fn added_tokens(&self) -> Vec<AddedToken> {
        let added = |(id, piece): (usize, &String)| {
            let special = match self.token_type(id) {
                TokenType::Control | TokenType::Unknown => true,
                TokenType::UserDefined => false,
                _ => return None,
            };
            Some(AddedToken::from(piece.clone(), special).normalized(false))
        };
        self.file.tokens.iter().enumerate().filter_map(added).collect()
    }

    /// `gpt2`: merges over the byte alphabet. Also says whether the family's texts begin with BOS.
    fn byte_level_bpe(&self) -> Result<(HfTokenizer, bool)> {
        let pre = self.file.pre.as_deref().ok_or_else(|| {
            invalid("tokenizer.ggml.pre is missing (files from before May 2024), and without it tokens would be wrong: convert the model again")
        })?;
        let rules = Rules::of(pre)?;
        let vocab = self.vocab()?;
        let merges = self.merges(&vocab)?;
        let model = BPE::builder().vocab_and_merges(vocab, merges).ignore_merges(rules.ignore_merges).build();
        let mut tokenizer = HfTokenizer::new(model.map_err(|error| invalid(error.to_string()))?);
        if rules.nfc {
            tokenizer.with_normalizer(Some(NFC)).map_err(|error| invalid(error.to_string()))?;
        }
        tokenizer.with_pre_tokenizer(Some(rules.pre_tokenizer()?));
        tokenizer.with_decoder(Some(ByteLevel::default()));
        Ok((tokenizer, rules.add_bos))
    }

    /// `"Ġ t"` → `("Ġ", "t")`, in order of rank.
    fn merges(&self, vocab: &Vocab) -> Result<Merges> {
        if self.file.merges.is_empty() {
            return Err(invalid("no merges (tokenizer.ggml.merges is missing or empty)"));
        }
        let longest = vocab.keys().map(String::len).max().unwrap_or(0);
        let parse = |(rank, merge): (usize, &String)| match merge.split_once(' ') {
            // The library looks the joined piece up in a buffer as long as the longest piece.
            Some((left, right)) if left.len() + right.len() <= longest => Ok((left.to_owned(), right.to_owned())),
            Some(_) => Err(invalid(format!("merge {rank} ({merge:?}) makes a piece longer than any token"))),
            None => Err(invalid(format!("merge {rank} ({merge:?}) is not two pieces with a space between"))),
        };
        self.file.merges.iter().enumerate().map(parse).collect()
    }

    /// Merges of a vocabulary that has scores instead.
    fn merges_by_score(&self, vocab: &Vocab) -> Result<Merges> {
        if self.file.scores.is_empty() {
            return Err(invalid(
                "no scores (tokenizer.ggml.scores is missing), which a SentencePiece vocabulary needs",
            ));
        }
        let normal = |id: usize| self.token_type(id) == TokenType::Normal;
        Ok(spm_merges::from_scores(&self.file.tokens, &self.file.scores, normal, vocab))
    }

    /// `llama`, `gemma4`: spaces written as `▁`, unknown characters as byte tokens. `space_prefix` is whether a text
    /// gets a space in front if the file does not say.
    fn sentence_piece(
        &self,
        merges: impl Fn(&Self, &Vocab) -> Result<Merges>,
        space_prefix: bool,
    ) -> Result<HfTokenizer> {
        let vocab = self.vocab()?;
        let merges = merges(self, &vocab)?;
        let mut builder = BPE::builder().fuse_unk(true).byte_fallback(true);
        let unknown = self
            .file
            .unk_id
            .map(|id| id as usize)
            .or_else(|| (0..self.file.tokens.len()).find(|&id| self.token_type(id) == TokenType::Unknown));
        if let Some(piece) = unknown.and_then(|id| self.file.tokens.get(id)).filter(|piece| !piece.is_empty()) {
            builder = builder.unk_token(piece.clone());
        }
        let model = builder.vocab_and_merges(vocab, merges).build().map_err(|error| invalid(error.to_string()))?;
        let mut tokenizer = HfTokenizer::new(model);
        let replace = |from: &str, to: &str| Replace::new(from, to).map_err(|error| invalid(error.to_string()));
        let mut normalizers: Vec<NormalizerWrapper> = vec![replace(" ", SPACE_MARK)?.into()];
        let mut decoders: Vec<DecoderWrapper> =
            vec![replace(SPACE_MARK, " ")?.into(), ByteFallback::default().into(), Fuse::default().into()];
        if self.file.add_space_prefix.unwrap_or(space_prefix) {
            normalizers.insert(0, Prepend::new(SPACE_MARK.to_owned()).into());
            decoders.push(Strip::new(' ', 1, 0).into());
        }
        tokenizer
            .with_normalizer(Some(NormalizerSequence::new(normalizers)))
            .map_err(|error| invalid(error.to_string()))?;
        tokenizer.with_decoder(Some(DecoderSequence::new(decoders)));
        Ok(tokenizer)
    }
}
