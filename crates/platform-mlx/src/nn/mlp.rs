//! The gated feed-forward block of today's decoders.

use crate::{Activation, Bias, LoadContext, Ops, Result, Tensor, nn::Linear};

/// `down(act(gate(x)) · up(x))` (Shazeer, arXiv:2002.05202).
pub struct GatedMlp {
    ops: Ops,
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl GatedMlp {
    /// Loads `gate_proj`, `up_proj` and `down_proj` of the scope.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(
        ctx: &LoadContext<'_>,
        hidden: usize,
        intermediate: usize,
        bias: Bias,
        activation: Activation,
    ) -> Result<Self> {
        Ok(Self {
            ops: ctx.ops(),
            gate: ctx.linear("gate_proj", hidden, intermediate, bias)?,
            up: ctx.linear("up_proj", hidden, intermediate, bias)?,
            down: ctx.linear("down_proj", intermediate, hidden, bias)?,
            activation,
        })
    }

    /// [tokens, hidden] → [tokens, hidden].
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gated = self.ops.gated_linear(x, self.gate.projection(), self.up.projection(), self.activation)?;
        self.down.forward(&gated)
    }
}
