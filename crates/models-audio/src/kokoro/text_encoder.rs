//! What phonemes sound like: convolutions and an LSTM over them.

use vllm_platform_mlx::{
    Bias, FilterLayout, LoadContext, Result, Tensor,
    nn::{Embedding, LayerNorm},
};

use super::{
    config::Config,
    layers::{BiLstm, Conv, EPS, Window, leaky},
};

pub(super) struct TextEncoder {
    symbols: Embedding,
    convolutions: Vec<(Conv, LayerNorm)>,
    lstm: BiLstm,
}

impl TextEncoder {
    pub fn load(ctx: &LoadContext<'_>, config: &Config, layout: FilterLayout) -> Result<Self> {
        let channels = config.hidden_dim;
        let window = Window::same(config.text_encoder_kernel_size, 1);
        let convolution = |i: usize| {
            let scope = ctx.at(&format!("cnn.{i}"));
            let conv = Conv::load(&scope, "0", [channels; 2], window, Bias::Added, layout)?;
            // As torch's files name a norm of the model's own, and as MLX names its.
            let [weight, bias] = if scope.has("1.gamma") { ["gamma", "beta"] } else { ["weight", "bias"] };
            let part = |name: &str| scope.at("1").tensor(name, &[channels]);
            Ok((conv, LayerNorm::new(ctx.ops(), part(weight)?, Some(part(bias)?), EPS)))
        };
        Ok(Self {
            symbols: ctx.embedding("embedding", config.n_token, channels)?,
            convolutions: (0..config.n_layer).map(convolution).collect::<Result<_>>()?,
            lstm: BiLstm::load(ctx, "lstm", channels, channels)?,
        })
    }

    /// Symbols `[symbols]`, u32 → [symbols, channels].
    pub fn forward(&self, symbols: &Tensor) -> Result<Tensor> {
        let mut x = self.symbols.forward(symbols)?;
        for (conv, norm) in &self.convolutions {
            x = leaky(&norm.forward(&conv.forward(&x)?)?, 0.2)?;
        }
        self.lstm.forward(&x)
    }
}
