//! Long short-term memory.

use std::sync::Arc;

use vllm_kernels_cpu::{self as kernels, DenseMatrix, LstmDirection};

use super::{Cpu, require_f32};
use crate::{
    Result, Tensor,
    batch::dim,
    ffi::{Output, cpu_primitive},
    ops::LstmWeights,
};

impl Cpu {
    pub(in super::super) fn lstm(&self, x: &Tensor, directions: &[LstmWeights]) -> Result<Tensor> {
        require_f32(x)?;
        let (features, hidden) = (x.dim(1) as usize, directions[0].hidden.dim(1) as usize);
        let mut inputs = vec![x];
        for way in directions {
            require_f32(&way.bias)?;
            inputs.extend(way.arrays());
        }
        let shape = [x.dim(0), dim(directions.len() * hidden)];
        let pool = Arc::clone(&self.pool);
        let outputs = [Output::f32(&shape)];
        let [y] = cpu_primitive(&self.stream, c"lstm", &inputs, outputs, move |inputs, outputs| {
            let mut directions = Vec::new();
            for way in inputs[1..].chunks_exact(3) {
                let input = DenseMatrix::new(way[0].floats(), [4 * hidden, features]).map_err(|e| e.to_string())?;
                let state = DenseMatrix::new(way[1].floats(), [4 * hidden, hidden]).map_err(|e| e.to_string())?;
                directions.push(LstmDirection { input, hidden: state, bias: way[2].f32() });
            }
            kernels::lstm(&pool, inputs[0].f32(), &directions, outputs[0].f32());
            Ok(())
        })?;
        Ok(y)
    }
}
