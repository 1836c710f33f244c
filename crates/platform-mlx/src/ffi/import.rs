//! Bytes of a checkpoint as MLX arrays.

use std::{any::Any, borrow::Cow, ffi::c_void, sync::Arc};

use mlx_rs::{Array, Dtype};
use vllm_checkpoint::{DenseTensor, Dtype as FileDtype};

use crate::{Error, Result};

/// What the widest element asks for; kernels load vectors from anywhere.
const ALIGNMENT: usize = 4;

/// Whatever keeps a buffer alive: a mapped file, or the bytes themselves.
type Owner = Arc<dyn Any + Send + Sync>;

fn dtype(dtype: FileDtype) -> Option<Dtype> {
    Some(match dtype {
        FileDtype::F32 => Dtype::Float32,
        FileDtype::F16 => Dtype::Float16,
        FileDtype::Bf16 => Dtype::Bfloat16,
        FileDtype::U32 => Dtype::Uint32,
        FileDtype::U8 => Dtype::Uint8,
        _ => return None,
    })
}

/// A tensor of a checkpoint as an array of `shape`, and whether it uses the tensor's own memory, which MLX's figures
/// don't count. With `in_place`, aligned bytes are used where they are: those of a mapped file, whose mapping lives as
/// long as the array, and those that a repack has just made. All else is copied.
///
/// # Errors
/// If models aren't made of that element type.
pub fn import(tensor: DenseTensor<'_>, shape: &[i32], in_place: bool) -> Result<(Array, bool)> {
    let dtype = dtype(tensor.dtype).ok_or_else(|| Error::ElementType(tensor.dtype.to_string()))?;
    let data = tensor.bytes.as_ptr();
    if !in_place || data.align_offset(ALIGNMENT) != 0 {
        // SAFETY: a `DenseTensor` holds as many elements of its type as its shape says, which `shape` repeats; MLX copies
        // them before returning.
        return Ok((unsafe { Array::from_raw_data(data.cast(), shape, dtype) }, false));
    }
    let owner: Owner = match (tensor.owner(), tensor.bytes) {
        (Some(mapping), _) => mapping,
        // Moving a vector doesn't move its buffer: `data` stays valid.
        (None, Cow::Owned(bytes)) => Arc::new(bytes),
        (None, Cow::Borrowed(bytes)) => {
            // SAFETY: as above.
            return Ok((unsafe { Array::from_raw_data(bytes.as_ptr().cast(), shape, dtype) }, false));
        }
    };
    let payload = Box::into_raw(Box::new(owner));
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    // SAFETY: the bytes are as above, and stay until `release` drops their owner. MLX writes to an array's buffer only by
    // donation, and weights are held by the model whenever a graph that reads them is evaluated: never donatable.
    let array = unsafe {
        Array::from_ptr(mlx_sys::mlx_array_new_host(
            data.cast_mut().cast(),
            shape.as_ptr(),
            shape.len() as i32,
            dtype.into(),
            payload.cast(),
            Some(release),
        ))
    };
    Ok((array, true))
}

extern "C" fn release(payload: *mut c_void) {
    // SAFETY: the box leaked by `import`, and MLX calls this once.
    drop(unsafe { Box::from_raw(payload.cast::<Owner>()) });
}
