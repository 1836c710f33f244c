//! Which prefixes are in which blocks: a radix tree whose edges are blocks of tokens.

use std::{collections::HashMap, sync::Arc};

use vllm_platform::{BlockId, ContentHash, TokenId};

use crate::{BlockHash, MediaMark, media::first_difference};

/// What a block holds, or what a sequence goes on with.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Content<'a> {
    pub tokens: &'a [TokenId],
    /// What of them stands for media, from the first of them on.
    pub media: &'a [MediaMark],
}

/// What a block begins with: a token, and the vector that it stands for.
type First = (TokenId, Option<(ContentHash, usize)>);

impl Content<'_> {
    fn first(&self) -> Option<First> {
        let shown = self.media.first().filter(|mark| mark.start == 0);
        Some((*self.tokens.first()?, shown.map(|mark| (mark.key, mark.first))))
    }

    /// Tokens that both begin with, standing for the same.
    pub fn common_prefix(&self, other: &Self) -> usize {
        let equal = self.tokens.iter().zip(other.tokens).take_while(|(a, b)| a == b).count();
        equal.min(first_difference(self.media, other.media))
    }
}

/// What sequences of one salt begin with: nothing.
#[derive(Debug)]
pub(crate) struct Root {
    pub hash: BlockHash,
    pub salt: Option<Arc<str>>,
}

/// The names of a block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names<'a> {
    /// Of the prefix that ends with it.
    pub hash: BlockHash,
    /// Of the prefix before it.
    pub parent: BlockHash,
    /// What that begins with, if it is known.
    pub root: Option<&'a Arc<Root>>,
}

/// A block's tokens and where their KV is.
#[derive(Debug)]
pub(crate) struct Node {
    /// The prefix before it.
    pub parent: BlockHash,
    /// What that begins with: not known of what was found on the SSD, as long as no sequence has asked for it.
    pub root: Option<Arc<Root>>,
    /// At least one; fewer than a block has at the end of a sequence. Shared with those who are told of it.
    pub tokens: Arc<[TokenId]>,
    /// What of them stands for media, from the block's start on.
    pub media: Box<[MediaMark]>,
    /// By group: the block in memory.
    pub blocks: Vec<Option<BlockId>>,
    /// The fewest tokens that its block can be cut back to.
    pub floor: usize,
    /// Whether the tier below has it.
    pub on_ssd: bool,
    /// Whether what is in memory was read from there.
    pub from_ssd: bool,
}

impl Node {
    pub fn content(&self) -> Content<'_> {
        Content { tokens: &self.tokens, media: &self.media }
    }

    /// Whether it is known that sequences begin with it.
    pub fn is_first(&self) -> bool {
        self.root.as_ref().is_some_and(|root| root.hash == self.parent)
    }
}

/// The tree. A node's name is the hash of the whole prefix that ends with it, so that walking down is looking up.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    nodes: HashMap<BlockHash, Node>,
    /// Children by parent and what they begin with: what a sequence may go on with if no whole block fits.
    children: HashMap<(BlockHash, First), Vec<BlockHash>>,
    /// By group: the node that a block belongs to.
    owners: Vec<HashMap<BlockId, BlockHash>>,
    /// If somebody wants to know: nodes that got or lost a block in memory.
    noted: Option<Vec<BlockHash>>,
}

impl PrefixIndex {
    pub fn new(groups: usize) -> Self {
        Self { nodes: HashMap::new(), children: HashMap::new(), owners: vec![HashMap::new(); groups], noted: None }
    }

    /// From now on nodes are noted that get or lose a block in memory; at first all that have one.
    pub fn note_all(&mut self) {
        let there = self.nodes.iter().filter(|(_, node)| node.blocks.iter().any(Option::is_some));
        self.noted = Some(there.map(|(hash, _)| *hash).collect());
    }

    pub fn stop_noting(&mut self) {
        self.noted = None;
    }

    pub fn has_noted(&self) -> bool {
        self.noted.as_ref().is_some_and(|noted| !noted.is_empty())
    }

    /// The nodes noted since the last call; some may be gone, and some be there more than once.
    pub fn take_noted(&mut self) -> Vec<BlockHash> {
        self.noted.as_mut().map(std::mem::take).unwrap_or_default()
    }

    fn note(&mut self, hash: BlockHash) {
        if let Some(noted) = &mut self.noted {
            noted.push(hash);
        }
    }

    pub fn get(&self, hash: &BlockHash) -> Option<&Node> {
        self.nodes.get(hash)
    }

    pub fn get_mut(&mut self, hash: &BlockHash) -> Option<&mut Node> {
        self.nodes.get_mut(hash)
    }

    /// Blocks in memory that belong to a node.
    pub fn blocks(&self) -> usize {
        self.owners.iter().map(HashMap::len).sum()
    }

    pub fn is_indexed(&self, group: usize, block: BlockId) -> bool {
        self.owners[group].contains_key(&block)
    }

    /// The child of `parent` that shares most tokens with `rest`, among those that `usable` admits for that many;
    /// and how many.
    pub fn longest_match(
        &self,
        parent: BlockHash,
        rest: Content<'_>,
        usable: impl Fn(&Node, usize) -> bool,
    ) -> Option<(BlockHash, usize)> {
        let siblings = self.children.get(&(parent, rest.first()?))?;
        let shared = siblings.iter().filter_map(|hash| {
            let node = self.nodes.get(hash)?;
            let tokens = node.content().common_prefix(&rest);
            usable(node, tokens).then_some((*hash, tokens))
        });
        shared.max_by_key(|&(_, tokens)| tokens)
    }

    /// The node of `content`, at least one token, made if it isn't there.
    pub fn insert(&mut self, Names { hash, parent, root }: Names<'_>, content: Content<'_>) -> &mut Node {
        let (groups, children) = (self.owners.len(), &mut self.children);
        let node = self.nodes.entry(hash).or_insert_with(|| {
            if let Some(first) = content.first() {
                children.entry((parent, first)).or_default().push(hash);
            }
            Node {
                parent,
                root: None,
                tokens: content.tokens.into(),
                media: content.media.into(),
                floor: 0,
                blocks: vec![None; groups],
                on_ssd: false,
                from_ssd: false,
            }
        });
        if node.root.is_none() {
            node.root = root.cloned();
        }
        node
    }

    /// Says that `block` holds the KV of a node, unless another one does; it belongs to no other node any more.
    pub fn attach(&mut self, group: usize, block: BlockId, hash: BlockHash) {
        if self.owners[group].get(&block) == Some(&hash) {
            return;
        }
        self.detach(group, block);
        if let Some(node) = self.nodes.get_mut(&hash)
            && node.blocks[group].is_none()
        {
            node.blocks[group] = Some(block);
            self.owners[group].insert(block, hash);
            self.note(hash);
        }
    }

    /// Says that `block` no longer holds what it held.
    pub fn detach(&mut self, group: usize, block: BlockId) {
        if let Some(hash) = self.owners[group].remove(&block)
            && let Some(node) = self.nodes.get_mut(&hash)
        {
            node.blocks[group] = None;
            node.from_ssd = false;
            self.note(hash);
            self.drop_if_gone(hash);
        }
    }

    /// Forgets a node that is nowhere.
    pub fn drop_if_gone(&mut self, hash: BlockHash) {
        let Some(node) = self.nodes.get(&hash) else { return };
        if node.on_ssd || node.blocks.iter().any(Option::is_some) {
            return;
        }
        let key = node.content().first().map(|first| (node.parent, first));
        self.nodes.remove(&hash);
        if let Some(key) = key
            && let Some(siblings) = self.children.get_mut(&key)
        {
            siblings.retain(|sibling| *sibling != hash);
            if siblings.is_empty() {
                self.children.remove(&key);
            }
        }
    }

    /// Every block in memory that belongs to a node, with its group.
    pub fn all_blocks(&self) -> Vec<(usize, BlockId)> {
        let of_group = |(group, owners): (usize, &HashMap<BlockId, BlockHash>)| {
            owners.keys().map(move |&block| (group, block)).collect::<Vec<_>>()
        };
        self.owners.iter().enumerate().flat_map(of_group).collect()
    }
}
