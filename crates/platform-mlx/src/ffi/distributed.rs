//! MLX's groups of processes.

use std::ffi::CStr;

use mlx_rs::{Array, Dtype, Stream, error::Exception};

use super::{quantized::build, set_error_handler};
use crate::{Error, Result, batch::dim};

/// Processes that exchange arrays. Belongs to the thread that made it.
pub struct Group(mlx_sys::mlx_distributed_group);

/// Whether the linked MLX can use a backend here: `ring`, `jaccl`, `nccl` or `mpi`.
#[must_use]
pub fn is_available(backend: &CStr) -> bool {
    set_error_handler();
    // SAFETY: reads a C string and asks the system; no preconditions.
    unsafe { mlx_sys::mlx_distributed_is_available(backend.as_ptr()) }
}

fn refused(what: &str) -> Error {
    Error::Mlx(Exception::custom(format!("{what} was refused")))
}

impl Group {
    /// Joins the processes that the environment names, with the variables that `mlx.launch` sets. Blocks until all are there.
    ///
    /// # Errors
    /// MLX's own.
    pub fn init(backend: &CStr) -> Result<Self> {
        set_error_handler();
        // SAFETY: an empty handle that init fills, and that is freed when dropped; `backend` outlives the call.
        let (group, status) = unsafe {
            let mut group = mlx_sys::mlx_distributed_group_new();
            let status = mlx_sys::mlx_distributed_init(&raw mut group, true, backend.as_ptr());
            (Self(group), status)
        };
        if status == 0 && !group.0.ctx.is_null() {
            return Ok(group);
        }
        Err(refused(&format!("joining other processes over {}", backend.to_string_lossy())))
    }

    /// This process's number.
    #[must_use]
    pub fn rank(&self) -> usize {
        // SAFETY: a group that init has made.
        usize::try_from(unsafe { mlx_sys::mlx_distributed_group_rank(self.0) }).unwrap_or(0)
    }

    /// How many there are.
    #[must_use]
    pub fn size(&self) -> usize {
        // SAFETY: as above.
        usize::try_from(unsafe { mlx_sys::mlx_distributed_group_size(self.0) }).unwrap_or(0)
    }

    /// The processes of one `color`, numbered by `key`. Not every backend can.
    ///
    /// # Errors
    /// MLX's own.
    pub fn split(&self, color: usize, key: usize) -> Result<Self> {
        // SAFETY: as in init; the group is alive.
        let (group, status) = unsafe {
            let mut group = mlx_sys::mlx_distributed_group_new();
            let status = mlx_sys::mlx_distributed_group_split(&raw mut group, self.0, dim(color), dim(key));
            (Self(group), status)
        };
        if status == 0 { Ok(group) } else { Err(refused("distributed split")) }
    }

    /// Sends an array when the result, which is the array again, is evaluated.
    ///
    /// # Errors
    /// MLX's own.
    pub fn send(&self, x: &Array, to: usize) -> Result<Array> {
        let stream = Stream::thread_local_or_default();
        // SAFETY: all handles are alive, and `build` owns the one to fill.
        build("distributed send", |result| unsafe {
            mlx_sys::mlx_distributed_send(result, x.as_ptr(), dim(to), self.0, stream.as_ptr())
        })
    }

    /// What a process sends, when the result is evaluated.
    ///
    /// # Errors
    /// MLX's own.
    pub fn receive(&self, shape: &[i32], dtype: Dtype, from: usize) -> Result<Array> {
        let stream = Stream::thread_local_or_default();
        // SAFETY: as above; `shape` outlives the call.
        build("distributed recv", |result| unsafe {
            let (len, from) = (shape.len(), dim(from));
            mlx_sys::mlx_distributed_recv(result, shape.as_ptr(), len, dtype.into(), from, self.0, stream.as_ptr())
        })
    }

    /// The sum of all processes' arrays.
    ///
    /// # Errors
    /// MLX's own.
    pub fn all_sum(&self, x: &Array) -> Result<Array> {
        let stream = Stream::thread_local_or_default();
        // SAFETY: as above.
        build("distributed all_sum", |result| unsafe {
            mlx_sys::mlx_distributed_all_sum(result, x.as_ptr(), self.0, stream.as_ptr())
        })
    }

    /// All processes' arrays, one after the other along the first axis.
    ///
    /// # Errors
    /// MLX's own.
    pub fn all_gather(&self, x: &Array) -> Result<Array> {
        let stream = Stream::thread_local_or_default();
        // SAFETY: as above.
        build("distributed all_gather", |result| unsafe {
            mlx_sys::mlx_distributed_all_gather(result, x.as_ptr(), self.0, stream.as_ptr())
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: made by us, freed once.
        unsafe {
            mlx_sys::mlx_distributed_group_free(self.0);
        }
    }
}
