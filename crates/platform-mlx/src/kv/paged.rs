//! Paged pools and our own CPU attention kernel: the whole ragged batch in one call, over block tables.
//!
//! Layers of one window are a group: they share block tables, and their pools have as many blocks. The pools stand
//! outside the graph (`docs/decisions/0003-paged-kv-outside-the-graph.md`): the primitive that attends also writes the
//! step's keys and values.

use std::sync::Arc;

use mlx_rs::Stream;
use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, attention};
use vllm_platform::{BlockCopy, BlockId, KvCacheSpec, KvDtype, KvGroup};

use super::{AttentionSpec, KvStore, LayerGroup, check_block};
use crate::{
    Batch, Error, Layout, Result, Tensor,
    batch::dim,
    ffi::{Output, cpu_primitive},
    model::LayerSpec,
};

/// KV storage in blocks, on the CPU.
pub struct PagedKv {
    layers: Vec<Layer>,
    groups: Vec<LayerGroup>,
    spec: KvCacheSpec,
    threads: Arc<Pool>,
    stream: Stream,
    /// By group: blocks below this one have been written to, and their pages are resident.
    touched: Vec<u32>,
}

struct Layer {
    spec: LayerSpec,
    group: usize,
    pool: Arc<KvPool>,
}

impl PagedKv {
    /// Room for blocks of `block_size` tokens in numbers of `dtype`: `groups` (of [`super::group_layers`]) with how many blocks each has.
    /// Memory is taken as blocks are first written.
    ///
    /// # Errors
    /// If the system refuses the address space, or the block size is no multiple of 16.
    ///
    /// # Panics
    /// If a layer is in no group.
    pub fn new(
        layers: &[LayerSpec],
        groups: Vec<(LayerGroup, usize)>,
        threads: Arc<Pool>,
        stream: Stream,
        block_size: usize,
        dtype: KvDtype,
    ) -> Result<Self> {
        let with_pool = |(index, spec): (usize, &LayerSpec)| {
            let group = groups.iter().position(|(group, _)| group.layers.contains(&index));
            let group = group.expect("every layer is in a group");
            let pool = KvPool::new(shape(spec, block_size, groups[group].1, dtype));
            let pool = pool.map_err(|error| vllm_platform::Error::OutOfMemory(error.to_string()))?;
            Ok(Layer { spec: *spec, group, pool: Arc::new(pool) })
        };
        let all = layers.iter().enumerate().map(with_pool).collect::<Result<_>>()?;
        let in_numbers = |(group, num_blocks): &(LayerGroup, usize)| KvGroup {
            window: group.window,
            num_blocks: *num_blocks,
            block_bytes: block_bytes(group, layers, block_size, dtype),
        };
        let spec = KvCacheSpec { block_size, dtype, groups: groups.iter().map(in_numbers).collect(), rewind: None };
        let touched = vec![0; groups.len()];
        let groups = groups.into_iter().map(|(group, _)| group).collect();
        Ok(Self { layers: all, groups, spec, threads, stream, touched })
    }

    /// Notes that blocks up to and including `block` are being written.
    fn touch(&mut self, group: usize, block: BlockId) {
        self.touched[group] = self.touched[group].max(block + 1);
    }

    fn pools(&self, group: usize) -> impl Iterator<Item = &KvPool> {
        self.groups[group].layers.iter().map(|&layer| &*self.layers[layer].pool)
    }
}

fn shape(layer: &LayerSpec, block_size: usize, blocks: usize, dtype: KvDtype) -> KvShape {
    let kind = match dtype {
        KvDtype::F32 => KvKind::F32,
        KvDtype::F16 => KvKind::F16,
        KvDtype::Bf16 => KvKind::Bf16,
        KvDtype::Int8 => KvKind::Int8,
    };
    KvShape { blocks, block_size, kv_heads: layer.kv_heads, head_dim: layer.head_dim, kind }
}

/// Bytes of a block over all layers of `group`.
pub(super) fn block_bytes(group: &LayerGroup, layers: &[LayerSpec], block_size: usize, dtype: KvDtype) -> u64 {
    group.layers.iter().map(|&layer| shape(&layers[layer], block_size, 0, dtype).block_bytes() as u64).sum()
}

impl KvStore for PagedKv {
    fn begin_step(&mut self, layout: &Layout) {
        for group in 0..self.groups.len() {
            if let Some(slot) = layout.slots(group).iter().max() {
                self.touch(group, slot / dim(self.spec.block_size).cast_unsigned());
            }
        }
    }

    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor> {
        let Layer { spec: LayerSpec { head_dim, window, .. }, group, ref pool } = self.layers[layer];
        let (pool, threads, layout) = (Arc::clone(pool), Arc::clone(&self.threads), batch.at_evaluation());
        let attention_layer = Attention { heads: spec.heads, scale: spec.scale, causal: true, window, softcap: None };
        let shape = [dim(batch.len()), dim(spec.heads * head_dim)];
        let [out] = cpu_primitive(
            &self.stream,
            c"paged_attention",
            &[q, k, v],
            [Output::f32(&shape)],
            move |inputs, outputs| {
                let layout = layout.get();
                pool.write(&threads, inputs[1].f32(), inputs[2].f32(), layout.slots(group));
                let rows = layout.ragged(group);
                attention(&threads, inputs[0].f32(), &pool, &rows, &attention_layer, outputs[0].f32());
                Ok(())
            },
        )?;
        Ok(out)
    }

    fn name(&self) -> &'static str {
        "paged 1"
    }

    fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    fn copy_block(&mut self, copy: &BlockCopy) -> Result<()> {
        for block in [copy.from, copy.to] {
            check_block(&self.spec, copy.group, block, copy.tokens)?;
        }
        self.touch(copy.group, copy.to);
        for pool in self.pools(copy.group) {
            pool.copy_blocks(&[(copy.from, copy.to)]);
        }
        Ok(())
    }

    /// Layer after layer, each as [`KvPool::export_block`] has it.
    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>> {
        check_block(&self.spec, group, block, tokens)?;
        let mut bytes = vec![0; self.pools(group).map(|pool| pool.export_bytes(tokens)).sum()];
        let mut rest = &mut bytes[..];
        for pool in self.pools(group) {
            let (part, after) = rest.split_at_mut(pool.export_bytes(tokens));
            pool.export_block(block, tokens, part).map_err(|error| Error::Plan(error.to_string()))?;
            rest = after;
        }
        Ok(bytes)
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()> {
        check_block(&self.spec, group, block, tokens)?;
        let wanted: usize = self.pools(group).map(|pool| pool.export_bytes(tokens)).sum();
        if bytes.len() != wanted {
            let found = bytes.len();
            return Err(Error::Plan(format!(
                "{found} bytes for {tokens} tokens of group {group}, which have {wanted}"
            )));
        }
        self.touch(group, block);
        let mut rest = bytes;
        for pool in self.pools(group) {
            let (part, after) = rest.split_at(pool.export_bytes(tokens));
            pool.import_block(block, tokens, part).map_err(|error| Error::Plan(error.to_string()))?;
            rest = after;
        }
        Ok(())
    }

    fn unaccounted_bytes(&self) -> u64 {
        let groups = self.spec.groups.iter().zip(&self.touched);
        groups.map(|(group, &touched)| group.block_bytes * u64::from(touched)).sum()
    }
}
