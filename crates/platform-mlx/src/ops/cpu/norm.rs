//! Norms, by themselves and of sums.

use std::sync::Arc;

use vllm_kernels_cpu as kernels;

use super::{Cpu, require_f32};
use crate::{
    Result, Tensor,
    ffi::{Output, View, cpu_primitive},
};

impl Cpu {
    pub(in super::super) fn rms_norm(&self, x: &Tensor, weight: &Tensor, eps: f32) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let [y] = cpu_primitive(
            &self.stream,
            c"rms_norm",
            &[x, weight],
            [Output::f32(x.shape())],
            move |inputs, outputs| {
                kernels::rms_norm(&pool, inputs[0].f32(), inputs[1].floats(), 0.0, eps, outputs[0].f32());
                Ok(())
            },
        )?;
        Ok(y)
    }

    pub(in super::super) fn add_rms_norm(
        &self,
        x: &Tensor,
        r: &Tensor,
        weight: &Tensor,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let outputs = [Output::f32(x.shape()), Output::f32(x.shape())];
        let [sum, norm] =
            cpu_primitive(&self.stream, c"add_rms_norm", &[x, r, weight], outputs, move |inputs, outputs| {
                let [sum, norm] = outputs else { return Err("two outputs".into()) };
                kernels::elementwise::add(&pool, inputs[0].f32(), inputs[1].f32(), sum.f32());
                kernels::rms_norm(&pool, sum.f32(), inputs[2].floats(), 0.0, eps, norm.f32());
                Ok(())
            })?;
        Ok((sum, norm))
    }

    pub(in super::super) fn layer_norm(
        &self,
        x: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        let output = Output::f32(x.shape());
        let [y] = cpu_primitive(&self.stream, c"layer_norm", &inputs, [output], move |inputs, outputs| {
            let bias = inputs.get(2).map(View::floats);
            kernels::layer_norm(&pool, inputs[0].f32(), inputs[1].floats(), bias, eps, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(in super::super) fn add_layer_norm(
        &self,
        x: &Tensor,
        r: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<Tensor> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let mut inputs = vec![x, r, weight];
        inputs.extend(bias);
        // The second is room for the sum.
        let outputs = [Output::f32(x.shape()); 2];
        let [y, _] = cpu_primitive(&self.stream, c"add_layer_norm", &inputs, outputs, move |inputs, outputs| {
            let [y, sum] = outputs else { return Err("two outputs".into()) };
            let (sum, bias) = (sum.f32(), inputs.get(3).map(View::floats));
            kernels::elementwise::add(&pool, inputs[0].f32(), inputs[1].f32(), sum);
            kernels::layer_norm(&pool, sum, inputs[2].floats(), bias, eps, y.f32());
            Ok(())
        })?;
        Ok(y)
    }

    pub(in super::super) fn sum_and_layer_norm(
        &self,
        x: &Tensor,
        r: &Tensor,
        weight: &Tensor,
        bias: Option<&Tensor>,
        eps: f32,
    ) -> Result<(Tensor, Tensor)> {
        require_f32(x)?;
        let pool = Arc::clone(&self.pool);
        let mut inputs = vec![x, r, weight];
        inputs.extend(bias);
        let outputs = [Output::f32(x.shape()); 2];
        let [sum, norm] =
            cpu_primitive(&self.stream, c"sum_and_layer_norm", &inputs, outputs, move |inputs, outputs| {
                let [sum, norm] = outputs else { return Err("two outputs".into()) };
                let (sum, bias) = (sum.f32(), inputs.get(3).map(View::floats));
                kernels::elementwise::add(&pool, inputs[0].f32(), inputs[1].f32(), sum);
                kernels::layer_norm(&pool, sum, inputs[2].floats(), bias, eps, norm.f32());
                Ok(())
            })?;
        Ok((sum, norm))
    }
}
