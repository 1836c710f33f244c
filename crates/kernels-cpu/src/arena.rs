//! Memory for weights: many matrices to a few large mappings of huge pages.

use std::sync::{Arc, Mutex, PoisonError};

use memmap2::MmapMut;

/// Bytes that are mapped at a time, unless a matrix wants more. What is not written to takes no memory.
const CHUNK: usize = 32 << 20;
/// A huge page of x86-64, and of Arm with pages of 4 KiB.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes of a cache line: where blocks start.
const LINE: usize = 64;

/// Lends blocks of zeroed memory, one behind the other, out of large mappings in huge pages.
///
/// A matrix of a small model takes a fraction of a huge page (2 MiB), so that matrices share them. A mapping is given back
/// to the system when the arena and all of its blocks are dropped; no memory is ever used twice.
#[derive(Default)]
pub struct WeightArena {
    current: Mutex<Option<Free>>,
}

/// What is left of a mapping.
struct Free {
    chunk: Arc<Chunk>,
    /// Bytes from the chunk's start.
    next: usize,
}

struct Chunk {
    start: *mut u8,
    len: usize,
    /// Unmapped on drop; touched through `start` only.
    _pages: MmapMut,
}

// SAFETY: the mapping belongs to the chunk and may be used and unmapped from any thread; its bytes are reached through blocks
// alone, which don't overlap.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

impl Chunk {
    fn new(bytes: usize) -> Option<Self> {
        let mut pages = MmapMut::map_anon(bytes.checked_add(HUGE_PAGE)?).ok()?;
        // Systems that have no huge pages do without.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::HugePage);
        let lead = pages.as_ptr().align_offset(HUGE_PAGE);
        let start = pages.as_mut_ptr().wrapping_add(lead);
        Some(Self { start, len: pages.len() - lead, _pages: pages })
    }
}

/// Words of an arena's memory, aligned to a cache line; zeros at first.
pub(crate) struct Block {
    chunk: Arc<Chunk>,
    start: usize,
    words: usize,
}

impl WeightArena {
    /// An arena that has taken no memory yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A block of `words` zeros, or `None` if the system has no such memory to promise.
    pub(crate) fn take(&self, words: usize) -> Option<Block> {
        let bytes = words.checked_mul(4)?.checked_next_multiple_of(LINE)?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|free| free.chunk.len - free.next < bytes) {
            *current = Some(Free { chunk: Arc::new(Chunk::new(bytes.max(CHUNK))?), next: 0 });
        }
        let free = current.as_mut()?;
        let block = Block { chunk: Arc::clone(&free.chunk), start: free.next, words };
        free.next += bytes;
        Some(block)
    }
}

impl Block {
    pub(crate) fn words(&self) -> &[u32] {
        // SAFETY: `take` saw that the words lie in the chunk, which this block keeps alive; only this block reaches them, and
        // writing asks for it exclusively. Any bytes are words.
        unsafe { std::slice::from_raw_parts(self.chunk.start.add(self.start).cast(), self.words) }
    }

    pub(crate) fn words_mut(&mut self) -> &mut [u32] {
        // SAFETY: as in `words`.
        unsafe { std::slice::from_raw_parts_mut(self.chunk.start.add(self.start).cast(), self.words) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zeros_aligned_and_apart() {
        let arena = WeightArena::new();
        let mut blocks: Vec<Block> = [1, 17, 100_000, 0, 9 << 20].map(|words| arena.take(words).unwrap()).into();
        for (i, block) in blocks.iter_mut().enumerate() {
            assert_eq!(block.words().as_ptr() as usize % LINE, 0);
            assert!(block.words().iter().all(|&word| word == 0), "block {i}");
            block.words_mut().fill(i as u32 + 1);
        }
        drop(arena);
        for (i, block) in blocks.iter().enumerate() {
            assert!(block.words().iter().all(|&word| word == i as u32 + 1), "block {i} outlives the arena");
        }
    }

    #[test]
    fn small_blocks_share_a_mapping_which_goes_with_the_last() {
        let arena = WeightArena::new();
        let (a, b) = (arena.take(1000).unwrap(), arena.take(1000).unwrap());
        let chunk = Arc::downgrade(&a.chunk);
        assert_eq!(b.words().as_ptr() as usize - a.words().as_ptr() as usize, 4032);
        drop((arena, a));
        assert!(chunk.upgrade().is_some());
        drop(b);
        assert!(chunk.upgrade().is_none());
    }
}
