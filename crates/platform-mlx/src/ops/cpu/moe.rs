//! Mixtures of experts.

use std::sync::Arc;

use vllm_kernels_cpu::{ExpertMlp, Experts, Routes, Stacked, moe, route};

use super::{Bound, Cpu, Form, function, require_f32};
use crate::{
    Activation, Result, Tensor,
    ffi::{Output, cpu_primitive},
    ops::{ExpertWeights, Routing},
};

impl Bound<'_> {
    fn experts(&self, count: usize) -> Box<dyn Experts + '_> {
        match self {
            Self::Dense(w) => Box::new(Stacked::new(*w, count)),
            Self::Quantized(w) => Box::new(Stacked::new(*w, count)),
            Self::Packed(w) => Box::new(Stacked::new(*w, count)),
        }
    }
}

impl Cpu {
    pub(in super::super) fn moe(
        &self,
        x: &Tensor,
        logits: &Tensor,
        experts: &ExpertWeights,
        routing: Routing,
        activation: Activation,
    ) -> Result<Tensor> {
        require_f32(x)?;
        require_f32(logits)?;
        let (count, activation, pool) = (experts.count, function(activation), Arc::clone(&self.pool));
        let matrices = [&experts.gate, &experts.up, &experts.down];
        let forms = matrices.map(Form::of);
        let mut inputs = vec![x, logits];
        matrices.iter().for_each(|matrix| inputs.extend(matrix.arrays()));
        let output = Output::f32(x.shape());
        let [y] = cpu_primitive(&self.stream, c"moe", &inputs, [output], move |inputs, outputs| {
            let mut next = 2;
            let mut bind = |i: usize| forms[i].bind(inputs, &mut next);
            let (gate, up, down) = (bind(0)?, bind(1)?, bind(2)?);
            let (gate, up, down) = (gate.experts(count), up.experts(count), down.experts(count));
            let mlp = ExpertMlp { gate: &*gate, up: &*up, down: &*down, activation };
            let (chosen, weights) = route(&pool, inputs[1].f32(), count, routing.per_token, routing.normalize);
            let routes = Routes::new(&chosen, routing.per_token, count);
            moe(&pool, mlp, inputs[0].f32(), &routes, &weights, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }
}
