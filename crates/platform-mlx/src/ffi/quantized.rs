//! MLX's quantized operations in every mode: mlx-rs knows the affine one only.

use std::ffi::CStr;

use mlx_rs::{Array, Stream, error::Exception};
use vllm_checkpoint::QuantMode;

use crate::{Error, QuantizedMatrix, Result};

pub(super) fn mode(mode: QuantMode) -> &'static CStr {
    match mode {
        QuantMode::Affine => c"affine",
        QuantMode::Mxfp4 => c"mxfp4",
        QuantMode::Mxfp8 => c"mxfp8",
        QuantMode::Nvfp4 => c"nvfp4",
    }
}

pub(super) fn optional_int(value: usize) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int { value: crate::batch::dim(value), has_value: true }
}

/// Calls `op` with a handle to fill, which becomes the result.
pub(super) fn build(what: &str, op: impl FnOnce(*mut mlx_sys::mlx_array) -> i32) -> Result<Array> {
    // SAFETY: a new handle is empty and owned by us; `op` puts an array into it, and `Array` frees it in every case.
    let (array, status) = unsafe {
        let mut handle = mlx_sys::mlx_array_new();
        let status = op(&raw mut handle);
        (Array::from_ptr(handle), status)
    };
    if status == 0 { Ok(array) } else { Err(Error::Mlx(Exception::custom(format!("{what} was refused")))) }
}

/// x [tokens, columns] · Wᵀ → [tokens, rows], by MLX's kernel.
///
/// # Errors
/// If MLX refuses the operands.
pub fn quantized_matmul(x: &Array, w: &QuantizedMatrix) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    build("quantized_matmul", |result| {
        // SAFETY: all handles are alive; an empty handle stands for absent biases, as mlx-c documents, and is freed.
        unsafe {
            let none = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_quantized_matmul(
                result,
                x.as_ptr(),
                w.packed.as_ptr(),
                w.scales.as_ptr(),
                w.biases.as_ref().map_or(none, Array::as_ptr),
                true,
                optional_int(w.group_size),
                optional_int(usize::from(w.bits)),
                mode(w.mode).as_ptr(),
                stream.as_ptr(),
            );
            mlx_sys::mlx_array_free(none);
            status
        }
    })
}

/// Codes, scales and biases of W [rows, columns] as floats, by MLX's kernel.
///
/// # Errors
/// If MLX refuses the operands.
pub fn dequantize(w: &QuantizedMatrix) -> Result<Array> {
    let stream = Stream::thread_local_or_default();
    build("dequantize", |result| {
        // SAFETY: all handles are alive; empty ones stand for what is absent, as mlx-c documents, and are freed.
        unsafe {
            let none = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_dequantize(
                result,
                w.packed.as_ptr(),
                w.scales.as_ptr(),
                w.biases.as_ref().map_or(none, Array::as_ptr),
                optional_int(w.group_size),
                optional_int(usize::from(w.bits)),
                mode(w.mode).as_ptr(),
                none,
                mlx_sys::mlx_optional_dtype { value: mlx_sys::mlx_dtype__MLX_FLOAT32, has_value: false },
                stream.as_ptr(),
            );
            mlx_sys::mlx_array_free(none);
            status
        }
    })
}
