//! 16-bit floats: absent from the C API where the C compiler lacks such types, so declared here for all targets alike.
//!
//! The two types look different because mlx-rs, written against generated bindings, wants them so.

use crate::mlx_array;

/// The bits of an IEEE half-precision number.
#[repr(transparent)]
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct float16_t(pub u16);

/// The bits of a bfloat16 number: the upper half of a single-precision one.
pub type bfloat16_t = u16;

unsafe extern "C" {
    /// The elements of an evaluated `float16` array, or null.
    pub fn mlx_array_data_float16(arr: mlx_array) -> *const float16_t;
    /// The value of a `float16` array of one element.
    pub fn mlx_array_item_float16(res: *mut float16_t, arr: mlx_array) -> core::ffi::c_int;
    /// The elements of an evaluated `bfloat16` array, or null.
    pub fn mlx_array_data_bfloat16(arr: mlx_array) -> *const bfloat16_t;
    /// The value of a `bfloat16` array of one element.
    pub fn mlx_array_item_bfloat16(res: *mut bfloat16_t, arr: mlx_array) -> core::ffi::c_int;
}
