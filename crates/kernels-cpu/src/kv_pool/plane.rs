//! Memory of a pool.

use std::marker::PhantomData;

use memmap2::MmapMut;

use super::number::KvNumber;

/// Zero pages of the system's, which take no memory until they are written to. (The allocator's zeroed memory would
/// not do: it may come out of a heap that has been used, and is then cleared by writing to all of it.)
pub(super) struct Plane<T> {
    pages: MmapMut,
    len: usize,
    element: PhantomData<T>,
}

impl<T: KvNumber> Plane<T> {
    /// `len` zeros; `None` if the system refuses.
    pub fn new(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        // A mapping of nothing is refused.
        let pages = MmapMut::map_anon(bytes.max(1)).ok()?;
        Some(Self { pages, len, element: PhantomData })
    }

    pub fn get(&self) -> &[T] {
        // SAFETY: `len` elements fit the mapping, pages are aligned for any number, and zeros and whatever was written
        // as `T` are values of a number type.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }

    pub fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the mapping is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.len) }
    }
}
