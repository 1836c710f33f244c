//! What a model has before and after its blocks; and which blocks are here, where they are spread over machines.
//!
//! The first stage embeds tokens, the others go on from what the stage before them made; the last has the final norm and the output
//! layer. In between stands the norm that the next stage begins with, so that every block is computed alike.

use std::ops::Range;

use vllm_platform_mlx::{
    Batch, Error, LoadContext, Result, Tensor,
    model::LayerSpec,
    nn::{Embedding, Received, RmsNorm},
};

use crate::output::Output;

/// What the sizes of a model's ends are.
pub(crate) struct Sizes {
    pub layers: usize,
    pub hidden: usize,
    pub vocab: usize,
    /// Of the norms.
    pub eps: f32,
    /// `tie_word_embeddings`.
    pub tied: Option<bool>,
}

/// All that isn't a block, as far as it is here.
pub(crate) struct Stage {
    layers: Range<usize>,
    /// In the first stage, and in the last where it is the output layer too.
    embedding: Option<Embedding>,
    /// In all but the first.
    received: Option<Received>,
    norm: RmsNorm,
    /// In the last.
    output: Option<Output>,
    vocab: usize,
}

impl Stage {
    /// Of a model whose blocks are `layers.N` and begin with the norm `block_norm`; what other stages have stays in the file.
    pub fn load(ctx: &LoadContext<'_>, sizes: &Sizes, block_norm: &str) -> Result<Self> {
        let &Sizes { layers: all, hidden, vocab, eps, tied } = sizes;
        let layers = ctx.stage().unwrap_or(0..all);
        let (first, last) = (layers.start == 0, layers.end == all);
        let model = ctx.at("model");
        let elsewhere = (0..all).filter(|layer| !layers.contains(layer));
        elsewhere.for_each(|layer| model.at(&format!("layers.{layer}")).ignore(|_| true));
        let output = if last { Some(Output::load(ctx, tied, hidden, vocab)?) } else { None };
        let embedding = if first || output.as_ref().is_some_and(Output::is_tied) {
            Some(model.embedding("embed_tokens", vocab, hidden)?)
        } else {
            model.at("embed_tokens").ignore(|_| true);
            None
        };
        let norm = if last {
            model.rms_norm("norm", hidden, eps)?
        } else {
            ctx.at("lm_head").ignore(|_| true);
            model.at("norm").ignore(|_| true);
            model.rms_norm(&format!("layers.{}.{block_norm}", layers.end), hidden, eps)?
        };
        let received = (!first).then(|| ctx.received(hidden));
        Ok(Self { layers, embedding, received, norm, output, vocab })
    }

    /// Which blocks are here.
    pub fn layers(&self) -> Range<usize> {
        self.layers.clone()
    }

    /// Of something for each of the model's blocks, what is for those here.
    pub fn of(&self, specs: Vec<LayerSpec>) -> Vec<LayerSpec> {
        specs[self.layers()].to_vec()
    }

    /// The norm after the last block: the model's final one, or that of the block that follows elsewhere.
    pub fn norm(&self) -> &RmsNorm {
        &self.norm
    }

    pub fn vocab_size(&self) -> usize {
        self.vocab
    }

    /// What the first block takes: [tokens, hidden].
    pub fn enter(&self, batch: &Batch) -> Result<Tensor> {
        match (&self.received, &self.embedding) {
            (Some(received), _) => received.forward(batch),
            (None, Some(embedding)) => embedding.forward(&batch.tokens),
            (None, None) => Err(Error::Plan("this stage has no embedding".into())),
        }
    }

    /// What is left of the last block's result and its norm: the one for the next stage, or the other for the output layer.
    pub fn leave(&self, x: Tensor, normed: Tensor) -> Tensor {
        if self.output.is_some() { normed } else { x }
    }

    /// [rows, hidden] → [rows, vocab], in the last stage.
    pub fn logits(&self, hidden: &Tensor) -> Result<Tensor> {
        match &self.output {
            Some(output) => output.forward(hidden, self.embedding.as_ref()),
            None => Err(Error::Plan("this stage has no output layer".into())),
        }
    }
}
