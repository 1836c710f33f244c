//! Tensors of whole numbers: tables, not weights.

use vllm_checkpoint::{Dtype, TensorData};

use super::LoadContext;
use crate::{Error, Result};

impl LoadContext<'_> {
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
