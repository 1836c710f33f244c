//! Sums and multiples.

use std::sync::Arc;

use vllm_kernels_cpu::elementwise;

use super::{Cpu, require_f32};
use crate::{
    Error, Result, Tensor,
    ffi::{Output, cpu_primitive},
};

impl Cpu {
    pub(in super::super) fn add(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        require_f32(x)?;
        require_f32(y)?;
        if x.shape() != y.shape() {
            return Err(Error::Plan(format!("a sum of {:?} and {:?}", x.shape(), y.shape())));
        }
        let pool = Arc::clone(&self.pool);
        let [sum] = cpu_primitive(&self.stream, c"add", &[x, y], [Output::f32(x.shape())], move |inputs, outputs| {
            elementwise::add(&pool, inputs[0].f32(), inputs[1].f32(), outputs[0].f32());
            Ok(())
        })?;
        Ok(sum)
    }

    pub(in super::super) fn scale(&self, x: &Tensor, factor: f32) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let [y] = cpu_primitive(&self.stream, c"scale", &[x], [Output::f32(x.shape())], move |inputs, outputs| {
            elementwise::scale(&pool, inputs[0].f32(), factor, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }
}
