//! The mixture-of-experts feed-forward block of today's decoders.

use crate::{Activation, Bias, ExpertWeights, LoadContext, Ops, Result, Routing, Tensor, nn::Linear};

/// `Σ weight · down(act(gate(x)) · up(x))` over the experts that a router chooses for each token (Shazeer et al.,
/// arXiv:1701.06538).
pub struct Moe {
    ops: Ops,
    router: Linear,
    experts: ExpertWeights,
    routing: Routing,
    activation: Activation,
}

impl Moe {
    /// Loads the router, `gate`, and the experts' `gate_proj`, `up_proj` and `down_proj` of the scope, as
    /// [`LoadContext::experts`] finds them.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn load(
        ctx: &LoadContext<'_>,
        hidden: usize,
        inner: usize,
        count: usize,
        routing: Routing,
        activation: Activation,
    ) -> Result<Self> {
        let ops = ctx.ops();
        let experts = ExpertWeights {
            gate: ctx.experts("gate_proj", count, inner, hidden)?,
            up: ctx.experts("up_proj", count, inner, hidden)?,
            down: ctx.experts("down_proj", count, hidden, inner)?,
            count,
        };
        for matrix in [&experts.gate, &experts.up, &experts.down] {
            matrix.arrays().for_each(|array| ops.constant(array));
        }
        Ok(Self { ops, router: ctx.linear("gate", hidden, count, Bias::None)?, experts, routing, activation })
    }

    /// [tokens, hidden] → [tokens, hidden].
    ///
    /// # Errors
    /// MLX's own.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.ops.moe(x, &self.router.forward(x)?, &self.experts, self.routing, self.activation)
    }
}
