//! Convolutions along a sound.

use vllm_checkpoint::{Dtype, TensorData};

use super::LoadContext;
use crate::{Error, Result, nn::Conv1d};

impl LoadContext<'_> {
    /// A convolution in one dimension: `name.weight` [`outputs`, `inputs`, `kernel`] as PyTorch has it, or [`outputs`, `kernel`,
    /// `inputs`] as MLX has it, and `name.bias` `[outputs]`. (Where a kernel is as long as there are inputs, it is taken for
    /// PyTorch's.)
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn conv1d(
        &self,
        name: &str,
        [outputs, inputs, kernel]: [usize; 3],
        stride: usize,
        padding: usize,
    ) -> Result<Conv1d> {
        let scope = self.at(name);
        let path = scope.path("weight");
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor { name: path, problem: "is quantized; convolutions are not".into() });
        };
        let found = dense.shape.clone();
        let array = self.dense(dense)?.as_dtype(self.shared.dtype)?;
        let array = if found == [outputs, inputs, kernel] {
            array.transpose_axes(&[0, 2, 1])?.contiguous()?
        } else if found == [outputs, kernel, inputs] {
            array
        } else {
            return Err(Error::Shape { name: path, found, wanted: vec![outputs, inputs, kernel] });
        };
        array.eval()?;
        self.shared.take(path, array.size(), array.nbytes());
        let bias = scope.tensor("bias", &[outputs])?;
        Ok(Conv1d::new(self.ops(), array, Some(bias), stride, padding))
    }

    /// Whole numbers, if there is a tensor of that name: row by row, whatever its shape.
    ///
    /// # Errors
    /// If they aren't of 32 or 64 bits.
    pub fn integers(&self, name: &str) -> Result<Option<Vec<i64>>> {
        if !self.has(name) {
            return Ok(None);
        }
        let path = self.path(name);
        let wrong = || Error::Tensor { name: path.clone(), problem: "wants whole numbers of 32 or 64 bits".into() };
        let TensorData::Dense(dense) = self.shared.read(&path)? else { return Err(wrong()) };
        let width = match dense.dtype {
            Dtype::I32 | Dtype::U32 => 4,
            Dtype::I64 | Dtype::U64 => 8,
            _ => return Err(wrong()),
        };
        let number = |bytes: &[u8]| match dense.dtype {
            Dtype::I32 => i64::from(i32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            Dtype::U32 => i64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
            _ => bytes.iter().rev().fold(0, |number, &byte| number << 8 | i64::from(byte)),
        };
        let numbers = dense.bytes.chunks_exact(width).map(number).collect();
        self.shared.take(path, 0, 0);
        Ok(Some(numbers))
    }
}
