//! Reference-counted blocks of a fixed size.

use std::collections::VecDeque;

use vllm_platform::BlockId;

/// Hands out block ids and counts their holders.
///
/// Blocks freed longest ago are reused first; a block that was never used is touched only when no freed one is
/// left, so that storage which is backed by memory on first touch stays as small as the load was.
///
/// ```
/// use vllm_cache::BlockPool;
///
/// let mut pool = BlockPool::new(8);
/// let table = pool.allocate(3).unwrap();
/// pool.share(table[0]); // a second sequence reads the first block
/// for block in &table {
///     pool.release(*block);
/// }
/// assert_eq!(pool.available(), 7);
/// pool.release(table[0]);
/// assert_eq!(pool.available(), 8);
/// assert!(pool.allocate(9).is_none());
/// ```
#[derive(Debug)]
pub struct BlockPool {
    /// Holders of each block.
    holders: Vec<u32>,
    /// Used before and free now, longest free first.
    free: VecDeque<BlockId>,
    /// Blocks from here on were never used.
    untouched: usize,
}

impl BlockPool {
    /// A pool of blocks `0..num_blocks`, all free.
    #[must_use]
    pub fn new(num_blocks: usize) -> Self {
        Self { holders: vec![0; num_blocks], free: VecDeque::new(), untouched: 0 }
    }

    /// Blocks in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len() + self.holders.len() - self.untouched
    }

    /// Blocks that somebody holds.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.capacity() - self.available()
    }

    /// Holders of `block`.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn holders(&self, block: BlockId) -> u32 {
        self.holders[block as usize]
    }

    /// `count` blocks with one holder each, or `None`, and nothing changes, if fewer are free.
    pub fn allocate(&mut self, count: usize) -> Option<Vec<BlockId>> {
        if count > self.available() {
            return None;
        }
        let reused = count.min(self.free.len());
        let mut blocks: Vec<BlockId> = self.free.drain(..reused).collect();
        let fresh = self.untouched..self.untouched + count - reused;
        self.untouched = fresh.end;
        blocks.extend(fresh.map(|block| block as BlockId));
        for &block in &blocks {
            self.holders[block as usize] = 1;
        }
        Some(blocks)
    }

    /// Adds a holder to a block that has one.
    ///
    /// # Panics
    /// If nobody holds `block`: its content may be gone already.
    pub fn share(&mut self, block: BlockId) {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} is free and cannot be shared");
        *holders += 1;
    }

    /// Takes one holder from a block; returns whether it was the last, and the block is free now.
    ///
    /// # Panics
    /// If nobody holds `block`.
    pub fn release(&mut self, block: BlockId) -> bool {
        let holders = &mut self.holders[block as usize];
        assert!(*holders > 0, "block {block} is released more often than it was taken");
        *holders -= 1;
        let last = *holders == 0;
        if last {
            self.free.push_back(block);
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn longest_free_first_and_untouched_last() {
        let mut pool = BlockPool::new(4);
        assert_eq!(pool.allocate(2), Some(vec![0, 1]));
        pool.release(1);
        pool.release(0);
        assert_eq!(pool.allocate(3), Some(vec![1, 0, 2]));
        assert_eq!(pool.allocate(2), None);
        assert_eq!(pool.allocate(1), Some(vec![3]));
        assert_eq!(pool.in_use(), 4);
    }

    #[test]
    #[should_panic(expected = "block 0 is released more often than it was taken")]
    fn double_release_is_caught() {
        let mut pool = BlockPool::new(1);
        let table = pool.allocate(1).unwrap();
        pool.release(table[0]);
        pool.release(table[0]);
    }

    #[test]
    #[should_panic(expected = "block 0 is free and cannot be shared")]
    fn sharing_a_free_block_is_caught() {
        BlockPool::new(1).share(0);
    }

    #[derive(Debug, Clone)]
    enum Action {
        Allocate(usize),
        Share(prop::sample::Index),
        Release(prop::sample::Index),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            (0usize..6).prop_map(Action::Allocate),
            any::<prop::sample::Index>().prop_map(Action::Share),
            any::<prop::sample::Index>().prop_map(Action::Release),
        ]
    }

    proptest! {
        /// Against a plain list of holds: no block is given twice, lost, or freed while held.
        #[test]
        fn agrees_with_a_list_of_holds(capacity in 0usize..20, actions in prop::collection::vec(action(), 0..200)) {
            let mut pool = BlockPool::new(capacity);
            let mut holds: Vec<BlockId> = Vec::new();
            for action in actions {
                match action {
                    Action::Allocate(count) => {
                        let free = (0..capacity as BlockId).filter(|b| !holds.contains(b)).count();
                        let got = pool.allocate(count);
                        prop_assert_eq!(got.is_some(), count <= free);
                        for block in got.into_iter().flatten() {
                            prop_assert!((block as usize) < capacity);
                            prop_assert!(!holds.contains(&block), "{} given twice", block);
                            holds.push(block);
                        }
                    }
                    Action::Share(index) if !holds.is_empty() => {
                        let block = *index.get(&holds);
                        pool.share(block);
                        holds.push(block);
                    }
                    Action::Release(index) if !holds.is_empty() => {
                        let block = holds.swap_remove(index.index(holds.len()));
                        prop_assert_eq!(pool.release(block), !holds.contains(&block));
                    }
                    _ => {}
                }
                for block in 0..capacity as BlockId {
                    let held = holds.iter().filter(|&&b| b == block).count();
                    prop_assert_eq!(pool.holders(block) as usize, held);
                }
                let free = (0..capacity as BlockId).filter(|b| !holds.contains(b)).count();
                prop_assert_eq!(pool.available(), free);
                prop_assert_eq!(pool.in_use() + pool.available(), capacity);
            }
        }
    }
}
