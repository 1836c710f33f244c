//! Filters of convolutions in one dimension.

use vllm_checkpoint::{DenseTensor, TensorData};

use super::LoadContext;
use crate::{Error, Result, Tensor, batch::dim};

/// How files lay out filters in which two sizes are the same, so that the shape doesn't tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterLayout {
    /// [outer, inner, kernel], as torch.
    KernelLast,
    /// [outer, kernel, inner], as MLX.
    ChannelsLast,
}

impl LoadContext<'_> {
    /// A convolution's filters [`outer`, kernel, `inner`], where `outer` are the outputs (of a transposed convolution, the inputs)
    /// and `inner` the other channels of a group: `name.weight`; or, by weight normalisation (Salimans & Kingma, arXiv:1602.07868),
    /// `name.weight_g` [`outer`, 1, 1] times `name.weight_v` brought to length 1 for each of `outer`.
    ///
    /// The file may have them in either layout; `layout` says which it is where the shape doesn't.
    ///
    /// # Errors
    /// If a tensor is missing, quantized, or has another shape.
    pub fn filters(&self, name: &str, [outer, inner, kernel]: [usize; 3], layout: FilterLayout) -> Result<Tensor> {
        let scope = self.at(name);
        let normalised = scope.has("weight_v");
        let path = scope.path(if normalised { "weight_v" } else { "weight" });
        let TensorData::Dense(dense) = self.shared.read(&path)? else {
            return Err(Error::Tensor { name: path, problem: "is quantized; convolutions are not".into() });
        };
        let array = self.channels_last(&path, dense, [outer, inner, kernel], layout)?;
        let array = if normalised {
            let length = scope.tensor("weight_g", &[outer, 1, 1])?;
            let norm = array.square()?.sum_axes(&[1, 2], true)?.sqrt()?;
            array.multiply(length.divide(norm)?)?
        } else {
            array
        };
        array.eval()?;
        self.shared.take(path, array.size(), array.nbytes());
        Ok(array)
    }

    fn channels_last(
        &self,
        path: &str,
        tensor: DenseTensor<'_>,
        [outer, inner, kernel]: [usize; 3],
        layout: FilterLayout,
    ) -> Result<Tensor> {
        let (torch, mlx) = ([outer, inner, kernel], [outer, kernel, inner]);
        let found = tensor.shape.clone();
        if found != torch && found != mlx {
            return Err(Error::Shape { name: path.into(), found, wanted: torch.into() });
        }
        let kernel_last = found == torch && (torch != mlx || layout == FilterLayout::KernelLast);
        let array = self.dense(tensor)?.as_dtype(self.shared.dtype)?;
        if !kernel_last {
            return Ok(array);
        }
        // Where an axis has length 1 the numbers lie as they are wanted.
        if inner == 1 || kernel == 1 {
            return Ok(array.reshape(&mlx.map(dim))?);
        }
        Ok(array.transpose_axes(&[0, 2, 1])?.contiguous()?)
    }
}
