//! Raw bindings to MLX's C API, linked against a *prebuilt* MLX.
//!
//! A drop-in for crates.io's `mlx-sys` (same name, version, `links` key and items), which builds MLX from source and for Apple's systems
//! only. This one compiles the same mlx-c sources against the headers and shared library of an official MLX wheel, or of Homebrew's or
//! Nix's package: a minute's work, on Linux too, with nothing but a C++ compiler. `cargo xtask setup` prepares both.
//!
//! Beyond mlx-c it has
//! - [`mlx_custom_cpu`]: graph operations whose CPU evaluation is a function of the caller's;
//! - [`mlx_array_data_float16`] and its siblings on x86-64, where mlx-c leaves them out.
//!
//! **Invariant:** declarations and glue only. Nothing here decides anything, holds state or wraps a call in a safer one; that is
//! `vllm-platform-mlx`'s work, and mlx-rs's.
//!
//! The contracts of the functions are those of MLX and mlx-c: a function that returns `int` returns 0 for success, and reports anything
//! else to the handler given to [`mlx_set_error_handler`] first. The default handler ends the process.

#![allow(non_camel_case_types, non_upper_case_globals, missing_docs)]

#[rustfmt::skip]
mod bindings;
mod compat;
mod half;

pub use bindings::*;
pub use half::*;

/// C's `FILE`, only ever behind a pointer.
#[repr(C)]
pub struct FILE {
    _opaque: [u8; 0],
}
