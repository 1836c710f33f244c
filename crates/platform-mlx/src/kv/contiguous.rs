//! One extent a sequence, attended by MLX's own `scaled_dot_product_attention`: for Metal and CUDA, and on the CPU
//! the second opinion on [`super::PagedKv`].
//!
//! A block is a whole extent here: its id is the sequence's slot, and its size the longest sequence. All layers are one
//! group. An extent holds only what its sequence has needed so far; that of a windowed layer also forgets, so that its
//! content cannot be cut back further than [`KvCacheSpec::rewind`].

use mlx_rs::{
    fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention},
    ops::{concatenate, indexing::TryIndexOp},
    transforms::eval,
};
use vllm_platform::{BlockCopy, BlockId, KvCacheSpec, KvDtype, KvGroup};

use super::{
    AttentionSpec, KvStore, check_block,
    extent::{Extent, ExtentSpec, SLACK},
};
use crate::{Batch, Error, Result, Span, Tensor, batch::dim, model::LayerSpec};

/// KV storage in contiguous extents.
pub struct ContiguousKv {
    layers: Vec<ExtentSpec>,
    /// By slot, then by layer.
    slots: Vec<Vec<Option<Extent>>>,
    spec: KvCacheSpec,
}

impl ContiguousKv {
    /// Room for `slots` sequences of at most `max_len` tokens that come in chunks of at most `chunk`. Memory is taken
    /// as sequences grow.
    #[must_use]
    pub fn new(layers: &[LayerSpec], dtype: KvDtype, slots: usize, max_len: usize, chunk: usize) -> Self {
        let layers: Vec<_> = layers.iter().map(|&layer| ExtentSpec { layer, dtype, max_len }).collect();
        let forgets = layers.iter().any(ExtentSpec::forgets);
        let block_bytes = bytes(&layers, chunk);
        let spec = KvCacheSpec {
            block_size: max_len,
            dtype,
            groups: vec![KvGroup { window: None, num_blocks: slots, block_bytes }],
            rewind: forgets.then_some(SLACK),
        };
        let empty = || layers.iter().map(|_| None).collect();
        Self { slots: (0..slots).map(|_| empty()).collect(), layers, spec }
    }

    /// One sequence's share of [`KvStore::attend`]; all tensors [1, heads, len, head_dim]. `until` is as
    /// [`Layout::until`](crate::Layout::until) has it.
    fn attend_one(
        &mut self,
        layer: usize,
        slot: usize,
        (span, until): (Span, &[u32]),
        q: &Tensor,
        [k, v]: [Tensor; 2],
        scale: f32,
    ) -> Result<Tensor> {
        let spec = self.layers[layer];
        let (start, end) = (span.start, span.start + span.len);
        let place = &mut self.slots[slot][layer];
        if start == 0 {
            // A sequence that starts anew has no use for what another left in the slot.
            *place = Some(Extent::new(spec, end)?);
        }
        let nothing = || Error::Plan(format!("position {start} was to follow an empty block"));
        let extent = place.as_mut().ok_or_else(nothing)?;
        extent.check(start)?;
        extent.write(start, k, v)?;
        // The keys that a window hides from every row need not be read.
        let first = spec.first_seen(start);
        let (keys, values) = extent.tail(first)?;
        let hides = spec.layer.window.is_some_and(|window| span.len > 1 && end - first > window);
        let mask = (hides || !until.is_empty()).then(|| visible_mask(start, end, first, spec.layer.window, until));
        let mask = match &mask {
            Some(mask) => Some(ScaledDotProductAttentionMask::Array(mask)),
            None => (span.len > 1).then_some(ScaledDotProductAttentionMask::Causal),
        };
        Ok(scaled_dot_product_attention(q, &keys, &values, scale, mask, None)?)
    }

    /// Evaluates extents and puts them into a slot, whose old ones go.
    fn place(&mut self, slot: BlockId, extents: Vec<Extent>) -> Result<()> {
        eval(extents.iter().flat_map(|extent| [&extent.keys, &extent.values]))?;
        self.slots[slot as usize] = extents.into_iter().map(Some).collect();
        Ok(())
    }

    /// The extents of a slot that holds something.
    fn held(&self, slot: BlockId) -> Result<Vec<&Extent>> {
        let extents: Option<_> = self.slots[slot as usize].iter().map(Option::as_ref).collect();
        extents.ok_or_else(|| Error::Plan(format!("block {slot} holds nothing")))
    }
}

/// Bytes that a slot of `max_len` tokens takes at most.
fn bytes(layers: &[ExtentSpec], chunk: usize) -> u64 {
    layers.iter().map(|layer| (layer.most_tokens(chunk) * layer.token_bytes()) as u64).sum()
}

/// Bytes that a sequence of `max_len` tokens, computed in chunks of at most `chunk`, takes at most.
pub(super) fn slot_bytes(layers: &[LayerSpec], dtype: KvDtype, max_len: usize, chunk: usize) -> u64 {
    bytes(&layers.iter().map(|&layer| ExtentSpec { layer, dtype, max_len }).collect::<Vec<_>>(), chunk)
}

/// [rows, keys], true where row `start + i` sees key `first + j`: those up to itself, or before `until[i]` if that is more, and
/// within its window.
pub(super) fn visible_mask(start: usize, end: usize, first: usize, window: Option<usize>, until: &[u32]) -> Tensor {
    let window = window.unwrap_or(end);
    let row = |row: usize| {
        let until = until.get(row - start).map_or(row + 1, |&until| (until as usize).max(row + 1));
        (first..end).map(move |key| key < until && key + window > row)
    };
    let visible: Vec<bool> = (start..end).flat_map(row).collect();
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
        let layout = batch.layout();
        for (i, span) in layout.spans().enumerate() {
            let rows = dim(span.first)..dim(span.first + span.len);
            let part = |x: &Tensor| -> Result<Tensor> {
                let x = if span.len == batch.len() { x.clone() } else { x.try_index(rows.clone())? };
                Ok(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
            };
            let slot = layout.table(0, i)[0] as usize;
            let seen = (span, layout.until(span));
            let out = self.attend_one(layer, slot, seen, &part(q)?, [part(k)?, part(v)?], spec.scale)?;
            let width = dim(spec.heads * self.layers[layer].layer.head_dim);
            outputs.push(out.transpose_axes(&[0, 2, 1, 3])?.reshape(&[dim(span.len), width])?);
        }
        if outputs.len() == 1 {
            return Ok(outputs.swap_remove(0));
        }
        Ok(concatenate(&outputs, 0)?)
    }

    fn name(&self) -> &'static str {
        "contiguous 1"
    }

    fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    fn copy_block(&mut self, copy: &BlockCopy) -> Result<()> {
        for block in [copy.from, copy.to] {
            check_block(&self.spec, copy.group, block, copy.tokens)?;
        }
        let extents = self.held(copy.from)?.into_iter().map(|extent| extent.cut(copy.tokens));
        let extents = extents.collect::<Result<_>>()?;
        self.place(copy.to, extents)
    }

    /// Layer after layer: the keys that are kept of `tokens` tokens, `[kv_head, token, dim]`, then the values likewise.
    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>> {
        check_block(&self.spec, group, block, tokens)?;
        let mut bytes = Vec::new();
        self.held(block)?.into_iter().try_for_each(|extent| extent.export(tokens, &mut bytes))?;
        Ok(bytes)
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()> {
        check_block(&self.spec, group, block, tokens)?;
        let mut rest = bytes;
        let extents = self.layers.iter().map(|&layer| Extent::import(layer, tokens, &mut rest));
        let extents = extents.collect::<Result<Option<Vec<_>>>>()?.filter(|_| rest.is_empty());
        let wrong = || Error::Plan(format!("{} bytes are no block of {tokens} tokens of this model", bytes.len()));
        self.place(block, extents.ok_or_else(wrong)?)
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
        let mask = visible_mask(3, 5, 2, Some(2), &[]);
        assert_eq!(mask.as_slice::<bool>(), [true, true, false, false, true, true]);
    }

    #[test]
    fn the_mask_shows_a_picture_as_far_as_it_goes() {
        // Row 3 is text, rows 4 and 5 are a picture; the window hides key 2 from row 5.
        let mask = visible_mask(3, 6, 2, Some(3), &[0, 6, 6]);
        let rows = [[true, true, false, false], [true, true, true, true], [false, true, true, true]];
        assert_eq!(mask.as_slice::<bool>(), rows.as_flattened());
        let mask = visible_mask(4, 7, 4, None, &[6, 6, 0]);
        let rows = [[true, true, false], [true, true, false], [true, true, true]];
        assert_eq!(mask.as_slice::<bool>(), rows.as_flattened());
    }
}
