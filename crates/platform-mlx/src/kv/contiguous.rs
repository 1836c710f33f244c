//! One extent a sequence, attended by MLX's own `scaled_dot_product_attention`: for Metal and CUDA, and on the CPU
//! the second opinion on [`super::PagedKv`].
//!
//! A block is a whole extent here: its id is the sequence's slot, and its size the longest sequence. An extent
//! holds only what its sequence has needed so far, and grows by [`STEP`] tokens.

use mlx_rs::{
    Dtype,
    fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention},
    ops::{
        concatenate,
        indexing::{TryIndexMutOp, TryIndexOp},
        zeros_dtype,
    },
};

use super::{AttentionSpec, KvStore};
use crate::{Batch, Error, Result, Span, Tensor, batch::dim, model::LayerSpec};

/// Tokens an extent grows by.
const STEP: usize = 256;

/// Keys and values of one layer and one sequence, each [1, kv_heads, capacity, head_dim].
struct Extent {
    keys: Tensor,
    values: Tensor,
}

impl Extent {
    fn new(layer: &LayerSpec, capacity: usize, dtype: Dtype) -> Result<Self> {
        let shape = [1, dim(layer.kv_heads), dim(capacity), dim(layer.head_dim)];
        Ok(Self { keys: zeros_dtype(&shape, dtype)?, values: zeros_dtype(&shape, dtype)? })
    }

    fn capacity(&self) -> usize {
        usize::try_from(self.keys.dim(2)).unwrap_or(0)
    }

    /// Makes room for `tokens` tokens.
    fn reserve(&mut self, layer: &LayerSpec, tokens: usize) -> Result<()> {
        if tokens > self.capacity() {
            let more = Self::new(layer, tokens.next_multiple_of(STEP) - self.capacity(), self.keys.dtype())?;
            self.keys = concatenate(&[&self.keys, &more.keys], 2)?;
            self.values = concatenate(&[&self.values, &more.values], 2)?;
        }
        Ok(())
    }
}

/// KV storage in contiguous extents.
pub struct ContiguousKv {
    layers: Vec<LayerSpec>,
    /// By layer, then by slot.
    extents: Vec<Vec<Option<Extent>>>,
    max_len: usize,
    slots: usize,
}

impl ContiguousKv {
    /// Room for `slots` sequences of at most `max_len` tokens.
    #[must_use]
    pub fn new(layers: Vec<LayerSpec>, slots: usize, max_len: usize) -> Self {
        let extents = layers.iter().map(|_| (0..slots).map(|_| None).collect()).collect();
        Self { layers, extents, max_len, slots }
    }

    /// One sequence's share of [`KvStore::attend`]; all tensors [1, heads, len, head_dim].
    fn attend_one(
        &mut self,
        layer: usize,
        span: Span<'_>,
        q: &Tensor,
        k: Tensor,
        v: Tensor,
        scale: f32,
    ) -> Result<Tensor> {
        let spec = self.layers[layer];
        let slot = span.blocks[0] as usize;
        let (start, end) = (span.start, span.start + span.len);
        let place = self.extents[layer]
            .get_mut(slot)
            .ok_or_else(|| Error::Plan(format!("block {slot} of {} was named", self.slots)))?;
        // A sequence that starts anew has no use for what another left in the slot.
        if start == 0 {
            *place = None;
        }
        let extent = match place {
            Some(extent) => extent,
            None => place.insert(Extent::new(&spec, end.next_multiple_of(STEP), k.dtype())?),
        };
        extent.reserve(&spec, end)?;
        extent.keys.try_index_mut((.., .., dim(start)..dim(end), ..), k)?;
        extent.values.try_index_mut((.., .., dim(start)..dim(end), ..), v)?;
        // The keys that a window hides from every row need not be read.
        let first = spec.window.map_or(0, |window| (start + 1).saturating_sub(window));
        let keys = extent.keys.try_index((.., .., dim(first)..dim(end), ..))?;
        let values = extent.values.try_index((.., .., dim(first)..dim(end), ..))?;
        let mask = match spec.window {
            Some(window) if span.len > 1 && end - first > window => Some(window_mask(start, end, first, window)),
            _ => None,
        };
        let mask = match &mask {
            Some(mask) => Some(ScaledDotProductAttentionMask::Array(mask)),
            None => (span.len > 1).then_some(ScaledDotProductAttentionMask::Causal),
        };
        Ok(scaled_dot_product_attention(q, &keys, &values, scale, mask, None)?)
    }
}

/// [rows, keys], true where row `start + i` sees key `first + j`.
fn window_mask(start: usize, end: usize, first: usize, window: usize) -> Tensor {
    let visible: Vec<bool> =
        (start..end).flat_map(|row| (first..end).map(move |key| key <= row && key + window > row)).collect();
    Tensor::from_slice(&visible, &[dim(end - start), dim(end - first)])
}

impl KvStore for ContiguousKv {
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor> {
        let mut outputs = Vec::new();
        for span in batch.layout.spans() {
            let rows = dim(span.first)..dim(span.first + span.len);
            let part = |x: &Tensor| -> Result<Tensor> {
                let x = if span.len == batch.len() { x.clone() } else { x.try_index(rows.clone())? };
                Ok(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
            };
            let out = self.attend_one(layer, span, &part(q)?, part(k)?, part(v)?, spec.scale)?;
            let width = dim(spec.heads * self.layers[layer].head_dim);
            outputs.push(out.transpose_axes(&[0, 2, 1, 3])?.reshape(&[dim(span.len), width])?);
        }
        if outputs.len() == 1 {
            return Ok(outputs.swap_remove(0));
        }
        Ok(concatenate(&outputs, 0)?)
    }

    fn block_size(&self) -> usize {
        self.max_len
    }

    fn num_blocks(&self) -> usize {
        self.slots
    }

    fn unaccounted_bytes(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_shows_the_last_window_keys_up_to_the_row() {
        // Rows 3 and 4, keys from 2 on, two keys visible each.
        let mask = window_mask(3, 5, 2, 2);
        assert_eq!(mask.as_slice::<bool>(), [true, true, false, false, true, true]);
    }
}
