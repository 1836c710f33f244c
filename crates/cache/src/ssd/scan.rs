//! What an earlier run left: all headers, read piece by piece between other work.

use std::collections::{HashMap, HashSet, VecDeque};

use super::entry::SsdFound;
use crate::BlockHash;

/// Files looked at in one piece.
pub(super) const PIECE: usize = 256;

/// The files not looked at yet.
#[derive(Debug)]
pub(super) struct Scan {
    files: VecDeque<BlockHash>,
    order: ParentsFirst,
}

impl Scan {
    /// A scan of the files of these blocks, in this order.
    pub(super) fn new(files: Vec<BlockHash>) -> Self {
        let order = ParentsFirst { expected: files.iter().copied().collect(), waiting: HashMap::new() };
        Self { files: files.into(), order }
    }

    /// The next file.
    pub(super) fn next(&mut self) -> Option<BlockHash> {
        self.files.pop_front()
    }

    /// The file's header was good: what can be told of now.
    pub(super) fn good(&mut self, found: SsdFound, told: &mut Vec<SsdFound>) {
        self.order.add(found, told);
    }

    /// There is nothing to tell of the file: those that waited for it can be told of.
    pub(super) fn without(&mut self, hash: BlockHash, told: &mut Vec<SsdFound>) {
        self.order.release(hash, told);
    }
}

/// Brings blocks into an order in which none stands before its parent.
#[derive(Debug)]
struct ParentsFirst {
    /// Those not told of yet.
    expected: HashSet<BlockHash>,
    /// Found, but their parent, the key, is still expected.
    waiting: HashMap<BlockHash, Vec<SsdFound>>,
}

impl ParentsFirst {
    fn add(&mut self, found: SsdFound, told: &mut Vec<SsdFound>) {
        if self.expected.contains(&found.entry.parent) {
            self.waiting.entry(found.entry.parent).or_default().push(found);
            return;
        }
        let hash = found.entry.hash;
        told.push(found);
        self.release(hash, told);
    }

    fn release(&mut self, hash: BlockHash, told: &mut Vec<SsdFound>) {
        // A loop, for chains are as long as the longest context.
        let mut done = vec![hash];
        while let Some(hash) = done.pop() {
            self.expected.remove(&hash);
            for found in self.waiting.remove(&hash).into_iter().flatten() {
                done.push(found.entry.hash);
                told.push(found);
            }
        }
    }
}

#[cfg(test)]
mod tests;
