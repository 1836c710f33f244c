//! What a family of encoders implements, and where it registers.

use vllm_platform::inventory;

use crate::{Batch, LoadContext, Result, Tensor, kv::KvStore, model::LayerSpec};

/// Texts to be encoded, each from its first token to its last.
pub struct EncoderBatch {
    /// Their tokens.
    pub batch: Batch,
    /// For each token, which text of a pair it belongs to, `[tokens]`, u32.
    pub types: Tensor,
}

/// A model whose tokens see all of their text. Written once for all devices, like a
/// [`CausalLm`](crate::model::CausalLm).
pub trait TextEncoder {
    /// The attention layers, first to last.
    fn layers(&self) -> Vec<LayerSpec>;

    /// Longest text the model was made for, in tokens.
    fn max_input_len(&self) -> usize;

    /// Rows of the token embedding.
    fn vocab_size(&self) -> usize;

    /// Elements of a token's hidden state.
    fn hidden_size(&self) -> usize;

    /// Hidden states of the last layer, [tokens, hidden].
    ///
    /// # Errors
    /// MLX's own.
    fn forward(&self, batch: &EncoderBatch, kv: &mut dyn KvStore) -> Result<Tensor>;
}

/// An encoder that reads two texts together and says how well they go together.
pub trait CrossEncoder {
    /// The network whose hidden states it scores.
    fn network(&self) -> &dyn TextEncoder;

    /// Hidden states of first tokens, [texts, hidden] → one logit each, [texts, 1].
    ///
    /// # Errors
    /// MLX's own.
    fn logits(&self, first: &Tensor) -> Result<Tensor>;
}

/// How to load an encoder, and what it is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum LoadEncoder {
    Embedding(fn(&LoadContext<'_>) -> Result<Box<dyn TextEncoder>>),
    Scores(fn(&LoadContext<'_>) -> Result<Box<dyn CrossEncoder>>),
}

/// A family of encoders: one architecture name and how to load it. [`Family`](crate::model::Family) has an example of how
/// to submit one.
pub struct EncoderFamily {
    /// As in `config.json`'s `architectures`.
    pub architecture: &'static str,
    pub(crate) load: LoadEncoder,
}

impl EncoderFamily {
    /// Encoders whose hidden states are pooled into embeddings.
    #[must_use]
    pub const fn embedding(
        architecture: &'static str,
        load: fn(&LoadContext<'_>) -> Result<Box<dyn TextEncoder>>,
    ) -> Self {
        Self { architecture, load: LoadEncoder::Embedding(load) }
    }

    /// Encoders that score pairs of texts.
    #[must_use]
    pub const fn cross_encoder(
        architecture: &'static str,
        load: fn(&LoadContext<'_>) -> Result<Box<dyn CrossEncoder>>,
    ) -> Self {
        Self { architecture, load: LoadEncoder::Scores(load) }
    }
}

inventory::collect!(EncoderFamily);

/// Families of encoders linked into this binary, sorted by name.
#[must_use]
pub fn encoder_families() -> Vec<&'static EncoderFamily> {
    let mut families: Vec<_> = inventory::iter::<EncoderFamily>().collect();
    families.sort_by_key(|family| family.architecture);
    families
}
