//! The convolution that embeds patches.

use vllm_checkpoint::TensorData;

use super::{Bias, LoadContext};
use crate::{Error, Matrix, Result, batch::dim, nn::Linear};

impl LoadContext<'_> {
    /// A convolution whose stride is its kernel, as the linear layer that it is on patches [patches, channels · kernel]:
    /// `name.weight` [`outputs`, `channels`, `kernel`…], or [`outputs`, `kernel`…, `channels`] as MLX's checkpoints have it, and
    /// `name.bias` `[outputs]`. The numbers of a patch are ordered by channel first.
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn patch_embedding(
        &self,
        name: &str,
        outputs: usize,
        channels: usize,
        kernel: &[usize],
        bias: Bias,
    ) -> Result<Linear> {
        let scope = self.at(name);
        let path = scope.path("weight");
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor { name: path, problem: "is quantized; convolutions are not".into() });
        };
        let first: Vec<usize> = [outputs, channels].into_iter().chain(kernel.iter().copied()).collect();
        let mut last = first.clone();
        last[1..].rotate_left(1);
        let found = dense.shape.clone();
        let array = self.dense(dense)?;
        let array = if found == first {
            array
        } else if found == last {
            let rank = dim(found.len());
            let axes: Vec<i32> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
            array.transpose_axes(&axes)?.contiguous()?
        } else {
            return Err(Error::Shape { name: path, found, wanted: first });
        };
        let inputs = channels * kernel.iter().product::<usize>();
        let array = array.reshape(&[dim(outputs), dim(inputs)])?;
        // Off the CPU all operands are of one type.
        let array = if self.on_cpu() { array } else { array.as_dtype(self.shared.dtype)? };
        array.eval()?;
        let weight = self.took(path, outputs * inputs, Matrix::Dense(array))?;
        let bias = match bias {
            Bias::Added => Some(scope.tensor("bias", &[outputs])?),
            Bias::None => None,
        };
        Ok(Linear::new(self.ops(), weight, bias))
    }
}
