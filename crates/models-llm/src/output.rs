//! The output layer, which may be the embedding once more.

use vllm_platform_mlx::{
    Bias, Error, LoadContext, Result, Tensor,
    nn::{Embedding, Linear},
};

/// Hidden states → logits: `lm_head`, or the embedding where the two are tied (Press & Wolf, arXiv:1608.05859).
pub(crate) struct Output {
    /// `None`: tied.
    head: Option<Linear>,
}

impl Output {
    /// `tied` is `tie_word_embeddings`; where a `config.json` does not say, the checkpoint's having a head decides.
    pub fn load(ctx: &LoadContext<'_>, tied: Option<bool>, hidden: usize, vocab: usize) -> Result<Self> {
        if tied.unwrap_or(!ctx.has("lm_head.weight")) {
            // Some converters write the tied matrix a second time.
            ctx.ignore(|name| name == "lm_head.weight");
            return Ok(Self { head: None });
        }
        Ok(Self { head: Some(ctx.linear("lm_head", hidden, vocab, Bias::None)?) })
    }

    /// Whether it is the embedding once more.
    pub fn is_tied(&self) -> bool {
        self.head.is_none()
    }

    /// [rows, hidden] → [rows, vocab]; the embedding is needed where the two are tied.
    pub fn forward(&self, hidden: &Tensor, embedding: Option<&Embedding>) -> Result<Tensor> {
        match (&self.head, embedding) {
            (Some(head), _) => head.forward(hidden),
            (None, Some(embedding)) => embedding.as_output(hidden),
            (None, None) => Err(Error::Plan("the output layer is tied to an embedding that is elsewhere".into())),
        }
    }
}
