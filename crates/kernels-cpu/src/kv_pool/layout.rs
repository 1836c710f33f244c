//! Where things lie in a pool.

use std::ops::Range;

use super::{KvShape, LINE};

/// Where things lie within a plane; all in elements.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    pub block_size: usize,
    pub kv_heads: usize,
    pub head_dim: usize,
    /// Elements from one token's values to the next one's.
    pub value_stride: usize,
}

impl Layout {
    pub fn new(shape: &KvShape) -> Self {
        let &KvShape { block_size, kv_heads, head_dim, .. } = shape;
        Self { block_size, kv_heads, head_dim, value_stride: head_dim.next_multiple_of(LINE) }
    }

    pub fn key_block(&self) -> usize {
        self.kv_heads * self.head_dim * self.block_size
    }

    pub fn value_block(&self) -> usize {
        self.kv_heads * self.block_size * self.value_stride
    }

    /// Scales of a block, if there are any.
    pub fn scale_block(&self) -> usize {
        self.kv_heads * 2 * self.block_size
    }

    /// Keys of head `head` in block `block`: `[dim, token]`.
    pub fn key_head(&self, block: usize, head: usize) -> Range<usize> {
        let len = self.head_dim * self.block_size;
        let start = block * self.key_block() + head * len;
        start..start + len
    }

    /// Values of head `head` in block `block`: `[token, value_stride]`.
    pub fn value_head(&self, block: usize, head: usize) -> Range<usize> {
        let len = self.block_size * self.value_stride;
        let start = block * self.value_block() + head * len;
        start..start + len
    }

    /// Scales of head `head` in block `block`, of its keys or of its values: `[token]`.
    pub fn scale_head(&self, block: usize, head: usize, of_values: bool) -> Range<usize> {
        let start = block * self.scale_block() + (2 * head + usize::from(of_values)) * self.block_size;
        start..start + self.block_size
    }

    /// Where the keys of a block's first `tokens` tokens are: `[head, dim, token]`, a run for each head and dim.
    pub fn key_runs(&self, block: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (start, stride) = (block * self.key_block(), self.block_size);
        (0..self.kv_heads * self.head_dim).map(move |row| start + row * stride..start + row * stride + tokens)
    }

    /// Where the values of a block's first `tokens` tokens are: `[head, token, dim]`, a run for each head and token.
    pub fn value_runs(&self, block: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let layout = *self;
        (0..self.kv_heads).flat_map(move |head| {
            let start = layout.value_head(block, head).start;
            let run =
                move |token| start + token * layout.value_stride..start + token * layout.value_stride + layout.head_dim;
            (0..tokens).map(run)
        })
    }

    /// Where the scales of a block's first `tokens` tokens are: `[head, keys or values, token]`.
    pub fn scale_runs(&self, block: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (start, stride) = (block * self.scale_block(), self.block_size);
        (0..2 * self.kv_heads).map(move |row| start + row * stride..start + row * stride + tokens)
    }
}
