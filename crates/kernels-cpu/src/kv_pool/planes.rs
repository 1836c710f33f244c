//! Where the numbers of a pool lie, for one kind of number.

use std::{marker::PhantomData, ops::Range};

use memmap2::MmapMut;

use super::{KvShape, LINE};
use crate::{Pool, SharedMut, element::Element};

/// The numbers of a pool.
pub(crate) struct Planes<T> {
    layout: Layout,
    keys: Plane<T>,
    values: Plane<T>,
}

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

    /// Keys of head `head` in block `block`: `[dim, token]`.
    fn key_head(&self, block: usize, head: usize) -> usize {
        block * self.key_block() + head * self.head_dim * self.block_size
    }

    /// Values of head `head` in block `block`: `[token, value_stride]`.
    fn value_head(&self, block: usize, head: usize) -> usize {
        block * self.value_block() + head * self.block_size * self.value_stride
    }
}

impl Layout {
    /// Where the keys of a block's first `tokens` tokens are: `[head, dim, token]`, a run for each head and dim.
    fn key_runs(&self, block: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (start, stride) = (self.key_head(block, 0), self.block_size);
        (0..self.kv_heads * self.head_dim).map(move |row| start + row * stride..start + row * stride + tokens)
    }

    /// Where the values of a block's first `tokens` tokens are: `[head, token, dim]`, a run for each head and token.
    fn value_runs(&self, block: usize, tokens: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let layout = *self;
        (0..self.kv_heads).flat_map(move |head| {
            let start = layout.value_head(block, head);
            let run =
                move |token| start + token * layout.value_stride..start + token * layout.value_stride + layout.head_dim;
            (0..tokens).map(run)
        })
    }
}

/// Zero pages of the system's, which take no memory until they are written to. (The allocator's zeroed memory would
/// not do: it may come out of a heap that has been used, and is then cleared by writing to all of it.)
struct Plane<T> {
    pages: MmapMut,
    len: usize,
    element: PhantomData<T>,
}

impl<T: Element> Plane<T> {
    fn new(len: usize) -> Option<Self> {
        let bytes = len.checked_mul(size_of::<T>())?;
        // A mapping of nothing is refused.
        let pages = MmapMut::map_anon(bytes.max(1)).ok()?;
        Some(Self { pages, len, element: PhantomData })
    }

    fn get(&self) -> &[T] {
        // SAFETY: `len` elements fit the mapping, pages are aligned for any number, and zeros and whatever was written
        // as `T` are values of a number type.
        unsafe { std::slice::from_raw_parts(self.pages.as_ptr().cast(), self.len) }
    }

    fn get_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and the mapping is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.pages.as_mut_ptr().cast(), self.len) }
    }
}

impl<T: Element> Planes<T> {
    pub fn new(blocks: usize, layout: Layout) -> Option<Self> {
        let keys = Plane::new(blocks.checked_mul(layout.key_block())?)?;
        let values = Plane::new(blocks.checked_mul(layout.value_block())?)?;
        Some(Self { layout, keys, values })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Keys of head `head` in block `block`: `[dim, token]`.
    pub fn keys(&self, block: usize, head: usize) -> &[T] {
        &self.keys.get()[self.layout.key_head(block, head)..][..self.layout.head_dim * self.layout.block_size]
    }

    /// Values of head `head` in block `block`: `[token, value_stride]`.
    pub fn values(&self, block: usize, head: usize) -> &[T] {
        &self.values.get()[self.layout.value_head(block, head)..][..self.layout.block_size * self.layout.value_stride]
    }

    pub fn write(&mut self, pool: &Pool, k: &[f32], v: &[f32], slots: &[u32]) {
        let layout = self.layout;
        let Layout { kv_heads, head_dim, .. } = layout;
        let width = kv_heads * head_dim;
        let (keys, values) = (SharedMut::new(self.keys.get_mut()), SharedMut::new(self.values.get_mut()));
        let one = |task: usize| {
            let (head, is_value) = (task / 2, task % 2 == 1);
            let source = |token: usize| token * width + head * head_dim;
            for (first, run) in consecutive(slots, layout.block_size) {
                let (block, token) =
                    (slots[first] as usize / layout.block_size, slots[first] as usize % layout.block_size);
                if is_value {
                    let start = layout.value_head(block, head);
                    // SAFETY: this task alone writes values of this head.
                    let target = unsafe { values.slice(start..start + layout.block_size * layout.value_stride) };
                    for i in 0..run {
                        let row = &mut target[(token + i) * layout.value_stride..][..head_dim];
                        let v = &v[source(first + i)..][..head_dim];
                        row.iter_mut().zip(v).for_each(|(to, &from)| *to = T::from_f32(from));
                    }
                } else {
                    let start = layout.key_head(block, head);
                    // SAFETY: this task alone writes keys of this head.
                    let target = unsafe { keys.slice(start..start + head_dim * layout.block_size) };
                    for dim in 0..head_dim {
                        let row = &mut target[dim * layout.block_size + token..][..run];
                        for (i, to) in row.iter_mut().enumerate() {
                            *to = T::from_f32(k[source(first + i) + dim]);
                        }
                    }
                }
            }
        };
        if slots.len() * width < 16 * 1024 {
            (0..2 * kv_heads).for_each(one);
        } else {
            pool.run(2 * kv_heads, one);
        }
    }

    pub fn read(&self, slots: &[u32], k: &mut [f32], v: &mut [f32]) {
        let Layout { block_size, kv_heads, head_dim, value_stride } = self.layout;
        for (i, &slot) in slots.iter().enumerate() {
            let (block, token) = (slot as usize / block_size, slot as usize % block_size);
            for head in 0..kv_heads {
                let (keys, values) = (self.keys(block, head), self.values(block, head));
                let start = (i * kv_heads + head) * head_dim;
                for dim in 0..head_dim {
                    k[start + dim] = keys[dim * block_size + token].to_f32();
                    v[start + dim] = values[token * value_stride + dim].to_f32();
                }
            }
        }
    }

    pub fn copy(&mut self, from: usize, to: usize) {
        let (keys, values) = (self.layout.key_block(), self.layout.value_block());
        self.keys.get_mut().copy_within(from * keys..(from + 1) * keys, to * keys);
        self.values.get_mut().copy_within(from * values..(from + 1) * values, to * values);
    }

    pub fn export(&self, block: usize, tokens: usize, out: &mut [u8], to_bytes: impl Fn(T, &mut [u8])) {
        let (keys, values) = (self.keys.get(), self.values.get());
        let runs = self.layout.key_runs(block, tokens).map(|run| &keys[run]);
        let runs = runs.chain(self.layout.value_runs(block, tokens).map(|run| &values[run]));
        let mut rest = out;
        for run in runs {
            let (bytes, after) = rest.split_at_mut(size_of_val(run));
            run.iter().zip(bytes.chunks_exact_mut(size_of::<T>())).for_each(|(&number, bytes)| to_bytes(number, bytes));
            rest = after;
        }
    }

    pub fn import(&mut self, block: usize, tokens: usize, bytes: &[u8], from_bytes: impl Fn(&[u8]) -> T) {
        let layout = self.layout;
        let mut rest = bytes;
        let mut fill = |run: &mut [T]| {
            let (bytes, after) = rest.split_at(size_of_val(run));
            let numbers = bytes.chunks_exact(size_of::<T>()).map(&from_bytes);
            run.iter_mut().zip(numbers).for_each(|(to, number)| *to = number);
            rest = after;
        };
        layout.key_runs(block, tokens).for_each(|run| fill(&mut self.keys.get_mut()[run]));
        layout.value_runs(block, tokens).for_each(|run| fill(&mut self.values.get_mut()[run]));
    }
}

/// Splits `slots` into runs of consecutive slots within a block: (index of the first, length).
fn consecutive(slots: &[u32], block_size: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut first = 0;
    std::iter::from_fn(move || {
        let start = *slots.get(first)? as usize;
        let room = block_size - start % block_size;
        let run = slots[first..].iter().take(room).enumerate().take_while(|&(i, &s)| s as usize == start + i).count();
        first += run;
        Some((first - run, run))
    })
}
