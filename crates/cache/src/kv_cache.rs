//! The blocks of all groups and the prefixes they hold.

#[cfg(test)]
mod event_tests;
mod listing;
#[cfg(test)]
mod media_tests;
#[cfg(test)]
mod tests;
mod tier;

use std::sync::Arc;

use vllm_platform::{BlockCopy, BlockId, KvCacheSpec, KvGroup, NO_BLOCK, TokenId};

use self::listing::Listing;
pub use self::tier::Unwritten;
use crate::{
    Allocated, BlockHash, BlockPool, MediaMark,
    index::{Content, Names, Node, PrefixIndex, Root},
    media,
};

/// A sequence's block tables, one for each group.
pub type BlockTables = Vec<Vec<BlockId>>;

/// The names of a sequence's prefixes at block boundaries. Grows with the sequence.
#[derive(Debug, Clone)]
pub struct Prefix {
    root: Arc<Root>,
    /// What of the sequence stands for media.
    media: Vec<MediaMark>,
    /// Of the prefix that ends with block `i`.
    hashes: Vec<BlockHash>,
}

impl Prefix {
    /// Of a sequence that shares with those of the same salt only.
    #[must_use]
    pub fn new(salt: Option<&str>) -> Self {
        Self::with_media(salt, [])
    }

    /// [`new`](Self::new) of a sequence in which media stand, in order.
    #[must_use]
    pub fn with_media(salt: Option<&str>, marks: impl IntoIterator<Item = MediaMark>) -> Self {
        let root = Arc::new(Root { hash: BlockHash::root(salt), salt: salt.map(Arc::from) });
        Self { root, media: media::put_together(marks), hashes: Vec::new() }
    }

    /// Names the blocks that `tokens`, the sequence from its start, fill by now.
    pub fn extend(&mut self, tokens: &[TokenId], block_size: usize) {
        for place in self.hashes.len()..tokens.len() / block_size {
            let (start, end) = (place * block_size, (place + 1) * block_size);
            let marks = self.media_within(start, end);
            self.hashes.push(self.before(place).extend_with_media(&tokens[start..end], &marks));
        }
    }

    /// Whether the two may share anything.
    #[must_use]
    pub fn same_salt(&self, other: &Self) -> bool {
        self.root.hash == other.root.hash
    }

    /// Tokens that two sequences with these prefixes begin with alike, standing for the same; salts are not looked at.
    #[must_use]
    pub fn common(&self, tokens: &[TokenId], other: &Self, others: &[TokenId]) -> usize {
        let other = Content { tokens: others, media: &other.media };
        Content { tokens, media: &self.media }.common_prefix(&other)
    }

    /// What of the tokens `start..end` stands for media, counted from `start`.
    fn media_within(&self, start: usize, end: usize) -> Vec<MediaMark> {
        media::within(&self.media, start, end)
    }

    /// The prefix that ends where block `index` begins.
    fn before(&self, index: usize) -> BlockHash {
        index.checked_sub(1).map_or(self.root.hash, |last| self.hashes[last])
    }
}

/// What [`KvCache::find`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hit {
    /// Tokens whose KV need not be computed.
    pub tokens: usize,
    /// Of these, tokens that were read back from the SSD.
    pub ssd_tokens: usize,
    /// Whole blocks, to be shared.
    blocks: Vec<BlockHash>,
    /// A block of which this many tokens are to be copied.
    partial: Option<(BlockHash, usize)>,
}

/// What a sequence starts with after a hit.
#[derive(Debug)]
pub struct Adopted {
    /// Its tables: they hold exactly the hit's tokens.
    pub tables: BlockTables,
    /// The fewest tokens that the sequence can be cut back to: what it was copied from had forgotten the rest.
    pub floor: usize,
    /// What has to be copied before it is computed. The caller holds the blocks copied *from* and releases them
    /// afterwards, with [`KvCache::release`].
    pub copies: Vec<BlockCopy>,
}

/// What the cache holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KvCacheStats {
    /// Blocks in memory that hold a known prefix.
    pub indexed_blocks: usize,
    /// Blocks whose prefix was forgotten to make room.
    pub evictions: u64,
}

/// The books on all KV blocks: who holds which, and what is in those that nobody holds any more.
///
/// A block whose tokens are known is *indexed*: it can be found by the prefix that ends with it. Full blocks are shared
/// by all sequences that begin alike, and nobody writes to them again; what follows the last full block is copied, so
/// that every sequence writes to blocks of its own only. Blocks that nobody holds stay indexed until their room is
/// needed, and go least recently used first. A sequence releases its last block first, so that a prefix never outlives
/// what it is a prefix of.
///
/// Method after vLLM's v1 block manager and its groups for hybrid models; partial blocks as in SGLang's RadixAttention
/// (Zheng et al., arXiv:2312.07104).
#[derive(Debug)]
pub struct KvCache {
    block_size: usize,
    rewind: Option<usize>,
    groups: Vec<KvGroup>,
    pools: Vec<BlockPool>,
    index: PrefixIndex,
    enabled: bool,
    evictions: u64,
    /// Indexed since [`KvCache::take_new`] was last called.
    new: Vec<BlockHash>,
    /// If somebody listens: what they know.
    listing: Option<Listing>,
}

impl KvCache {
    /// All blocks free. If not `enabled`, nothing is ever indexed.
    #[must_use]
    pub fn new(spec: &KvCacheSpec, enabled: bool) -> Self {
        Self {
            block_size: spec.block_size,
            rewind: spec.rewind,
            groups: spec.groups.clone(),
            pools: spec.groups.iter().map(|group| BlockPool::new(group.num_blocks)).collect(),
            index: PrefixIndex::new(spec.groups.len()),
            enabled,
            evictions: 0,
            new: Vec::new(),
            listing: None,
        }
    }

    /// Tokens a block holds.
    #[must_use]
    pub fn block_size(&self) -> usize {
        self.block_size
    }

    /// As in [`KvCacheSpec::rewind`].
    #[must_use]
    pub fn rewind(&self) -> Option<usize> {
        self.rewind
    }

    /// Whether prefixes are kept.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// Kinds of layers.
    #[must_use]
    pub fn groups(&self) -> &[KvGroup] {
        &self.groups
    }

    /// The blocks of each group.
    #[must_use]
    pub fn pools(&self) -> &[BlockPool] {
        &self.pools
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> KvCacheStats {
        KvCacheStats { indexed_blocks: self.index.blocks(), evictions: self.evictions }
    }

    /// Empty tables.
    #[must_use]
    pub fn no_tables(&self) -> BlockTables {
        vec![Vec::new(); self.groups.len()]
    }

    /// The longest prefix of `tokens` that is in memory, short of the last token, which has to be computed in any case.
    /// Without `copies`, whole blocks only.
    #[must_use]
    pub fn find(&self, prefix: &Prefix, tokens: &[TokenId], copies: bool) -> Hit {
        if !self.enabled || tokens.len() < 2 {
            return Hit::default();
        }
        let size = self.block_size;
        let limit = tokens.len() - 1;
        let whole = prefix.hashes.iter().take(limit / size);
        let mut blocks: Vec<BlockHash> = whole.take_while(|hash| self.is_resident(hash)).copied().collect();
        let (start, end) = (blocks.len() * size, limit.min((blocks.len() + 1) * size));
        let usable = |node: &Node, shared: usize| Self::can_cut(node, shared) && self.holds_all(node);
        let after = prefix.before(blocks.len());
        let marks = prefix.media_within(start, end);
        let rest = Content { tokens: &tokens[start..end], media: &marks };
        let mut partial = if copies { self.index.longest_match(after, rest, usable) } else { None };
        if partial.is_some_and(|(_, shared)| !self.windows_are_there(&blocks, start + shared)) {
            partial = None;
        }
        if partial.is_none() {
            while !blocks.is_empty() && !self.windows_are_there(&blocks, blocks.len() * size) {
                blocks.pop();
            }
        }
        let tokens = blocks.len() * size + partial.map_or(0, |(_, shared)| shared);
        let from_ssd = |hash: &BlockHash| self.index.get(hash).is_some_and(|node| node.from_ssd);
        let ssd_tokens = size * blocks.iter().filter(|hash| from_ssd(hash)).count()
            + partial.filter(|(hash, _)| from_ssd(hash)).map_or(0, |(_, shared)| shared);
        Hit { tokens, ssd_tokens, blocks, partial }
    }

    /// Whether the layers that read everything find their KV of the block in memory.
    fn is_resident(&self, hash: &BlockHash) -> bool {
        let whole = |node: &Node| self.groups.iter().zip(&node.blocks).all(|(g, b)| g.window.is_some() || b.is_some());
        self.index.get(hash).is_some_and(whole)
    }

    fn holds_all(&self, node: &Node) -> bool {
        node.blocks.iter().all(Option::is_some)
    }

    /// The fewest tokens that a block can be cut back to that was filled with `tokens` tokens from its start.
    fn own_floor(&self, tokens: usize) -> usize {
        self.rewind.map_or(0, |rewind| tokens.saturating_sub(rewind))
    }

    /// Whether a node's block may be taken over with only its first `tokens` tokens.
    fn can_cut(node: &Node, tokens: usize) -> bool {
        tokens >= node.floor
    }

    /// Whether the windowed layers find what they read after the first `tokens` tokens in `blocks`.
    fn windows_are_there(&self, blocks: &[BlockHash], tokens: usize) -> bool {
        self.groups.iter().enumerate().filter(|(_, group)| group.window.is_some()).all(|(index, group)| {
            let read = &blocks[group.first_read(tokens, self.block_size).min(blocks.len())..];
            read.iter().all(|hash| self.index.get(hash).is_some_and(|node| node.blocks[index].is_some()))
        })
    }

    /// Takes what was found: shares the whole blocks and gets blocks for the copies; `None`, and nothing changes, if
    /// there is no room for those.
    pub fn adopt(&mut self, hit: &Hit) -> Option<Adopted> {
        let mut tables = self.no_tables();
        for (group, table) in tables.iter_mut().enumerate() {
            let first = self.groups[group].first_read(hit.tokens, self.block_size);
            for (place, hash) in hit.blocks.iter().enumerate() {
                let block = self.index.get(hash).and_then(|node| node.blocks[group]).filter(|_| place >= first);
                if let Some(block) = block {
                    self.pools[group].share(block);
                }
                table.push(block.unwrap_or(NO_BLOCK));
            }
        }
        let mut copies = Vec::new();
        let floor = hit.partial.and_then(|(hash, _)| self.index.get(&hash)).map_or(0, |node| node.floor);
        if let Some((hash, tokens)) = hit.partial {
            for group in 0..self.groups.len() {
                let Some(from) = self.index.get(&hash).and_then(|node| node.blocks[group]) else { continue };
                self.pools[group].share(from);
                let Some(to) = self.allocate(group) else {
                    self.release(group, from);
                    copies.iter().for_each(|copy: &BlockCopy| self.release(copy.group, copy.from));
                    self.release_tables(&tables);
                    return None;
                };
                tables[group].push(to);
                copies.push(BlockCopy { group, from, to, tokens });
            }
        }
        Some(Adopted { tables, floor: hit.blocks.len() * self.block_size + floor, copies })
    }

    /// A block of `group` with one holder; if need be, one whose prefix is forgotten.
    pub fn allocate(&mut self, group: usize) -> Option<BlockId> {
        let Allocated { block, evicted } = self.pools[group].allocate()?;
        if evicted {
            self.index.detach(group, block);
            self.evictions += 1;
        }
        Some(block)
    }

    /// Takes one holder from a block. It stays indexed if it was.
    pub fn release(&mut self, group: usize, block: BlockId) {
        if block != NO_BLOCK {
            let keep = self.index.is_indexed(group, block);
            self.pools[group].release(block, keep);
        }
    }

    /// Releases all of a sequence's blocks, the last one first.
    pub fn release_tables(&mut self, tables: &BlockTables) {
        for (group, table) in tables.iter().enumerate() {
            table.iter().rev().for_each(|&block| self.release(group, block));
        }
    }

    /// Releases the blocks that a sequence with `computed` tokens will not read again.
    pub fn release_behind_windows(&mut self, tables: &mut BlockTables, computed: usize) {
        for (group, table) in tables.iter_mut().enumerate() {
            let first = self.groups[group].first_read(computed, self.block_size).min(table.len());
            // What was given back before lies further to the left.
            for place in (0..first).rev().take_while(|&place| table[place] != NO_BLOCK).collect::<Vec<_>>() {
                self.release(group, std::mem::replace(&mut table[place], NO_BLOCK));
            }
        }
    }

    /// Indexes the blocks of a sequence that became full when its computed tokens grew from `from` to `tokens.len()`.
    /// `tokens` is the sequence from its start as far as it is computed, `floor` what it was [adopted](Adopted) with.
    pub fn index_full(
        &mut self,
        prefix: &mut Prefix,
        tokens: &[TokenId],
        from: usize,
        tables: &BlockTables,
        floor: usize,
    ) {
        if !self.enabled {
            return;
        }
        prefix.extend(tokens, self.block_size);
        for place in from / self.block_size..tokens.len() / self.block_size {
            let (start, end) = (place * self.block_size, (place + 1) * self.block_size);
            let marks = prefix.media_within(start, end);
            let content = Content { tokens: &tokens[start..end], media: &marks };
            let (hash, parent) = (prefix.hashes[place], prefix.before(place));
            self.attach(Names { hash, parent, root: Some(&prefix.root) }, content, tables, place, floor);
        }
    }

    /// Indexes what a sequence has in its last, unfilled block, with its computed `tokens`.
    pub fn index_partial(&mut self, prefix: &mut Prefix, tokens: &[TokenId], tables: &BlockTables, floor: usize) {
        let place = tokens.len() / self.block_size;
        let rest = &tokens[place * self.block_size..];
        if self.enabled && !rest.is_empty() {
            prefix.extend(tokens, self.block_size);
            let parent = prefix.before(place);
            let marks = prefix.media_within(place * self.block_size, tokens.len());
            let content = Content { tokens: rest, media: &marks };
            let hash = parent.extend_with_media(rest, &marks);
            self.attach(Names { hash, parent, root: Some(&prefix.root) }, content, tables, place, floor);
        }
    }

    fn attach(&mut self, names: Names<'_>, content: Content<'_>, tables: &BlockTables, place: usize, floor: usize) {
        let own = self.own_floor(content.tokens.len());
        let hash = names.hash;
        let node = self.index.insert(names, content);
        node.floor = own.max(floor.saturating_sub(place * self.block_size));
        if !node.on_ssd {
            self.new.push(hash);
        }
        for (group, table) in tables.iter().enumerate() {
            match table.get(place) {
                Some(&block) if block != NO_BLOCK => self.index.attach(group, block, hash),
                _ => {}
            }
        }
        self.index.drop_if_gone(hash);
    }

    /// Says that a block's content is not to be trusted: nobody will find it.
    pub fn distrust(&mut self, group: usize, block: BlockId) {
        if block != NO_BLOCK {
            self.index.detach(group, block);
            self.pools[group].forget(block);
        }
    }

    /// Forgets every prefix in memory; blocks that sequences hold stay theirs. Says how many blocks were indexed.
    pub fn clear(&mut self) -> usize {
        let blocks = self.index.all_blocks();
        for &(group, block) in &blocks {
            self.distrust(group, block);
        }
        self.new.clear();
        self.note_clear();
        blocks.len()
    }
}
