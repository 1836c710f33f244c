//! What the tier below memory needs of the books.

use std::sync::Arc;

use vllm_platform::{BlockId, TokenId};

use super::{Hit, KvCache, Prefix};
use crate::{
    BlockHash, BlockPool, MediaMark, SsdEntry,
    index::{Content, Names},
};

/// A prefix that is in memory only.
#[derive(Debug, Clone, Copy)]
pub struct Unwritten<'a> {
    /// The prefix before its last block.
    pub parent: BlockHash,
    /// Tokens of its last block.
    pub tokens: &'a [TokenId],
    /// What of them stands for media, from the block's start on.
    pub media: &'a [MediaMark],
    /// By group: where their KV is.
    pub blocks: &'a [Option<BlockId>],
}

impl KvCache {
    /// What was indexed since the last call and is not on the SSD, oldest first.
    pub fn take_new(&mut self) -> Vec<BlockHash> {
        std::mem::take(&mut self.new)
    }

    /// An indexed prefix that is not on the SSD and has a block in memory in at least one group. A block that a sequence
    /// may still add to is left for later.
    #[must_use]
    pub fn unwritten(&self, hash: &BlockHash) -> Option<Unwritten<'_>> {
        let node = self.index.get(hash).filter(|node| !node.on_ssd && node.blocks.iter().any(Option::is_some))?;
        let held = |(pool, block): (&BlockPool, &Option<BlockId>)| block.is_some_and(|block| pool.holders(block) > 0);
        let grows = node.tokens.len() < self.block_size && self.pools.iter().zip(&node.blocks).any(held);
        // Whoever reads it back knows nothing of what its storage had forgotten beyond the usual.
        let usual = node.floor <= self.own_floor(node.tokens.len());
        (usual && !grows).then_some(Unwritten {
            parent: node.parent,
            tokens: &node.tokens,
            media: &node.media,
            blocks: &node.blocks,
        })
    }

    /// Tokens of an indexed prefix's last block.
    #[must_use]
    pub fn tokens_of(&self, hash: &BlockHash) -> Option<usize> {
        self.index.get(hash).map(|node| node.tokens.len())
    }

    /// Says that the SSD holds a block. Its hash is trusted to be that of its content.
    pub fn found_on_ssd(&mut self, SsdEntry { hash, parent, tokens, media }: &SsdEntry) {
        if self.enabled && !tokens.is_empty() {
            let floor = self.own_floor(tokens.len());
            let names = Names { hash: *hash, parent: *parent, root: None };
            let node = self.index.insert(names, Content { tokens, media });
            node.on_ssd = true;
            node.floor = node.floor.max(floor);
        }
    }

    /// Says whether the SSD holds an indexed prefix.
    pub fn set_on_ssd(&mut self, hash: BlockHash, on_ssd: bool) {
        if let Some(node) = self.index.get_mut(&hash) {
            node.on_ssd = on_ssd;
            self.index.drop_if_gone(hash);
        }
    }

    /// Prefixes of `tokens` that only the SSD has, in order: reading them makes [`find`](Self::find) find more. From then on
    /// it is known what they begin with.
    #[must_use]
    pub fn only_on_ssd(&mut self, prefix: &Prefix, tokens: &[TokenId]) -> Vec<BlockHash> {
        let limit = tokens.len().saturating_sub(1);
        let mut wanted = Vec::new();
        let mut blocks = 0;
        for hash in prefix.hashes.iter().take(limit / self.block_size) {
            match self.index.get(hash) {
                Some(node) if self.holds_all(node) => {}
                Some(node) if node.on_ssd => wanted.push(*hash),
                // Windowed layers may do without it: whether they do is seen when all is read.
                Some(_) if self.is_resident(hash) => {}
                _ => break,
            }
            blocks += 1;
        }
        let (start, end) = (blocks * self.block_size, limit.min((blocks + 1) * self.block_size));
        let marks = prefix.media_within(start, end);
        let rest = Content { tokens: &tokens[start..end], media: &marks };
        let best = self.index.longest_match(prefix.before(blocks), rest, |node, shared| {
            Self::can_cut(node, shared) && (node.on_ssd || self.holds_all(node))
        });
        let in_memory = |hash: &BlockHash| self.index.get(hash).is_none_or(|node| self.holds_all(node));
        wanted.extend(best.map(|(hash, _)| hash).filter(|hash| !in_memory(hash)));
        for hash in &wanted {
            if let Some(node) = self.index.get_mut(hash) {
                node.root = Some(Arc::clone(&prefix.root));
            }
        }
        wanted
    }

    /// Blocks for an indexed prefix that is being read from the SSD, for those of `groups` that it has in memory
    /// nowhere; `None` if there is no room. They have one holder until [`loaded`](Self::loaded).
    pub fn make_room(&mut self, hash: &BlockHash, groups: &[bool]) -> Option<Vec<(usize, BlockId)>> {
        let missing: Vec<usize> = {
            let node = self.index.get(hash)?;
            (0..groups.len()).filter(|&group| groups[group] && node.blocks[group].is_none()).collect()
        };
        let mut room = Vec::new();
        for group in missing {
            match self.allocate(group) {
                Some(block) => room.push((group, block)),
                None => {
                    room.into_iter().for_each(|(group, block)| self.release(group, block));
                    return None;
                }
            }
        }
        Some(room)
    }

    /// Indexes the blocks that [`make_room`](Self::make_room) gave, now that they are filled, and releases them.
    pub fn loaded(&mut self, hash: BlockHash, room: &[(usize, BlockId)]) {
        for &(group, block) in room {
            self.index.attach(group, block, hash);
            if let Some(node) = self.index.get_mut(&hash) {
                node.from_ssd = true;
            }
            self.release(group, block);
        }
    }

    /// The prefixes of a hit that the SSD has too: they have been used.
    pub fn on_ssd_of<'a>(&'a self, hit: &'a Hit) -> impl Iterator<Item = BlockHash> + 'a {
        let hashes = hit.blocks.iter().chain(hit.partial.iter().map(|(hash, _)| hash));
        hashes.copied().filter(|hash| self.index.get(hash).is_some_and(|node| node.on_ssd))
    }
}
