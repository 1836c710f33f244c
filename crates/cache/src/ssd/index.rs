//! What of our model is stored, and in which order it goes.

use std::collections::{BTreeSet, HashMap};

use crate::BlockHash;

/// Blocks by last use; blocks that continue one go before it.
#[derive(Debug, Default)]
pub(super) struct Index {
    slots: HashMap<BlockHash, Slot>,
    by_use: BTreeSet<(u64, BlockHash)>,
    /// Those stored that continue a block.
    children: HashMap<BlockHash, Vec<BlockHash>>,
    bytes: u64,
    /// The last time given out: no two uses are at one time.
    clock: u64,
}

/// One block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot {
    /// Bytes of its file.
    pub(super) size: u64,
    /// When it was last used, in nanoseconds since 1970.
    pub(super) used: u64,
    /// What its file says about that.
    pub(super) marked: u64,
    /// What its header said; `None`: not read yet.
    pub(super) known: Option<Known>,
}

/// What a block's header said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// The block it continues.
    pub(super) parent: BlockHash,
    /// Groups that are there.
    pub(super) groups: usize,
}

impl Index {
    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn get(&self, hash: BlockHash) -> Option<&Slot> {
        self.slots.get(&hash)
    }

    pub(super) fn hashes(&self) -> Vec<BlockHash> {
        self.slots.keys().copied().collect()
    }

    /// Puts a block in, in place of what was there under its name.
    pub(super) fn insert(&mut self, hash: BlockHash, slot: Slot) {
        self.remove(hash);
        self.bytes += slot.size;
        self.by_use.insert((slot.used, hash));
        self.slots.insert(hash, Slot { known: None, ..slot });
        if let Some(known) = slot.known {
            self.learn(hash, known);
        }
    }

    /// Writes down what a block's header said, if the block is there and nothing is known yet.
    pub(super) fn learn(&mut self, hash: BlockHash, known: Known) {
        if let Some(slot) = self.slots.get_mut(&hash).filter(|slot| slot.known.is_none()) {
            slot.known = Some(known);
            self.children.entry(known.parent).or_default().push(hash);
        }
    }

    pub(super) fn remove(&mut self, hash: BlockHash) -> Option<Slot> {
        let slot = self.slots.remove(&hash)?;
        self.bytes -= slot.size;
        self.by_use.remove(&(slot.used, hash));
        if let Some(Known { parent, .. }) = slot.known
            && let Some(siblings) = self.children.get_mut(&parent)
        {
            siblings.retain(|sibling| *sibling != hash);
            if siblings.is_empty() {
                self.children.remove(&parent);
            }
        }
        Some(slot)
    }

    /// A time for a use at `now`, later than all before.
    pub(super) fn tick(&mut self, now: u64) -> u64 {
        self.clock = now.max(self.clock + 1);
        self.clock
    }

    /// Counts a use at `now`. If the file's mark is older than `stale`, it is taken to be renewed, and this is true.
    pub(super) fn touch(&mut self, hash: BlockHash, now: u64, stale: u64) -> bool {
        let used = self.tick(now);
        let Some(slot) = self.slots.get_mut(&hash) else { return false };
        self.by_use.remove(&(slot.used, hash));
        self.by_use.insert((used, hash));
        slot.used = used;
        let mark = used.saturating_sub(slot.marked) > stale;
        if mark {
            slot.marked = used;
        }
        mark
    }

    /// When the block unused for the longest time was used.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.by_use.first().map(|(used, _)| *used)
    }

    /// The block to go next: the one unused for the longest time or, if others continue it, the oldest of these, and
    /// so on to one that none continues.
    pub(super) fn victim(&self) -> Option<BlockHash> {
        let (_, mut victim) = *self.by_use.first()?;
        while let Some(children) = self.children.get(&victim) {
            let used = |child: &&BlockHash| self.slots.get(child).map(|slot| slot.used);
            victim = *children.iter().min_by_key(used)?;
        }
        Some(victim)
    }
}

#[cfg(test)]
mod tests;
