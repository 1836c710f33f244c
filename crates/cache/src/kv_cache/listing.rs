//! Which blocks others know of, and what has changed since they were last told.

use std::collections::{HashMap, HashSet};

use super::KvCache;
use crate::{BlockHash, KvEvent, KvTier, StoredBlock, index::Node};

/// Most blocks of one [`KvEvent::Stored`], so that whoever passes events on in messages of limited size need not split them.
const BLOCKS_PER_EVENT: usize = 256;

/// Full blocks in memory as a tree. Kept only while somebody listens.
#[derive(Debug, Default)]
pub(super) struct Listing {
    entries: HashMap<BlockHash, Entry>,
    /// By parent, which need not be there itself.
    children: HashMap<BlockHash, HashSet<BlockHash>>,
    /// All was forgotten since others were last told.
    cleared: bool,
}

#[derive(Debug)]
struct Entry {
    parent: BlockHash,
    /// Whether sequences begin with it.
    first: bool,
    /// Whether others know of it: it and all before it are there.
    told: bool,
}

impl Listing {
    /// A block is in memory no longer. Those are added to `removed` that others have to forget, children before parents.
    fn lose(&mut self, hash: BlockHash, removed: &mut Vec<BlockHash>) {
        let Some(entry) = self.entries.remove(&hash) else { return };
        if let Some(siblings) = self.children.get_mut(&entry.parent) {
            siblings.remove(&hash);
            if siblings.is_empty() {
                self.children.remove(&entry.parent);
            }
        }
        if !entry.told {
            return;
        }
        let start = removed.len();
        let mut stack = vec![hash];
        while let Some(hash) = stack.pop() {
            removed.push(hash);
            for child in self.children.get(&hash).into_iter().flatten() {
                if let Some(entry) = self.entries.get_mut(child).filter(|entry| entry.told) {
                    entry.told = false;
                    stack.push(*child);
                }
            }
        }
        removed[start..].reverse();
    }

    /// A block is in memory. Those are added to `stored` that others have to be told of, parents before children.
    fn gain(&mut self, hash: BlockHash, parent: BlockHash, first: bool, stored: &mut Vec<BlockHash>) {
        if self.entries.contains_key(&hash) {
            return;
        }
        self.entries.insert(hash, Entry { parent, first, told: false });
        self.children.entry(parent).or_default().insert(hash);
        if !first && !self.entries.get(&parent).is_some_and(|entry| entry.told) {
            return;
        }
        let mut stack = vec![hash];
        while let Some(hash) = stack.pop() {
            if let Some(entry) = self.entries.get_mut(&hash).filter(|entry| !entry.told) {
                entry.told = true;
                stored.push(hash);
                stack.extend(self.children.get(&hash).into_iter().flatten());
            }
        }
    }

    fn clear(&mut self) {
        *self = Self { cleared: true, ..Self::default() };
    }

    /// All that others know of, parents before children.
    fn told(&self) -> Vec<BlockHash> {
        let firsts = self.entries.iter().filter(|(_, entry)| entry.first);
        let mut stack: Vec<BlockHash> = firsts.map(|(hash, _)| *hash).collect();
        let mut told = Vec::with_capacity(self.entries.len());
        while let Some(hash) = stack.pop() {
            told.push(hash);
            stack.extend(self.children.get(&hash).into_iter().flatten());
        }
        told
    }
}

impl KvCache {
    /// From now on changes are written down for [`take_events`](Self::take_events); what is there already is in the next
    /// [`snapshot`](Self::snapshot), not among the events.
    pub fn listen(&mut self) {
        if self.listing.is_none() {
            self.listing = Some(Listing::default());
            self.index.note_all();
            self.take_events();
        }
    }

    /// Changes are written down no longer, which costs nothing.
    pub fn stop_listening(&mut self) {
        self.listing = None;
        self.index.stop_noting();
    }

    /// Whether changes are written down.
    #[must_use]
    pub fn is_listening(&self) -> bool {
        self.listing.is_some()
    }

    /// What has changed since the last call: in this order, that all was forgotten, what is gone, what has come. What came
    /// and went in between is left out.
    pub fn take_events(&mut self) -> Vec<KvEvent> {
        let Some(mut listing) = self.listing.take() else { return Vec::new() };
        let changed = self.index.take_noted();
        let (mut removed, mut stored) = (Vec::new(), Vec::new());
        // First all that is gone, so that nothing is told to come and then to go.
        for &hash in changed.iter().filter(|hash| self.listed(hash).is_none()) {
            listing.lose(hash, &mut removed);
        }
        for (hash, node) in changed.iter().filter_map(|hash| Some((*hash, self.listed(hash)?))) {
            listing.gain(hash, node.parent, node.is_first(), &mut stored);
        }
        let mut events = Vec::new();
        if std::mem::take(&mut listing.cleared) {
            events.push(KvEvent::Cleared);
        }
        if !removed.is_empty() {
            let hashes = removed.iter().map(BlockHash::short).collect();
            events.push(KvEvent::Removed { hashes, tier: KvTier::Device });
        }
        self.tell_stored(&stored, &mut events);
        self.listing = Some(listing);
        events
    }

    /// All blocks that others know of as of the last [`take_events`](Self::take_events), parents before children, after a
    /// [`KvEvent::Cleared`]. Of a cache that isn't listened to: nothing but that.
    ///
    /// # Panics
    /// If something has changed since.
    #[must_use]
    pub fn snapshot(&self) -> Vec<KvEvent> {
        assert!(!self.index.has_noted(), "a snapshot was asked for before the events up to it were taken");
        let mut events = vec![KvEvent::Cleared];
        if let Some(listing) = &self.listing {
            self.tell_stored(&listing.told(), &mut events);
        }
        events
    }

    /// Says that all was forgotten.
    pub(super) fn note_clear(&mut self) {
        if let Some(listing) = &mut self.listing {
            listing.clear();
            self.index.take_noted();
        }
    }

    /// The node of a block that others may be told of: a full one in memory, of which it is known what it begins with.
    fn listed(&self, hash: &BlockHash) -> Option<&Node> {
        let there = |node: &&Node| node.blocks.iter().any(Option::is_some) && self.is_resident(hash);
        self.index.get(hash).filter(|node| node.tokens.len() == self.block_size && node.root.is_some()).filter(there)
    }

    /// Puts blocks that follow each other in `hashes` together.
    fn tell_stored(&self, hashes: &[BlockHash], events: &mut Vec<KvEvent>) {
        let mut last = None;
        for hash in hashes {
            let Some(node) = self.index.get(hash) else { continue };
            let block = StoredBlock { hash: hash.short(), tokens: node.tokens.clone(), media: node.media.to_vec() };
            match events.last_mut() {
                Some(KvEvent::Stored { blocks, .. })
                    if last == Some(node.parent) && blocks.len() < BLOCKS_PER_EVENT =>
                {
                    blocks.push(block);
                }
                _ => events.push(KvEvent::Stored {
                    blocks: vec![block],
                    parent: (!node.is_first()).then(|| node.parent.short()),
                    salt: node.root.as_ref().and_then(|root| root.salt.clone()),
                    tier: KvTier::Device,
                }),
            }
            last = Some(*hash);
        }
    }
}
