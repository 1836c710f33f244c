//! What the families' `config.json`s have in common.

use vllm_platform_mlx::{Activation, Error, Result};

/// An activation function by its name in `config.json`.
pub(crate) fn activation(name: &str) -> Result<Activation> {
    match name {
        "gelu" => Ok(Activation::Gelu),
        "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
        "quick_gelu" => Ok(Activation::QuickGelu),
        "silu" | "swish" => Ok(Activation::Silu),
        "relu" => Ok(Activation::Relu),
        other => Err(Error::Config(format!(
            "hidden_act is {other:?}; known are gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, quick_gelu, silu, swish and relu"
        ))),
    }
}
