//! MLX operations whose CPU evaluation is a Rust closure.

use std::{
    any::Any,
    ffi::{CStr, c_char, c_int, c_void},
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind},
    slice,
    sync::Arc,
};

use half::{bf16, f16};
use mlx_rs::{Array, Dtype, Stream, error::Exception};
use vllm_kernels_cpu::Floats;

use crate::{
    Error, Result,
    replay::recording::{self, Recorded},
};

/// An output of [`cpu_primitive`].
#[derive(Debug, Clone, Copy)]
pub struct Output<'a> {
    /// Dimensions.
    pub shape: &'a [i32],
    /// Element type.
    pub dtype: Dtype,
}

impl<'a> Output<'a> {
    /// An f32 output.
    #[must_use]
    pub fn f32(shape: &'a [i32]) -> Self {
        Self { shape, dtype: Dtype::Float32 }
    }
}

/// A row-major input, for the length of a kernel's call.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct View<'a>(mlx_sys::mlx_custom_view, PhantomData<&'a ()>);

/// A row-major output to be filled, for the length of a kernel's call.
#[repr(transparent)]
pub struct ViewMut<'a>(mlx_sys::mlx_custom_view, PhantomData<&'a mut ()>);

/// # Safety
/// The view is one that a kernel is being called with, for as long as `'a`.
unsafe fn shape_of<'a>(view: &mlx_sys::mlx_custom_view) -> &'a [i32] {
    // SAFETY: whoever calls a kernel gives `ndim` dimensions at `shape`, alive during the call; never null.
    unsafe { slice::from_raw_parts(view.shape, view.ndim) }
}

impl<'a> View<'a> {
    /// Dimensions.
    #[must_use]
    pub fn shape(&self) -> &'a [i32] {
        // SAFETY: views exist during a call only.
        unsafe { shape_of(&self.0) }
    }

    fn typed<T>(&self, dtype: Dtype) -> &'a [T] {
        assert_eq!(self.0.dtype, u32::from(dtype), "kernel reads {dtype:?}");
        if self.0.size == 0 {
            return &[];
        }
        // SAFETY: `data` holds `size` row-major elements of `dtype` (checked), which is `T` by the callers below, and
        // nothing writes to an input during the call.
        unsafe { slice::from_raw_parts(self.0.data.cast::<T>(), self.0.size) }
    }

    /// The elements of an f32 input.
    ///
    /// # Panics
    /// If it isn't f32.
    #[must_use]
    pub fn f32(&self) -> &'a [f32] {
        self.typed(Dtype::Float32)
    }

    /// The elements of a u32 input.
    ///
    /// # Panics
    /// If it isn't u32.
    #[must_use]
    pub fn u32(&self) -> &'a [u32] {
        self.typed(Dtype::Uint32)
    }

    /// The elements of a u8 input.
    ///
    /// # Panics
    /// If it isn't u8.
    #[must_use]
    pub fn u8(&self) -> &'a [u8] {
        self.typed(Dtype::Uint8)
    }

    /// The elements of an input in any of the float types.
    ///
    /// # Panics
    /// If it is of another type.
    #[must_use]
    pub fn floats(&self) -> Floats<'a> {
        match self.0.dtype {
            d if d == u32::from(Dtype::Float16) => Floats::F16(self.typed::<f16>(Dtype::Float16)),
            d if d == u32::from(Dtype::Bfloat16) => Floats::Bf16(self.typed::<bf16>(Dtype::Bfloat16)),
            _ => Floats::F32(self.f32()),
        }
    }
}

impl ViewMut<'_> {
    /// Dimensions.
    #[must_use]
    pub fn shape(&self) -> &[i32] {
        // SAFETY: views exist during a call only.
        unsafe { shape_of(&self.0) }
    }

    /// The elements of an f32 output; what they hold before they are written is unspecified.
    ///
    /// # Panics
    /// If it isn't f32.
    pub fn f32(&mut self) -> &mut [f32] {
        assert_eq!(self.0.dtype, u32::from(Dtype::Float32), "kernel writes f32");
        if self.0.size == 0 {
            return &mut [];
        }
        // SAFETY: `data` holds `size` row-major f32 (checked) that only this output's borrower touches during the call.
        // Every bit pattern is an f32, so that unwritten memory is readable, if meaningless.
        unsafe { slice::from_raw_parts_mut(self.0.data.cast(), self.0.size) }
    }
}

/// What computes an operation's outputs from its inputs.
pub(crate) type Kernel = Arc<dyn Fn(&[View<'_>], &mut [ViewMut<'_>]) -> std::result::Result<(), String> + Send + Sync>;

/// Adds to `stream`'s graph an operation that computes `outputs` from `inputs` by `kernel`.
///
/// `kernel` runs on the stream's own thread when the graph is evaluated; or, where steps are replayed
/// (`docs/decisions/0020-steps-are-replayed.md`), on the caller's, once for each step. Inputs reach it row-major. What it returns
/// as an error, and a panic, come out of the evaluation that waits for a result.
///
/// # Errors
/// If MLX refuses the operation (a stream that isn't a CPU's).
pub fn cpu_primitive<const N: usize>(
    stream: &Stream,
    name: &'static CStr,
    inputs: &[&Array],
    outputs: [Output<'_>; N],
    kernel: impl Fn(&[View<'_>], &mut [ViewMut<'_>]) -> std::result::Result<(), String> + Send + Sync + 'static,
) -> Result<[Array; N]> {
    let specs = outputs.map(|output| mlx_sys::mlx_custom_output {
        shape: output.shape.as_ptr(),
        ndim: output.shape.len(),
        dtype: output.dtype.into(),
        // A kernel reads its inputs as `&` while it writes its outputs as `&mut`: never one buffer for both.
        alias: -1,
    });
    let handles: Vec<_> = inputs.iter().map(|array| array.as_ptr()).collect();
    let kernel: Kernel = Arc::new(kernel);
    let context = Box::new(Arc::clone(&kernel));
    // SAFETY: `handles` and `specs` outlive the calls that read them; the vectors are freed exactly once; `context` is
    // given away to MLX, which calls `drop_kernel` on it exactly once, whatever the outcome.
    let arrays: Option<[Array; N]> = unsafe {
        let inputs = mlx_sys::mlx_vector_array_new_data(handles.as_ptr(), handles.len());
        let mut results = mlx_sys::mlx_vector_array_new();
        let status = mlx_sys::mlx_custom_cpu(
            &raw mut results,
            name.as_ptr(),
            inputs,
            specs.as_ptr(),
            N,
            Some(call_kernel),
            Box::into_raw(context).cast(),
            Some(drop_kernel),
            stream.as_ptr(),
        );
        mlx_sys::mlx_vector_array_free(inputs);
        let arrays = (status == 0).then(|| {
            std::array::from_fn(|i| {
                let mut array = mlx_sys::mlx_array_new();
                mlx_sys::mlx_vector_array_get(&raw mut array, results, i);
                Array::from_ptr(array)
            })
        });
        mlx_sys::mlx_vector_array_free(results);
        arrays
    };
    let refused = || Error::Mlx(Exception::custom(format!("{} was refused", name.to_string_lossy())));
    let arrays = arrays.ok_or_else(refused)?;
    recording::note(|| Recorded {
        name,
        kernel,
        inputs: inputs.iter().copied().cloned().collect(),
        outputs: arrays.to_vec(),
    });
    Ok(arrays)
}

extern "C" fn call_kernel(
    context: *mut c_void,
    inputs: *const mlx_sys::mlx_custom_view,
    n_inputs: usize,
    outputs: *const mlx_sys::mlx_custom_view,
    n_outputs: usize,
    error: *mut c_char,
    capacity: usize,
) -> c_int {
    // SAFETY: `context` is the box given to MLX above, not dropped before its last call returns; the C++ side gives
    // `n_inputs` and `n_outputs` views, alive during the call, and nobody else touches what the outputs point to.
    let outcome = unsafe {
        let (kernel, inputs) = (&*context.cast::<Kernel>(), slice::from_raw_parts(inputs, n_inputs));
        let mut outputs = slice::from_raw_parts(outputs, n_outputs).to_vec();
        catch_unwind(AssertUnwindSafe(|| call(kernel, inputs, &mut outputs)))
    };
    let message = match outcome {
        Ok(Ok(())) => return 0,
        Ok(Err(message)) => message,
        Err(panic) => panic_text(&*panic),
    };
    let n = message.len().min(capacity.saturating_sub(1));
    // SAFETY: `error` has room for `capacity` bytes; `n` and the final zero stay below that.
    unsafe {
        std::ptr::copy_nonoverlapping(message.as_ptr().cast(), error, n);
        if capacity > 0 {
            *error.add(n) = 0;
        }
    }
    1
}

extern "C" fn drop_kernel(context: *mut c_void) {
    // SAFETY: the box given to MLX above, which calls this once.
    drop(unsafe { Box::from_raw(context.cast::<Kernel>()) });
}

/// Calls a kernel.
///
/// # Safety
/// Each view has `ndim` dimensions at `shape` and their product of elements of its type at `data`, or none and a null
/// pointer; all alive during the call. The outputs' memory is nobody else's.
pub(super) unsafe fn call(
    kernel: &Kernel,
    inputs: &[mlx_sys::mlx_custom_view],
    outputs: &mut [mlx_sys::mlx_custom_view],
) -> std::result::Result<(), String> {
    // SAFETY: `View` and `ViewMut` are transparent over the view, and what they promise is the caller's promise.
    let (inputs, outputs) = unsafe {
        (
            slice::from_raw_parts(inputs.as_ptr().cast::<View<'_>>(), inputs.len()),
            slice::from_raw_parts_mut(outputs.as_mut_ptr().cast::<ViewMut<'_>>(), outputs.len()),
        )
    };
    kernel(inputs, outputs)
}

pub(super) fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("kernel panicked: {}", text.unwrap_or("no message"))
}
