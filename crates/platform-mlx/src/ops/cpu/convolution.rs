//! Convolutions.

use std::sync::Arc;

use vllm_kernels_cpu::{self as kernels, Filters};

use super::{Cpu, function, require_f32};
use crate::{
    Activation, Convolution, Result, Tensor,
    batch::dim,
    ffi::{Output, View, cpu_primitive},
};

impl Cpu {
    /// As [`Ops::convolve`](super::super::Ops::convolve).
    pub(in super::super) fn convolve(
        &self,
        x: &Tensor,
        convolution: Convolution<'_>,
        activation: Option<Activation>,
    ) -> Result<Tensor> {
        let Convolution { weight, bias, stride, padding } = convolution;
        require_f32(x)?;
        require_f32(weight)?;
        let (length, kernel) = (x.dim(0) as usize, weight.dim(1) as usize);
        let how = kernels::Conv1d { stride, padding, ..kernels::Conv1d::default() };
        let shape = [dim(how.output(length, kernel)), weight.dim(0)];
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        let (pool, activation) = (Arc::clone(&self.pool), activation.map(function));
        let outputs = [Output::f32(&shape)];
        let [y] = cpu_primitive(&self.stream, c"convolve", &inputs, outputs, move |inputs, outputs| {
            let (x, w, y) = (&inputs[0], &inputs[1], outputs[0].f32());
            let &[filters, kernel, channels] = w.shape() else { return Err("filters of three axes".into()) };
            let shape = [filters as usize, 1, kernel as usize, channels as usize];
            let filters = Filters::new(w.f32(), shape).map_err(|e| e.to_string())?;
            kernels::conv1d(&pool, x.f32(), [1, length], &filters, how, y);
            kernels::activation::biased(&pool, activation, inputs.get(2).map(View::f32), y);
            Ok(())
        })?;
        Ok(y)
    }
}
