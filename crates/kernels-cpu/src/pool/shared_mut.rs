//! A mutable slice whose disjoint parts go to different tasks.

use std::{marker::PhantomData, ops::Range};

/// A slice that the tasks of one [`Pool::run`](crate::Pool::run) share, each writing its own part of it.
#[derive(Clone, Copy)]
pub struct SharedMut<'a, T> {
    start: *mut T,
    len: usize,
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it is a mutable borrow of `[T]` whose parts may go to other threads, which `T: Send` allows; that the parts
// do not overlap is what the caller of `slice` promises.
unsafe impl<T: Send> Sync for SharedMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for SharedMut<'_, T> {}

impl<'a, T> SharedMut<'a, T> {
    /// Lends `items` to the tasks of a job.
    pub fn new(items: &'a mut [T]) -> Self {
        Self { start: items.as_mut_ptr(), len: items.len(), borrow: PhantomData }
    }

    /// How many items there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first item, for kernels that write scattered parts. Writing through it has [`SharedMut::slice`]'s condition.
    pub(crate) fn as_ptr(&self) -> *mut T {
        self.start
    }

    /// The items of `range`.
    ///
    /// # Panics
    /// If `range` is not within the slice.
    ///
    /// # Safety
    /// While the result is alive no other slice that overlaps `range` may be, on any thread.
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.len, "{range:?} of {} items", self.len);
        // SAFETY: within the borrowed slice, and disjoint from all other slices by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}
