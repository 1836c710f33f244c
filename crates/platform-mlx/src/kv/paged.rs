//! A paged pool and our own CPU attention kernel: the whole ragged batch in one call, over block tables.
//!
//! The pool stands outside the graph (`docs/decisions/0003-paged-kv-outside-the-graph.md`): the primitive that
//! attends also writes the step's keys and values.

use std::sync::Arc;

use mlx_rs::Stream;
use vllm_kernels_cpu::{Attention, FloatKind, KvPool, KvShape, Pool, attention};

use super::{AttentionSpec, KvStore};
use crate::{
    Batch, Error, Result, Tensor,
    batch::dim,
    ffi::{Output, cpu_primitive},
    model::LayerSpec,
};

/// KV storage in blocks, on the CPU.
pub struct PagedKv {
    layers: Vec<(LayerSpec, Arc<KvPool>)>,
    threads: Arc<Pool>,
    stream: Stream,
    block_size: usize,
    num_blocks: usize,
    /// Blocks below this one have been written to: their pages are resident.
    touched: u32,
}

impl PagedKv {
    /// Room for `num_blocks` blocks of `block_size` tokens in f32. Memory is taken as blocks are first written.
    ///
    /// # Errors
    /// If the system refuses the address space, or the block size is no multiple of 16.
    pub fn new(
        layers: Vec<LayerSpec>,
        threads: Arc<Pool>,
        stream: Stream,
        block_size: usize,
        num_blocks: usize,
    ) -> Result<Self> {
        let with_pool = |layer: LayerSpec| {
            let shape = KvShape {
                blocks: num_blocks,
                block_size,
                kv_heads: layer.kv_heads,
                head_dim: layer.head_dim,
                kind: FloatKind::F32,
            };
            let pool = KvPool::new(shape).map_err(|error| vllm_platform::Error::OutOfMemory(error.to_string()))?;
            Ok::<_, Error>((layer, Arc::new(pool)))
        };
        let layers = layers.into_iter().map(with_pool).collect::<Result<_>>()?;
        Ok(Self { layers, threads, stream, block_size, num_blocks, touched: 0 })
    }
}

impl KvStore for PagedKv {
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor> {
        let (LayerSpec { head_dim, window, .. }, kv) = &self.layers[layer];
        let layout = Arc::clone(&batch.layout);
        if let Some(slot) = layout.slots.iter().max() {
            let block = slot / dim(self.block_size).cast_unsigned();
            if block as usize >= self.num_blocks {
                return Err(Error::Plan(format!("block {block} of {} was named", self.num_blocks)));
            }
            self.touched = self.touched.max(block + 1);
        }
        let (kv, threads) = (Arc::clone(kv), Arc::clone(&self.threads));
        let attention_layer = Attention { heads: spec.heads, scale: spec.scale, window: *window, softcap: None };
        let shape = [dim(batch.len()), dim(spec.heads * head_dim)];
        let [out] = cpu_primitive(
            &self.stream,
            c"paged_attention",
            &[q, k, v],
            [Output::f32(&shape)],
            move |inputs, outputs| {
                kv.write(&threads, inputs[1].f32(), inputs[2].f32(), &layout.slots);
                attention(&threads, inputs[0].f32(), &kv, &layout.ragged(), &attention_layer, outputs[0].f32());
                Ok(())
            },
        )?;
        Ok(out)
    }

    fn block_size(&self) -> usize {
        self.block_size
    }

    fn num_blocks(&self) -> usize {
        self.num_blocks
    }

    fn unaccounted_bytes(&self) -> u64 {
        let block: usize = self.layers.iter().map(|(_, pool)| pool.block_bytes()).sum();
        block as u64 * u64::from(self.touched)
    }
}
