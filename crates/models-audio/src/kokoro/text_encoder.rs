//! What phonemes sound like: convolutions and an LSTM over them.

use vllm_platform_mlx::{
    LoadContext, Ops, Result, Tensor,
    nn::{Conv1d, Embedding, LayerNorm, Lstm},
};

use super::{
    config::Config,
    layers::{EPS, SLOPE, bent, both_ways, same},
};

pub(super) struct TextEncoder {
    ops: Ops,
    symbols: Embedding,
    convolutions: Vec<(Conv1d, LayerNorm)>,
    lstm: Lstm,
}

impl TextEncoder {
    pub fn load(ctx: &LoadContext<'_>, config: &Config) -> Result<Self> {
        let channels = config.hidden_dim;
        let convolution = |i: usize| {
            let scope = ctx.at(&format!("cnn.{i}"));
            let conv = same(&scope, "0", [channels; 2], config.text_encoder_kernel_size, 1)?;
            // As torch's files name a norm of the model's own, and as MLX names its.
            let [weight, bias] = if scope.has("1.gamma") { ["gamma", "beta"] } else { ["weight", "bias"] };
            let part = |name: &str| scope.at("1").tensor(name, &[channels]);
            Ok((conv, LayerNorm::new(ctx.ops(), part(weight)?, Some(part(bias)?), EPS)))
        };
        Ok(Self {
            ops: ctx.ops(),
            symbols: ctx.embedding("embedding", config.n_token, channels)?,
            convolutions: (0..config.n_layer).map(convolution).collect::<Result<_>>()?,
            lstm: both_ways(ctx, "lstm", channels, channels)?,
        })
    }

    /// Symbols `[symbols]`, u32 → [symbols, channels].
    pub fn forward(&self, symbols: &Tensor) -> Result<Tensor> {
        let mut x = self.symbols.forward(symbols)?;
        for (conv, norm) in &self.convolutions {
            x = self.ops.admit(&norm.forward(&conv.forward(&x)?)?, bent(SLOPE))?;
        }
        self.lstm.forward(&x)
    }
}
