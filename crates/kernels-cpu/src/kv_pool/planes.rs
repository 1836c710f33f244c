//! The numbers of a pool, for one kind of number.

use super::{
    layout::Layout,
    number::{KvNumber, PIECE},
    plane::Plane,
    rotation::rotate,
};
use crate::{Pool, SharedMut, with_scratch};

/// Numbers that are written inline: below this a second thread costs more than it helps.
const FEW: usize = 16 * 1024;

/// The numbers of a pool.
pub(crate) struct Planes<T> {
    layout: Layout,
    keys: Plane<T>,
    values: Plane<T>,
    /// Empty if the numbers have none.
    scales: Plane<f32>,
}

impl<T: KvNumber> Planes<T> {
    pub fn new(blocks: usize, layout: Layout) -> Option<Self> {
        let keys = Plane::new(blocks.checked_mul(layout.key_block())?)?;
        let values = Plane::new(blocks.checked_mul(layout.value_block())?)?;
        let scales = Plane::new(if T::SCALED { blocks.checked_mul(layout.scale_block())? } else { 0 })?;
        Some(Self { layout, keys, values, scales })
    }

    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Keys of head `head` in block `block`: `[dim, token]`.
    pub fn keys(&self, block: usize, head: usize) -> &[T] {
        &self.keys.get()[self.layout.key_head(block, head)]
    }

    /// Values of head `head` in block `block`: `[token, value_stride]`.
    pub fn values(&self, block: usize, head: usize) -> &[T] {
        &self.values.get()[self.layout.value_head(block, head)]
    }

    /// Scales of head `head` in block `block`, of its keys or of its values: `[token]`. Only for scaled numbers.
    pub fn scales(&self, block: usize, head: usize, of_values: bool) -> &[f32] {
        &self.scales.get()[self.layout.scale_head(block, head, of_values)]
    }

    pub fn write(&mut self, pool: &Pool, k: &[f32], v: &[f32], slots: &[u32]) {
        let layout = self.layout;
        let width = layout.kv_heads * layout.head_dim;
        let target = Target {
            layout,
            keys: SharedMut::new(self.keys.get_mut()),
            values: SharedMut::new(self.values.get_mut()),
            scales: SharedMut::new(self.scales.get_mut()),
        };
        let one = |task: usize| {
            let (head, of_values) = (task / 2, task % 2 == 1);
            let source = if of_values { v } else { k };
            for (token, &slot) in slots.iter().enumerate() {
                let numbers = &source[token * width + head * layout.head_dim..][..layout.head_dim];
                // SAFETY: this task alone writes keys, or values, of this head.
                unsafe { target.write(slot as usize, head, of_values, numbers) };
            }
        };
        if slots.len() * width < FEW {
            (0..2 * layout.kv_heads).for_each(one);
        } else {
            pool.run(2 * layout.kv_heads, one);
        }
    }

    pub fn read(&self, slots: &[u32], k: &mut [f32], v: &mut [f32]) {
        let Layout { block_size, kv_heads, head_dim, value_stride } = self.layout;
        for (i, &slot) in slots.iter().enumerate() {
            let (block, token) = (slot as usize / block_size, slot as usize % block_size);
            for head in 0..kv_heads {
                let (keys, values) = (self.keys(block, head), self.values(block, head));
                let scale = |of_values| if T::SCALED { self.scales(block, head, of_values)[token] } else { 1.0 };
                let (key_scale, value_scale) = (scale(false), scale(true));
                let start = (i * kv_heads + head) * head_dim;
                for dim in 0..head_dim {
                    k[start + dim] = keys[dim * block_size + token].widen() * key_scale;
                    v[start + dim] = values[token * value_stride + dim].widen() * value_scale;
                }
                if T::SCALED {
                    rotate(&mut k[start..start + head_dim]);
                }
            }
        }
    }

    pub fn copy(&mut self, from: usize, to: usize) {
        fn copy<N: KvNumber>(plane: &mut Plane<N>, from: usize, to: usize, len: usize) {
            plane.get_mut().copy_within(from * len..(from + 1) * len, to * len);
        }
        copy(&mut self.keys, from, to, self.layout.key_block());
        copy(&mut self.values, from, to, self.layout.value_block());
        if T::SCALED {
            copy(&mut self.scales, from, to, self.layout.scale_block());
        }
    }

    pub fn export(&self, block: usize, tokens: usize, out: &mut [u8]) {
        fn put<'a, N: KvNumber>(run: &[N], out: &'a mut [u8]) -> &'a mut [u8] {
            let (bytes, rest) = out.split_at_mut(size_of_val(run));
            run.iter().zip(bytes.chunks_exact_mut(size_of::<N>())).for_each(|(number, bytes)| number.put(bytes));
            rest
        }
        let layout = self.layout;
        let mut rest = layout.key_runs(block, tokens).fold(out, |out, run| put(&self.keys.get()[run], out));
        rest = layout.value_runs(block, tokens).fold(rest, |out, run| put(&self.values.get()[run], out));
        if T::SCALED {
            layout.scale_runs(block, tokens).fold(rest, |out, run| put(&self.scales.get()[run], out));
        }
    }

    pub fn import(&mut self, block: usize, tokens: usize, bytes: &[u8]) {
        fn get<'a, N: KvNumber>(run: &mut [N], bytes: &'a [u8]) -> &'a [u8] {
            let (bytes, rest) = bytes.split_at(size_of_val(run));
            run.iter_mut().zip(bytes.chunks_exact(size_of::<N>())).for_each(|(to, bytes)| *to = N::get(bytes));
            rest
        }
        let layout = self.layout;
        let (keys, values, scales) = (self.keys.get_mut(), self.values.get_mut(), self.scales.get_mut());
        let mut rest = layout.key_runs(block, tokens).fold(bytes, |bytes, run| get(&mut keys[run], bytes));
        rest = layout.value_runs(block, tokens).fold(rest, |bytes, run| get(&mut values[run], bytes));
        if T::SCALED {
            layout.scale_runs(block, tokens).fold(rest, |bytes, run| get(&mut scales[run], bytes));
        }
    }
}

/// Planes that several tasks write to.
struct Target<'a, T> {
    layout: Layout,
    keys: SharedMut<'a, T>,
    values: SharedMut<'a, T>,
    scales: SharedMut<'a, f32>,
}

impl<T: KvNumber> Target<'_, T> {
    /// Stores the numbers of one head of the token in slot `slot`.
    ///
    /// # Safety
    /// No other call with this head's keys, or values, may run meanwhile.
    unsafe fn write(&self, slot: usize, head: usize, of_values: bool, numbers: &[f32]) {
        let block_size = self.layout.block_size;
        let (block, token) = (slot / block_size, slot % block_size);
        if T::SCALED && !of_values {
            return with_scratch(numbers.len(), |rotated| {
                rotated.copy_from_slice(numbers);
                rotate(rotated);
                // SAFETY: as this function's.
                unsafe { self.store(block, token, head, of_values, rotated) }
            });
        }
        // SAFETY: as this function's.
        unsafe { self.store(block, token, head, of_values, numbers) };
    }

    /// As [`Target::write`], of what is rotated if need be.
    ///
    /// # Safety
    /// As there.
    unsafe fn store(&self, block: usize, token: usize, head: usize, of_values: bool, numbers: &[f32]) {
        let Layout { block_size, value_stride, .. } = self.layout;
        let scale = T::scale(numbers);
        if T::SCALED {
            let start = self.layout.scale_head(block, head, of_values).start + token;
            // SAFETY: as this function's.
            unsafe { self.scales.slice(start..start + 1).fill(scale) };
        }
        if of_values {
            let start = self.layout.value_head(block, head).start + token * value_stride;
            // SAFETY: as this function's.
            let row = unsafe { self.values.slice(start..start + numbers.len()) };
            for (numbers, to) in numbers.chunks(PIECE).zip(row.chunks_mut(PIECE)) {
                T::encode(numbers, scale, to);
            }
        } else {
            // SAFETY: as this function's.
            let keys = unsafe { self.keys.slice(self.layout.key_head(block, head)) };
            let mut column = keys[token..].iter_mut().step_by(block_size);
            for numbers in numbers.chunks(PIECE) {
                let mut codes = [T::default(); PIECE];
                let codes = &mut codes[..numbers.len()];
                T::encode(numbers, scale, codes);
                codes.iter().zip(&mut column).for_each(|(&code, to)| *to = code);
            }
        }
    }
}
