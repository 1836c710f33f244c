//! Projections stored the other way round.

use vllm_checkpoint::TensorData;

use super::{LoadContext, check_shape};
use crate::{Error, Matrix, Result, nn::Linear};

impl LoadContext<'_> {
    /// A linear layer without bias whose weight is stored as [`inputs`, `outputs`] under `name` itself.
    ///
    /// # Errors
    /// If the tensor is missing, quantized, or has another shape.
    pub fn transposed(&self, name: &str, inputs: usize, outputs: usize) -> Result<Linear> {
        let path = self.path(name);
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor {
                name: path,
                problem: "is quantized; it is a bare parameter, not a layer".into(),
            });
        };
        check_shape(&path, &dense.shape, &[inputs, outputs])?;
        let array = self.dense(dense)?.transpose()?.contiguous()?;
        // Off the CPU all operands are of one type.
        let array = if self.on_cpu() { array } else { array.as_dtype(self.shared.dtype)? };
        array.eval()?;
        let weight = self.took(path, inputs * outputs, Matrix::Dense(array))?;
        Ok(Linear::new(self.ops(), weight, None))
    }
}
