//! The same matrix of all experts of a layer.

use std::sync::Arc;

use mlx_rs::ops::{concatenate, indexing::TryIndexOp};
use vllm_checkpoint::TensorData;

use super::{LoadContext, check_shape};
use crate::{Error, Matrix, QuantizedMatrix, Result, Tensor, batch::dim, ffi};

/// Rows of a panel of packed weights.
const PANEL: usize = 16;

impl LoadContext<'_> {
    /// The matrices `name` of `count` experts, one above the next: [`count` · `rows`, `columns`]. MLX's checkpoints have them as
    /// one, `switch_mlp.name.weight` [`count`, `rows`, `columns`]; the original ones as `experts.0.name.weight` [`rows`,
    /// `columns`] and so on, which are copied together; Qwen3-VL's are turned round, `experts.down_proj` [`count`, `columns`,
    /// `rows`], with gate and up projections side by side in `experts.gate_up_proj` [`count`, `columns`, 2 · `rows`].
    ///
    /// # Errors
    /// If a tensor is missing or has another shape, or separate experts are quantized or stored in different ways.
    pub fn experts(&self, name: &str, count: usize, rows: usize, columns: usize) -> Result<Matrix> {
        let stacked = self.at("switch_mlp").at(name);
        if stacked.has("weight") {
            return stacked.stacked("weight", count, rows, columns);
        }
        let experts = self.at("experts");
        if experts.has("gate_up_proj") {
            return experts.turned(name, count, rows, columns);
        }
        let matrices = (0..count)
            .map(|expert| experts.at(&expert.to_string()).at(name).matrix("weight", rows, columns))
            .collect::<Result<Vec<_>>>()?;
        together(&matrices)?.ok_or_else(|| Error::Tensor {
            name: experts.path(&format!("*.{name}.weight")),
            problem: "must be stored in the same way for all experts, and unquantized where they stand apart".into(),
        })
    }

    /// A matrix out of `down_proj` [`count`, `columns`, `rows`], or one of the two that stand side by side in `gate_up_proj`
    /// [`count`, `columns`, 2 · `rows`].
    fn turned(&self, name: &str, count: usize, rows: usize, columns: usize) -> Result<Matrix> {
        let (file_name, parts, part) = match name {
            "gate_proj" => ("gate_up_proj", 2, 0),
            "up_proj" => ("gate_up_proj", 2, 1),
            other => (other, 1, 0),
        };
        let path = self.path(file_name);
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor { name: path, problem: "is quantized; it must be turned round".into() });
        };
        check_shape(&path, &dense.shape, &[count, columns, parts * rows])?;
        let (array, _) = ffi::import(dense, &[dim(count), dim(columns), dim(parts * rows)], false)?;
        let array = array.try_index((.., .., dim(part * rows)..dim((part + 1) * rows)))?;
        let array = array.transpose_axes(&[0, 2, 1])?.reshape(&[dim(count * rows), dim(columns)])?;
        let array = if self.on_cpu() { array } else { array.as_dtype(self.shared.dtype)? };
        array.eval()?;
        let (matrix, parameters) = (Matrix::Dense(array), count * rows * columns);
        *self.shared.formats.borrow_mut().entry(matrix.to_string()).or_default() += parameters as u64;
        // The tensor is taken once, for all that is in it.
        self.shared.take(path, parts * parameters, parts * matrix.nbytes());
        Ok(matrix)
    }

    /// A tensor [`count`, `rows`, `columns`] as a matrix.
    fn stacked(&self, name: &str, count: usize, rows: usize, columns: usize) -> Result<Matrix> {
        let path = self.path(name);
        let flat = |array: &Tensor| -> Result<Tensor> {
            let array = array.reshape(&[dim(count * rows), -1])?;
            array.eval()?;
            Ok(array)
        };
        let matrix = match self.shared.read(&path)? {
            TensorData::Dense(dense) => {
                check_shape(&path, &dense.shape, &[count, rows, columns])?;
                let array = self.dense(dense)?;
                let array = if self.on_cpu() { array } else { array.as_dtype(self.shared.dtype)? };
                Matrix::Dense(flat(&array)?)
            }
            TensorData::Quantized(quantized) => {
                check_shape(&path, &quantized.shape, &[count, rows, columns])?;
                // Each expert must begin with a panel.
                let packed =
                    rows.is_multiple_of(PANEL).then(|| self.packed(&quantized, count * rows, columns)).flatten();
                if let Some(packed) = packed {
                    return self.took(path, count * rows * columns, Matrix::Packed(Arc::new(packed)));
                }
                let q = self.quantized(quantized, count * rows, columns)?;
                let (packed, scales) = (flat(&q.packed)?, flat(&q.scales)?);
                let biases = q.biases.as_ref().map(flat).transpose()?;
                Matrix::Quantized(QuantizedMatrix { packed, scales, biases, ..q })
            }
        };
        self.took(path, count * rows * columns, matrix)
    }
}

/// One above the next; `None` if they are quantized, or not stored in the same way.
fn together(matrices: &[Matrix]) -> Result<Option<Matrix>> {
    let Some(first) = matrices.first() else { return Ok(None) };
    if matrices.iter().any(|matrix| matrix.to_string() != first.to_string()) {
        return Ok(None);
    }
    let arrays: Vec<&Tensor> =
        matrices.iter().filter_map(|matrix| if let Matrix::Dense(w) = matrix { Some(w) } else { None }).collect();
    if arrays.len() < matrices.len() {
        return Ok(None);
    }
    let joined = concatenate(&arrays, 0)?;
    joined.eval()?;
    Ok(Some(Matrix::Dense(joined)))
}
