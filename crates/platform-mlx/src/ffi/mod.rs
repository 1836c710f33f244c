//! Where Rust meets MLX's C interface: the only `unsafe` of this crate.

pub mod distributed;
mod elements;
mod exit;
mod gather;
mod import;
pub(crate) mod primitive;
pub(crate) mod program;
mod quantized;

use std::ffi::CStr;

pub use elements::{NumberView, Plain, elements};
pub use exit::exit;
pub use gather::gather_matmul;
pub use import::import;
pub(crate) use primitive::Kernel;
pub use primitive::{Output, View, ViewMut, cpu_primitive};
pub(crate) use program::array_id;
pub use quantized::{dequantize, quantized_matmul};

/// mlx-c ends the process at an error unless a handler is set; mlx-rs sets one with its first call.
fn set_error_handler() {
    // Any of mlx-rs's fallible calls will do: this one reads a counter.
    let _ = mlx_rs::memory::active_memory();
}

/// Whether the linked MLX can use an Apple GPU here.
#[must_use]
pub fn metal_is_available() -> bool {
    set_error_handler();
    let mut available = false;
    // SAFETY: writes one bool; asks the system, no preconditions.
    let status = unsafe { mlx_sys::mlx_metal_is_available(&raw mut available) };
    status == 0 && available
}

/// Whether the linked MLX can use an NVIDIA GPU here.
#[must_use]
pub fn cuda_is_available() -> bool {
    set_error_handler();
    let mut available = false;
    // SAFETY: writes one bool; asks the system, no preconditions.
    let status = unsafe { mlx_sys::mlx_cuda_is_available(&raw mut available) };
    status == 0 && available
}

/// The first GPU's memory in bytes, where MLX tells.
#[must_use]
pub fn gpu_memory_size() -> Option<u64> {
    // Apple reports `memory_size`; CUDA's table says `total_memory`.
    [c"memory_size", c"total_memory"].into_iter().find_map(gpu_info_size)
}

fn gpu_info_size(key: &CStr) -> Option<u64> {
    set_error_handler();
    // SAFETY: each handle is freed exactly once below; `key` outlives the calls; the getters write only to locals.
    unsafe {
        let device = mlx_sys::mlx_device_new_type(mlx_sys::mlx_device_type__MLX_GPU, 0);
        let mut info = mlx_sys::mlx_device_info_new();
        let mut size = 0usize;
        let mut exists = false;
        let known = mlx_sys::mlx_device_info_get(&raw mut info, device) == 0
            && mlx_sys::mlx_device_info_has_key(&raw mut exists, info, key.as_ptr()) == 0
            && exists
            && mlx_sys::mlx_device_info_get_size(&raw mut size, info, key.as_ptr()) == 0;
        mlx_sys::mlx_device_info_free(info);
        mlx_sys::mlx_device_free(device);
        known.then_some(size as u64)
    }
}

/// Version of the linked MLX, e.g. `0.32.4`.
#[must_use]
pub fn mlx_version() -> Option<String> {
    set_error_handler();
    // SAFETY: the handle is made here and freed once; its data is a C string that lives as long as the handle, and is
    // copied before that ends.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let known = mlx_sys::mlx_version(&raw mut text) == 0;
        let data = mlx_sys::mlx_string_data(text);
        let version = (known && !data.is_null()).then(|| CStr::from_ptr(data).to_string_lossy().into_owned());
        mlx_sys::mlx_string_free(text);
        version
    }
}
