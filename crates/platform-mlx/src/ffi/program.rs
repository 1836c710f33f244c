//! Kernels in a row over one piece of memory, run without MLX.

use std::{
    ffi::CStr,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Instant,
};

use memmap2::{Advice, MmapMut};
use mlx_rs::{Array, Dtype};

use super::primitive::{Kernel, call, panic_text};
use crate::{Error, Result, replay::Timings};

/// What operands in scratch memory are aligned to, in bytes: a cache line, and the widest vector.
pub const ALIGNMENT: usize = 64;
/// From how many bytes on scratch memory is worth huge pages.
const HUGE: usize = 8 << 20;

/// Where an operand's elements are.
#[derive(Debug, Clone)]
pub enum Place {
    /// f32, so many bytes from the beginning of the scratch memory.
    Scratch(usize),
    /// Those of an array that nobody changes.
    Constant(Array),
    /// u32, those of the slice with this number, of those that each run is given.
    Given(usize),
}

/// An input or output of a [`Call`].
#[derive(Debug)]
pub struct Operand {
    place: Place,
    shape: Box<[i32]>,
    elements: usize,
    dtype: Dtype,
}

/// One kernel's call.
pub struct Call {
    pub(crate) name: &'static CStr,
    pub(crate) kernel: Kernel,
    pub(crate) inputs: Vec<Operand>,
    pub(crate) outputs: Vec<Operand>,
}

/// Calls in the order in which they run.
pub struct Program {
    calls: Vec<Call>,
    /// Of scratch memory.
    bytes: usize,
    result: Operand,
}

/// Memory for what a program computes on its way. Grows to what the largest program asks for; takes no memory before it is
/// written to.
#[derive(Default)]
pub struct Scratch(Option<MmapMut>);

impl Scratch {
    fn reserve(&mut self, bytes: usize) -> Result<*mut u8> {
        if self.0.as_ref().is_none_or(|pages| pages.len() < bytes) {
            // First, so that both are never there at once.
            self.0 = None;
            let refused = |error: std::io::Error| vllm_platform::Error::OutOfMemory(error.to_string());
            let pages = MmapMut::map_anon(bytes.max(1)).map_err(refused)?;
            if bytes >= HUGE {
                // Only ever faster: a system without huge pages says no.
                #[cfg(target_os = "linux")]
                let _ = pages.advise(Advice::HugePage);
            }
            self.0 = Some(pages);
        }
        Ok(self.0.as_mut().map_or(std::ptr::null_mut(), |pages| pages.as_mut_ptr()))
    }
}

/// What all handles of one array share while one of them lives, and no other array has.
#[must_use]
pub fn array_id(array: &Array) -> usize {
    // SAFETY: a live handle, which is only read.
    unsafe { mlx_sys::mlx_custom_identify(array.as_ptr()) }.id
}

/// An evaluated array's elements, row-major.
fn elements(array: &Array) -> Option<*const u8> {
    // SAFETY: as above.
    let data = unsafe { mlx_sys::mlx_custom_identify(array.as_ptr()) }.data;
    (!data.is_null()).then_some(data.cast())
}

impl Operand {
    /// At `place`, with the shape and element type of `like`. `None` if the elements of that type cannot be there.
    #[must_use]
    pub fn new(place: Place, like: &Array) -> Option<Self> {
        let fits = match &place {
            Place::Scratch(at) => at.is_multiple_of(ALIGNMENT) && like.dtype() == Dtype::Float32,
            Place::Constant(array) => elements(array).is_some() && array.dtype() == like.dtype(),
            Place::Given(_) => like.dtype() == Dtype::Uint32,
        };
        fits.then(|| Self { place, shape: like.shape().into(), elements: like.size(), dtype: like.dtype() })
    }

    /// The bytes it takes of the scratch memory.
    fn range(&self) -> Option<std::ops::Range<usize>> {
        match self.place {
            Place::Scratch(at) => Some(at..at + self.elements * size_of::<f32>()),
            _ => None,
        }
    }

    /// # Safety
    /// `base` begins memory that is as long as the program asks for.
    unsafe fn view(&self, base: *mut u8, given: &[&[u32]]) -> Result<mlx_sys::mlx_custom_view> {
        let data = match &self.place {
            // SAFETY: by the caller's promise.
            Place::Scratch(at) => unsafe { base.add(*at) }.cast(),
            Place::Constant(array) => elements(array).map_or(std::ptr::null_mut(), |data| data.cast_mut().cast()),
            Place::Given(number) => {
                let slice = given.get(*number).filter(|slice| slice.len() == self.elements);
                let wrong = || Error::Plan(format!("{} numbers were wanted as input {number}", self.elements));
                slice.ok_or_else(wrong)?.as_ptr().cast_mut().cast()
            }
        };
        let (shape, ndim) = (self.shape.as_ptr(), self.shape.len());
        Ok(mlx_sys::mlx_custom_view { data, shape, ndim, size: self.elements, dtype: self.dtype.into() })
    }
}

impl Program {
    /// `calls` in that order; `result` is what [`Program::run`] gives.
    ///
    /// # Panics
    /// If an output isn't in the scratch memory, or another operand of its call lies where it does, or the result is
    /// elsewhere: a bug of whoever placed them.
    #[must_use]
    pub fn new(calls: Vec<Call>, result: Operand) -> Self {
        let mut bytes = result.range().expect("a result in scratch memory").end;
        for call in &calls {
            for (i, output) in call.outputs.iter().enumerate() {
                let range = output.range().expect("outputs in scratch memory");
                bytes = bytes.max(range.end);
                let others = call.inputs.iter().chain(&call.outputs[..i]).filter_map(Operand::range);
                for other in others {
                    let apart = other.end <= range.start || range.end <= other.start;
                    assert!(apart, "an output of {:?} at {range:?}, another operand at {other:?}", call.name);
                }
            }
            for range in call.inputs.iter().filter_map(Operand::range) {
                bytes = bytes.max(range.end);
            }
        }
        Self { calls, bytes, result }
    }

    /// Runs all calls on this thread and returns the result's elements.
    ///
    /// # Errors
    /// A kernel's own, named; [`vllm_platform::Error::OutOfMemory`] if the system refuses the scratch memory.
    pub fn run<'m>(
        &self,
        scratch: &'m mut Scratch,
        given: &[&[u32]],
        timings: Option<&mut Timings>,
    ) -> Result<&'m [f32]> {
        self.run_with_pauses(scratch, given, timings, &mut || {})
    }

    /// As [`Program::run`], with `pause` called after each call.
    ///
    /// # Errors
    /// As [`Program::run`].
    pub fn run_with_pauses<'m>(
        &self,
        scratch: &'m mut Scratch,
        given: &[&[u32]],
        mut timings: Option<&mut Timings>,
        pause: &mut dyn FnMut(),
    ) -> Result<&'m [f32]> {
        let base = scratch.reserve(self.bytes)?;
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for Call { name, kernel, inputs: sources, outputs: targets } in &self.calls {
            let started = timings.is_some().then(Instant::now);
            inputs.clear();
            outputs.clear();
            // SAFETY: the memory has `self.bytes`, and `new` has seen that every operand lies within. Outputs overlap
            // neither each other nor inputs, constants are kept by their handles, and `given` outlives the call.
            let outcome = unsafe {
                for source in sources {
                    inputs.push(source.view(base, given)?);
                }
                for target in targets {
                    outputs.push(target.view(base, given)?);
                }
                catch_unwind(AssertUnwindSafe(|| call(kernel, &inputs, &mut outputs)))
            };
            let outcome = outcome.unwrap_or_else(|panic| Err(panic_text(&*panic)));
            outcome.map_err(|problem| Error::Kernel(name.to_string_lossy().into_owned(), problem))?;
            if let (Some(timings), Some(started)) = (timings.as_deref_mut(), started) {
                timings.add(name, started.elapsed());
            }
            pause();
        }
        // SAFETY: the result lies within the memory, which is borrowed for as long as the slice; any bits are an f32.
        Ok(unsafe {
            let view = self.result.view(base, given)?;
            std::slice::from_raw_parts(view.data.cast::<f32>(), view.size)
        })
    }
}
