//! Reference-counted blocks of a fixed size.

use std::collections::{BTreeMap, VecDeque};

use vllm_platform::BlockId;

/// Hands out block ids and counts their holders.
///
/// A block that nobody holds is free, or *kept*: its content may be wanted again, so it is given out only when no free
/// block is left, the one released longest ago first. A block that was never used is touched only when no used one is
/// free, so that storage which is backed by memory on first touch stays as small as the load was.
///
/// ```
/// use vllm_cache::BlockPool;
///
/// let mut pool = BlockPool::new(2);
/// let first = pool.allocate().unwrap().block;
/// pool.share(first); // a second sequence reads it
/// pool.release(first, true);
/// pool.release(first, true); // nobody holds it now, and it is kept
/// assert_eq!((pool.in_use(), pool.kept(), pool.available()), (0, 1, 2));
///
/// let second = pool.allocate().unwrap();
/// assert!(second.block != first && !second.evicted);
/// let third = pool.allocate().unwrap();
/// assert!(third.block == first && third.evicted);
/// assert!(pool.allocate().is_none());
/// ```
#[derive(Debug)]
pub struct BlockPool {
    /// Holders of each block.
    holders: Vec<u32>,
    /// Used before and free now, longest free first.
    free: VecDeque<BlockId>,
    /// Kept blocks by the time of their release, and that time by block.
    kept: BTreeMap<u64, BlockId>,
    released: Vec<u64>,
    clock: u64,
    /// Blocks from here on were never used.
    untouched: usize,
}

/// A block with one holder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Allocated {
    /// The block.
    pub block: BlockId,
    /// It was kept: what it held is lost now.
    pub evicted: bool,
}

impl BlockPool {
    /// A pool of blocks `0..num_blocks`, all free.
    #[must_use]
    pub fn new(num_blocks: usize) -> Self {
        Self {
            holders: vec![0; num_blocks],
            free: VecDeque::new(),
            kept: BTreeMap::new(),
            released: vec![0; num_blocks],
            clock: 0,
            untouched: 0,
        }
    }

    /// Blocks in all.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.holders.len()
    }

    /// Blocks that nobody holds, kept ones too.
    #[must_use]
    pub fn available(&self) -> usize {
        self.free.len() + self.kept.len() + self.holders.len() - self.untouched
    }

    /// Blocks that somebody holds.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.capacity() - self.available()
    }

    /// Blocks that nobody holds and whose content may be wanted again.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.len()
    }

    /// Holders of `block`.
    ///
    /// # Panics
    /// If there is no such block.
    #[must_use]
    pub fn holders(&self, block: BlockId) -> u32 {
        self.holders[block as usize]
    }

    /// A block with one holder, or `None` if all are held.
    pub fn allocate(&mut self) -> Option<Allocated> {
        let (block, evicted) = if let Some(block) = self.free.pop_front() {
            (block, false)
        } else if self.untouched < self.holders.len() {
            self.untouched += 1;
            (self.untouched as BlockId - 1, false)
        } else {
            (self.kept.pop_first()?.1, true)
        };
        self.holders[block as usize] = 1;
        Some(Allocated { block, evicted })
    }

    /// Adds a holder to a block that has one or is kept.
    ///
    /// # Panics
    /// If `block` is free: its content may be gone already.
    pub fn share(&mut self, block: BlockId) {
        let index = block as usize;
        if self.holders[index] == 0 {
            let kept = self.kept.remove(&self.released[index]);
            assert_eq!(kept, Some(block), "block {block} is free and cannot be shared");
        }
        self.holders[index] += 1;
    }

    /// Takes one holder from a block. If it was the last, the block is kept or free from now on.
    ///
    /// # Panics
    /// If nobody holds `block`.
    pub fn release(&mut self, block: BlockId, keep: bool) {
        let index = block as usize;
        assert!(self.holders[index] > 0, "block {block} is released more often than it was taken");
        self.holders[index] -= 1;
        if self.holders[index] > 0 {
            return;
        }
        if keep {
            self.clock += 1;
            self.released[index] = self.clock;
            self.kept.insert(self.clock, block);
        } else {
            self.free.push_back(block);
        }
    }

    /// Frees a block if it is kept: its content is wanted no longer.
    ///
    /// # Panics
    /// If there is no such block.
    pub fn forget(&mut self, block: BlockId) {
        let stamp = self.released[block as usize];
        if self.holders[block as usize] == 0 && self.kept.get(&stamp) == Some(&block) {
            self.kept.remove(&stamp);
            self.free.push_back(block);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn take(pool: &mut BlockPool, count: usize) -> Vec<BlockId> {
        (0..count).map_while(|_| pool.allocate()).map(|allocated| allocated.block).collect()
    }

    #[test]
    fn longest_free_first_then_untouched_then_longest_kept() {
        let mut pool = BlockPool::new(5);
        assert_eq!(take(&mut pool, 4), [0, 1, 2, 3]);
        pool.release(3, true);
        pool.release(1, false);
        pool.release(0, false);
        pool.release(2, true);
        let order: Vec<_> = (0..5).filter_map(|_| pool.allocate()).map(|a| (a.block, a.evicted)).collect();
        assert_eq!(order, [(1, false), (0, false), (4, false), (3, true), (2, true)]);
        assert_eq!(pool.allocate(), None);
    }

    #[test]
    fn a_kept_block_can_be_shared_or_forgotten() {
        let mut pool = BlockPool::new(2);
        assert_eq!(take(&mut pool, 2), [0, 1]);
        pool.release(0, true);
        pool.release(1, true);
        pool.share(0);
        pool.forget(0);
        pool.forget(1);
        assert_eq!((pool.in_use(), pool.kept(), pool.available()), (1, 0, 1));
        assert_eq!(pool.allocate(), Some(Allocated { block: 1, evicted: false }));
    }

    #[test]
    #[should_panic(expected = "block 0 is released more often than it was taken")]
    fn double_release_is_caught() {
        let mut pool = BlockPool::new(1);
        take(&mut pool, 1);
        pool.release(0, true);
        pool.release(0, true);
    }

    #[test]
    #[should_panic(expected = "block 0 is free and cannot be shared")]
    fn sharing_a_free_block_is_caught() {
        BlockPool::new(1).share(0);
    }

    #[derive(Debug, Clone)]
    enum Action {
        Allocate,
        Share(prop::sample::Index),
        Release(prop::sample::Index, bool),
        Revive(prop::sample::Index),
        Forget(prop::sample::Index),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            3 => Just(Action::Allocate),
            1 => any::<prop::sample::Index>().prop_map(Action::Share),
            3 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, keep)| Action::Release(i, keep)),
            1 => any::<prop::sample::Index>().prop_map(Action::Revive),
            1 => any::<prop::sample::Index>().prop_map(Action::Forget),
        ]
    }

    proptest! {
        /// Against plain lists: no block is given twice, lost, or freed while held, and kept ones go oldest first.
        #[test]
        fn agrees_with_plain_lists(capacity in 0usize..12, actions in prop::collection::vec(action(), 0..300)) {
            let mut pool = BlockPool::new(capacity);
            let (mut holds, mut kept): (Vec<BlockId>, Vec<BlockId>) = (Vec::new(), Vec::new());
            for action in actions {
                match action {
                    Action::Allocate => {
                        let free = |b: &BlockId| !holds.contains(b) && !kept.contains(b);
                        let any_free = (0..capacity as BlockId).any(|b| free(&b));
                        match pool.allocate() {
                            None => prop_assert!(!any_free && kept.is_empty()),
                            Some(Allocated { block, evicted: false }) => {
                                prop_assert!(any_free && free(&block) && (block as usize) < capacity);
                                holds.push(block);
                            }
                            Some(Allocated { block, evicted: true }) => {
                                prop_assert!(!any_free);
                                prop_assert_eq!(block, kept.remove(0));
                                holds.push(block);
                            }
                        }
                    }
                    Action::Share(index) if !holds.is_empty() => {
                        let block = *index.get(&holds);
                        pool.share(block);
                        holds.push(block);
                    }
                    Action::Release(index, keep) if !holds.is_empty() => {
                        let block = holds.swap_remove(index.index(holds.len()));
                        pool.release(block, keep);
                        if keep && !holds.contains(&block) {
                            kept.push(block);
                        }
                    }
                    Action::Revive(index) if !kept.is_empty() => {
                        let block = kept.remove(index.index(kept.len()));
                        pool.share(block);
                        holds.push(block);
                    }
                    Action::Forget(index) if capacity > 0 => {
                        let block = index.index(capacity) as BlockId;
                        pool.forget(block);
                        kept.retain(|&b| b != block);
                    }
                    _ => {}
                }
                for block in 0..capacity as BlockId {
                    let held = holds.iter().filter(|&&b| b == block).count();
                    prop_assert_eq!(pool.holders(block) as usize, held);
                }
                let held = (0..capacity as BlockId).filter(|b| holds.contains(b)).count();
                prop_assert_eq!((pool.in_use(), pool.kept(), pool.available()), (held, kept.len(), capacity - held));
            }
        }
    }
}
