//! Reusable buffers, a few for each thread, so that kernels allocate nothing once warm.

use std::{
    cell::RefCell,
    mem,
    ops::{Deref, DerefMut},
    slice,
};

/// A cache line: the alignment of scratch memory, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

const LANES: usize = 16;

thread_local! {
    /// A stack: what nests in the same way each time finds the same buffers each time.
    static BUFFERS: RefCell<Vec<Vec<Line>>> = const { RefCell::new(Vec::new()) };
}

/// Scratch memory of a thread, aligned to 64 bytes; what it holds at first is unspecified. Dropping it keeps the
/// memory for the thread's next [`take`].
///
/// (A guard rather than a call with a closure: a closure inside a SIMD kernel would be compiled without the kernel's
/// instruction set.)
pub(crate) struct Scratch {
    lines: Vec<Line>,
    len: usize,
}

/// `len` f32 of scratch memory, without allocating once the thread is warm. Another one beside the first has memory of its own.
pub(crate) fn take(len: usize) -> Scratch {
    let mut lines = BUFFERS.with_borrow_mut(Vec::pop).unwrap_or_default();
    let needed = len.div_ceil(LANES);
    if lines.len() < needed {
        lines.resize(needed, Line([0.0; LANES]));
    }
    Scratch { lines, len }
}

impl Deref for Scratch {
    type Target = [f32];

    #[inline]
    fn deref(&self) -> &[f32] {
        // SAFETY: a `Line` is 16 f32 without padding, and `take` made sure of at least `len` of them.
        unsafe { slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Scratch {
    #[inline]
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`.
        unsafe { slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let lines = mem::take(&mut self.lines);
        BUFFERS.with_borrow_mut(|buffers| buffers.push(lines));
    }
}

/// Calls `body` with `len` f32 of this thread's scratch memory, aligned to 64 bytes. What they hold is unspecified.
///
/// The memory is kept for the thread's next call, so that a warm kernel allocates nothing. A call inside `body` gets
/// memory of its own, which is kept as well.
pub fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    body(&mut take(len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scratch_is_aligned_and_nests() {
        with_scratch(33, |outer| {
            assert_eq!(outer.as_ptr() as usize % 64, 0);
            assert_eq!(outer.len(), 33);
            outer.fill(1.0);
            with_scratch(100, |inner| inner.fill(2.0));
            assert!(outer.iter().all(|&v| v == 1.0));
        });
    }

    #[test]
    fn scratch_is_kept_for_the_next_call() {
        let first = with_scratch(1000, |s| s.as_ptr() as usize);
        assert_eq!(with_scratch(10, |s| s.as_ptr() as usize), first);
    }
}
