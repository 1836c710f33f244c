//! Bytes of a checkpoint as MLX arrays.

use std::ffi::c_void;

use mlx_rs::{Array, Dtype};
use vllm_checkpoint::{DenseTensor, Dtype as FileDtype};

use crate::{Error, Result};

fn dtype(dtype: FileDtype) -> Option<Dtype> {
    Some(match dtype {
        FileDtype::F32 => Dtype::Float32,
        FileDtype::F16 => Dtype::Float16,
        FileDtype::Bf16 => Dtype::Bfloat16,
        FileDtype::U32 => Dtype::Uint32,
        FileDtype::U8 => Dtype::Uint8,
        FileDtype::I32 => Dtype::Int32,
        _ => return None,
    })
}

/// A tensor of a checkpoint as an array of `shape`. With `share`, bytes that lie in a mapped file and are aligned
/// for their type are used in place, and the mapping lives as long as the array; all else is copied.
///
/// # Errors
/// If MLX has no such element type.
pub fn import(tensor: &DenseTensor<'_>, shape: &[i32], share: bool) -> Result<Array> {
    let dtype = dtype(tensor.dtype).ok_or_else(|| Error::Tensor {
        name: String::new(),
        problem: format!("element type {:?} is not one that models are made of", tensor.dtype),
    })?;
    let bytes = &tensor.bytes;
    let owner = tensor.owner().filter(|_| share && bytes.as_ptr().align_offset(16) == 0);
    let Some(owner) = owner else {
        // SAFETY: `DenseTensor` guarantees that `bytes` holds the product of its shape elements of its type, which
        // `shape` repeats; MLX copies them before returning.
        return Ok(unsafe { Array::from_raw_data(bytes.as_ptr().cast(), shape, dtype) });
    };
    extern "C" fn release(payload: *mut c_void) {
        // SAFETY: `payload` is the box leaked below, and MLX calls this once.
        drop(unsafe { Box::from_raw(payload.cast::<vllm_checkpoint::Owner>()) });
    }
    let payload = Box::into_raw(Box::new(owner));
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    // SAFETY: the bytes are as above and stay mapped until `release` drops their owner. MLX never writes to an array's
    // buffer except by donation, and weights are held by the model whenever a graph that reads them is evaluated, so
    // their buffers are never donatable.
    let array = unsafe {
        Array::from_ptr(mlx_sys::mlx_array_new_data_managed_payload(
            bytes.as_ptr().cast_mut().cast(),
            shape.as_ptr(),
            shape.len() as i32,
            dtype.into(),
            payload.cast(),
            Some(release),
        ))
    };
    Ok(array)
}
