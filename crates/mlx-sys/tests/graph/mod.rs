//! The least of a safe layer that these tests need: owned handles, one error channel, closures as kernels.

use std::{
    cell::RefCell,
    ffi::{CStr, CString, c_char, c_int, c_void},
    ptr, slice,
    sync::{
        Arc, Once,
        atomic::{AtomicUsize, Ordering},
    },
};

use mlx_sys::*;

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

unsafe extern "C" fn remember(message: *const c_char, _: *mut c_void) {
    // SAFETY: MLX passes a NUL-terminated string.
    let message = unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned();
    LAST_ERROR.with(|last| *last.borrow_mut() = message);
}

fn check(code: c_int) -> Result<(), String> {
    if code == 0 { Ok(()) } else { Err(LAST_ERROR.take()) }
}

/// Calls a function of mlx-c that makes an array.
macro_rules! make {
    ($f:ident($($arg:expr),*)) => {{
        // SAFETY: every handle passed is live and every pointer holds as many elements as the count beside it says.
        let (code, array) = unsafe {
            let mut res = mlx_array_new();
            ($f(&mut res, $($arg),*), Array(res))
        };
        check(code).expect("a valid operation");
        array
    }};
}

/// An owned array handle.
pub struct Array(mlx_array);

impl Drop for Array {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and freed once.
        unsafe { mlx_array_free(self.0) };
    }
}

impl Clone for Array {
    fn clone(&self) -> Self {
        make!(mlx_array_set(self.0))
    }
}

impl Array {
    pub fn shape(&self) -> Vec<c_int> {
        // SAFETY: the shape pointer holds `ndim` entries as long as the array lives.
        unsafe {
            let ndim = mlx_array_ndim(self.0);
            if ndim == 0 { vec![] } else { slice::from_raw_parts(mlx_array_shape(self.0), ndim).to_vec() }
        }
    }

    pub fn dtype(&self) -> mlx_dtype {
        // SAFETY: a live handle.
        unsafe { mlx_array_dtype(self.0) }
    }
}

/// A float32 array that copies `data`.
pub fn array(data: &[f32], shape: &[c_int]) -> Array {
    // SAFETY: `data` has as many elements as `shape` says.
    Array(unsafe {
        mlx_array_new_data(data.as_ptr().cast(), shape.as_ptr(), shape.len() as c_int, mlx_dtype__MLX_FLOAT32)
    })
}

/// A float32 array over `data`'s own memory; `ctx` and the memory are dropped when MLX gives it back.
pub fn managed(mut data: Vec<f32>, shape: &[c_int], ctx: Ctx) -> Array {
    let at = data.as_mut_ptr();
    let payload = Box::into_raw(Box::new((data, ctx)));
    unsafe extern "C" fn give_back(payload: *mut c_void) {
        // SAFETY: the pointer came out of `Box::into_raw` above.
        drop(unsafe { Box::from_raw(payload.cast::<(Vec<f32>, Ctx)>()) });
    }
    // SAFETY: the memory lives until `give_back`.
    Array(unsafe {
        mlx_array_new_host(
            at.cast(),
            shape.as_ptr(),
            shape.len() as c_int,
            mlx_dtype__MLX_FLOAT32,
            payload.cast(),
            Some(give_back),
        )
    })
}

/// Evaluates and reads the elements' bytes. `a` must be row-major.
pub fn bytes_of(a: &Array) -> Result<Vec<u8>, String> {
    // SAFETY: evaluated before it is read; a row-major array has `nbytes` bytes at its data pointer.
    unsafe {
        check(mlx_array_eval(a.0))?;
        let n = mlx_array_nbytes(a.0);
        Ok(if n == 0 { vec![] } else { slice::from_raw_parts(mlx_array_data_uint8(a.0), n).to_vec() })
    }
}

/// Evaluates and reads the elements of a row-major float32 array.
pub fn floats(a: &Array) -> Result<Vec<f32>, String> {
    assert_eq!(a.dtype(), mlx_dtype__MLX_FLOAT32);
    Ok(bytes_of(a)?.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect())
}

/// The default CPU stream of this thread.
pub struct Stream(mlx_stream);

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: the handle is owned and freed once.
        unsafe { mlx_stream_free(self.0) };
    }
}

impl Stream {
    pub fn cpu() -> Self {
        static HANDLER: Once = Once::new();
        // SAFETY: a handler without data.
        HANDLER.call_once(|| unsafe { mlx_set_error_handler(Some(remember), ptr::null_mut(), None) });
        // SAFETY: makes a new handle.
        Self(unsafe { mlx_default_cpu_stream_new() })
    }

    pub fn synchronize(&self) {
        // SAFETY: a live handle.
        check(unsafe { mlx_synchronize(self.0) }).expect("no error on the stream");
    }

    pub fn add(&self, a: &Array, b: &Array) -> Array {
        make!(mlx_add(a.0, b.0, self.0))
    }

    pub fn transpose(&self, a: &Array) -> Array {
        make!(mlx_transpose(a.0, self.0))
    }

    pub fn contiguous(&self, a: &Array) -> Array {
        make!(mlx_contiguous(a.0, false, self.0))
    }

    pub fn astype(&self, a: &Array, dtype: mlx_dtype) -> Array {
        make!(mlx_astype(a.0, dtype, self.0))
    }

    pub fn broadcast(&self, a: &Array, shape: &[c_int]) -> Array {
        make!(mlx_broadcast_to(a.0, shape.as_ptr(), shape.len(), self.0))
    }

    pub fn slice(&self, a: &Array, start: &[c_int], stop: &[c_int], step: &[c_int]) -> Array {
        let n = start.len();
        make!(mlx_slice(a.0, start.as_ptr(), n, stop.as_ptr(), n, step.as_ptr(), n, self.0))
    }

    pub fn async_eval(&self, a: &Array) {
        // SAFETY: the vector holds its own handle of the array.
        unsafe {
            let outputs = mlx_vector_array_new_value(a.0);
            check(mlx_async_eval(outputs)).expect("a valid graph");
            mlx_vector_array_free(outputs);
        }
    }
}

/// What an output is to be.
#[derive(Clone)]
pub struct Spec {
    pub shape: Vec<c_int>,
    pub dtype: mlx_dtype,
    pub alias: c_int,
}

impl Spec {
    pub fn f32(shape: &[c_int]) -> Self {
        Self { shape: shape.to_vec(), dtype: mlx_dtype__MLX_FLOAT32, alias: -1 }
    }
}

/// A kernel's view of an array. Mutable access is what the kernel makes of it, as in C.
pub struct View<'a>(&'a mlx_custom_view);

#[allow(clippy::mut_from_ref)]
impl View<'_> {
    pub fn shape(&self) -> &[c_int] {
        // SAFETY: the contract of `mlx_custom_view`.
        if self.0.ndim == 0 { &[] } else { unsafe { slice::from_raw_parts(self.0.shape, self.0.ndim) } }
    }

    pub fn dtype(&self) -> mlx_dtype {
        self.0.dtype
    }

    pub fn bytes(&self) -> &[u8] {
        self.bytes_mut()
    }

    pub fn bytes_mut(&self) -> &mut [u8] {
        if self.0.size == 0 {
            return &mut [];
        }
        // SAFETY: the contract of `mlx_custom_view`.
        unsafe { slice::from_raw_parts_mut(self.0.data.cast(), self.0.size * mlx_dtype_size(self.0.dtype)) }
    }

    pub fn floats(&self) -> &[f32] {
        self.floats_mut()
    }

    pub fn floats_mut(&self) -> &mut [f32] {
        assert_eq!(self.0.dtype, mlx_dtype__MLX_FLOAT32);
        let bytes = self.bytes_mut();
        // SAFETY: MLX aligns its buffers to more than a float's size.
        unsafe { slice::from_raw_parts_mut(bytes.as_mut_ptr().cast(), bytes.len() / 4) }
    }
}

type Kernel = dyn Fn(&[View<'_>], &[View<'_>]) -> Result<(), String> + Send + Sync;

/// A closure as a kernel's context, whose drops are counted.
pub struct Ctx {
    kernel: Box<Kernel>,
    drops: Drops,
}

impl Ctx {
    pub fn new(kernel: impl Fn(&[View<'_>], &[View<'_>]) -> Result<(), String> + Send + Sync + 'static) -> Self {
        Self { kernel: Box::new(kernel), drops: Drops::default() }
    }

    pub fn drops(&self) -> Drops {
        self.drops.clone()
    }
}

impl Drop for Ctx {
    fn drop(&mut self) {
        self.drops.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[derive(Default, Clone)]
pub struct Drops(Arc<AtomicUsize>);

impl Drops {
    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

unsafe extern "C" fn call(
    ctx: *mut c_void,
    inputs: *const mlx_custom_view,
    n_inputs: usize,
    outputs: *const mlx_custom_view,
    n_outputs: usize,
    error: *mut c_char,
    capacity: usize,
) -> c_int {
    // SAFETY: the contract of `mlx_custom_kernel`; `ctx` is the `Ctx` that `custom` boxed.
    let (ctx, inputs, outputs) = unsafe { (&*ctx.cast::<Ctx>(), views(inputs, n_inputs), views(outputs, n_outputs)) };
    match (ctx.kernel)(&inputs, &outputs) {
        Ok(()) => 0,
        Err(message) => {
            let message = CString::new(message).expect("no NUL in a message");
            let bytes = message.as_bytes_with_nul();
            assert!(bytes.len() <= capacity);
            // SAFETY: `error` has room for `capacity` bytes.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), error, bytes.len()) };
            1
        }
    }
}

unsafe fn views<'a>(at: *const mlx_custom_view, n: usize) -> Vec<View<'a>> {
    // SAFETY: the caller passes MLX's own pointer and count.
    if n == 0 { vec![] } else { unsafe { slice::from_raw_parts(at, n) }.iter().map(View).collect() }
}

/// Adds a custom primitive to the graph.
pub fn custom(s: &Stream, name: &str, inputs: &[&Array], specs: &[Spec], ctx: Ctx) -> Result<Vec<Array>, String> {
    unsafe extern "C" fn free(ctx: *mut c_void) {
        // SAFETY: the pointer came out of `Box::into_raw` below.
        drop(unsafe { Box::from_raw(ctx.cast::<Ctx>()) });
    }
    let name = CString::new(name).expect("no NUL in a name");
    let handles: Vec<mlx_array> = inputs.iter().map(|a| a.0).collect();
    let outputs: Vec<mlx_custom_output> = specs
        .iter()
        .map(|spec| mlx_custom_output {
            shape: spec.shape.as_ptr(),
            ndim: spec.shape.len(),
            dtype: spec.dtype,
            alias: spec.alias,
        })
        .collect();
    // SAFETY: all pointers outlive the call; the context is handed over in every case.
    let (code, outs) = unsafe {
        let inputs = mlx_vector_array_new_data(handles.as_ptr(), handles.len());
        let mut outs = mlx_vector_array_new();
        let code = mlx_custom_cpu(
            &mut outs,
            name.as_ptr(),
            inputs,
            outputs.as_ptr(),
            outputs.len(),
            Some(call),
            Box::into_raw(Box::new(ctx)).cast(),
            Some(free),
            s.0,
        );
        mlx_vector_array_free(inputs);
        (code, outs)
    };
    let result = check(code).map(|()| {
        // SAFETY: a live handle.
        let n = unsafe { mlx_vector_array_size(outs) };
        (0..n).map(|i| make!(mlx_vector_array_get(outs, i))).collect()
    });
    // SAFETY: the handle is owned and freed once; the arrays have their own.
    unsafe { mlx_vector_array_free(outs) };
    result
}
