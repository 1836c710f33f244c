//! One reusable buffer a thread, so that kernels allocate nothing once warm.

use std::cell::Cell;

/// A cache line: the alignment of scratch memory, and the widest vector.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LANES]);

const LANES: usize = 16;

thread_local! {
    static BUFFER: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `body` with `len` f32 of this thread's scratch memory, aligned to 64 bytes. What they hold is unspecified.
///
/// The memory is kept for the thread's next call, so that a warm kernel allocates nothing. A call inside `body`
/// is correct but allocates.
pub fn with_scratch<R>(len: usize, body: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut lines = BUFFER.take();
    let needed = len.div_ceil(LANES);
    if lines.len() < needed {
        lines.resize(needed, Line([0.0; LANES]));
    }
    // SAFETY: a `Line` is 16 f32 without padding, and at least `len.div_ceil(16)` of them are initialised; the
    // slice borrows `lines`, which outlives it.
    let slice = unsafe { std::slice::from_raw_parts_mut(lines.as_mut_ptr().cast::<f32>(), len) };
    let result = body(slice);
    BUFFER.set(lines);
    result
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
