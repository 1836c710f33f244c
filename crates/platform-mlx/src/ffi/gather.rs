//! MLX's matmul by a matrix that each batch entry chooses for itself.

use mlx_rs::{Array, Stream};

use super::quantized::{build, mode, optional_int};
use crate::{Error, Matrix, Result, batch::dim};

/// `x · Wᵀ` with W = expert `chosen[t, i]` of `w`, whose `count` experts stand one above the next: x [tokens, 1 or k, 1, inputs],
/// chosen [tokens, k] → [tokens, k, 1, outputs].
///
/// # Errors
/// If MLX refuses the operands.
pub fn gather_matmul(x: &Array, w: &Matrix, count: usize, chosen: &Array) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    let by_expert = |array: &Array| {
        let count = dim(count);
        array.reshape(&[count, array.dim(0) / count.max(1), array.dim(1)])
    };
    match w {
        Matrix::Dense(w) => {
            let w = by_expert(w)?.as_dtype(x.dtype())?.swap_axes(-1, -2)?;
            build("gather_mm", |result| {
                // SAFETY: all handles are alive; an empty one stands for absent indices, as mlx-c documents, and is freed.
                unsafe {
                    let none = mlx_sys::mlx_array_new();
                    let (x, w, chosen) = (x.as_ptr(), w.as_ptr(), chosen.as_ptr());
                    let status = mlx_sys::mlx_gather_mm(result, x, w, none, chosen, false, stream.as_ptr());
                    mlx_sys::mlx_array_free(none);
                    status
                }
            })
        }
        Matrix::Packed(_) => Err(Error::Plan("packed weights are for the CPU's own kernels".into())),
        Matrix::Quantized(q) => {
            let (packed, scales) = (by_expert(&q.packed)?, by_expert(&q.scales)?);
            let biases = q.biases.as_ref().map(by_expert).transpose()?;
            build("gather_qmm", |result| {
                // SAFETY: as above; absent biases are an empty handle too.
                unsafe {
                    let none = mlx_sys::mlx_array_new();
                    let status = mlx_sys::mlx_gather_qmm(
                        result,
                        x.as_ptr(),
                        packed.as_ptr(),
                        scales.as_ptr(),
                        biases.as_ref().map_or(none, Array::as_ptr),
                        none,
                        chosen.as_ptr(),
                        true,
                        optional_int(q.group_size),
                        optional_int(usize::from(q.bits)),
                        mode(q.mode).as_ptr(),
                        false,
                        stream.as_ptr(),
                    );
                    mlx_sys::mlx_array_free(none);
                    status
                }
            })
        }
    }
}
