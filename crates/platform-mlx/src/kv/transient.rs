//! Keys and values of whole texts, or of pictures, forgotten as soon as a layer has attended: what encoders need of a
//! [`KvStore`].
//!
//! On the CPU all layers share one small pool, over which our attention kernel runs as ever: the texts of a batch need no
//! padding. A layer's primitive reads what the layer before has made, so that no two are in the pool at once.

use std::sync::Arc;

use mlx_rs::{
    Stream,
    fast::{ScaledDotProductAttentionMask, scaled_dot_product_attention},
    ops::{concatenate, indexing::TryIndexOp},
    transforms::eval,
};
use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, attention};
use vllm_platform::{BlockCopy, BlockId, KvCacheSpec, KvDtype, KvGroup};

use super::{AttentionSpec, KvStore, contiguous::visible_mask, slices::slices};
use crate::{
    Batch, Error, Layout, Ops, Result, Span, Tensor,
    batch::dim,
    ffi::{Output, cpu_primitive},
    model::LayerSpec,
};

/// Tokens of a block: the least there can be, since each text begins a new one.
const BLOCK_SIZE: usize = 16;

/// Rows that [`Attending::by_rows`] computes at once on the CPU: some 20 GFLOP in the blocks of a large vision encoder, a tenth
/// of a second on a small machine, and enough for the matrix kernels to be at their best.
const SLICE: usize = 256;

/// Where the keys and values of one layer are while it attends.
pub struct TransientKv {
    layers: Vec<LayerSpec>,
    /// Whether tokens see only what is before them.
    causal: bool,
    spec: KvCacheSpec,
    place: Place,
}

enum Place {
    /// A pool for each shape of layers.
    Cpu { pools: Vec<Arc<KvPool>>, threads: Arc<Pool>, stream: Stream },
    /// None: MLX attends over the arrays as they are.
    Mlx,
}

impl TransientKv {
    /// Room for one text of `longest` tokens, or several of `together` tokens in all.
    ///
    /// # Errors
    /// If the system refuses the address space.
    pub fn new(layers: Vec<LayerSpec>, causal: bool, ops: &Ops, longest: usize, together: usize) -> Result<Self> {
        let mut kv = Self::empty(layers, causal, ops);
        // Each text begins a block, and may be as short as one token.
        kv.reserve(longest.div_ceil(BLOCK_SIZE).max(together))?;
        Ok(kv)
    }

    /// No room yet: [`segments`](Attending::segments) makes it.
    pub(crate) fn empty(layers: Vec<LayerSpec>, causal: bool, ops: &Ops) -> Self {
        let place = match ops.threads() {
            None => Place::Mlx,
            Some((threads, stream)) => {
                Place::Cpu { pools: Vec::new(), threads: Arc::clone(threads), stream: stream.clone() }
            }
        };
        let group = KvGroup { window: None, num_blocks: 0, block_bytes: 0 };
        let spec = KvCacheSpec { block_size: BLOCK_SIZE, dtype: KvDtype::F32, groups: vec![group], rewind: None };
        Self { layers, causal, spec, place }
    }

    /// Makes room for so many blocks.
    fn reserve(&mut self, blocks: usize) -> Result<()> {
        if blocks <= self.spec.groups[0].num_blocks {
            return Ok(());
        }
        self.spec.groups[0].num_blocks = blocks;
        if let Place::Cpu { pools, .. } = &mut self.place {
            pools.clear();
            for layer in &self.layers {
                let shape = shape(layer, blocks);
                if !pools.iter().any(|pool| *pool.shape() == shape) {
                    let pool = KvPool::new(shape);
                    let pool = pool.map_err(|e| vllm_platform::Error::OutOfMemory(e.to_string()))?;
                    pools.push(Arc::new(pool));
                }
            }
        }
        Ok(())
    }

    /// Block tables for texts of these lengths, one after the other.
    pub fn tables(&self, lengths: impl Iterator<Item = usize>) -> Vec<Vec<Vec<BlockId>>> {
        let mut next = 0;
        let table = |len: usize| {
            let first = next;
            next += dim(len.div_ceil(BLOCK_SIZE)).cast_unsigned();
            vec![(first..next).collect()]
        };
        lengths.map(table).collect()
    }

    /// Blocks and their size.
    pub fn spec(&self) -> &KvCacheSpec {
        &self.spec
    }

    /// For one batch; `pause` is called between layers, while nothing is being computed.
    pub fn attending<'a>(&'a mut self, pause: &'a mut dyn FnMut()) -> Attending<'a> {
        Attending { kv: self, pause }
    }

    fn attend_cpu(
        &self,
        layer: usize,
        [q, k, v]: [&Tensor; 3],
        batch: &Batch,
        spec: AttentionSpec,
        pause: &mut dyn FnMut(),
    ) -> Result<Tensor> {
        let Place::Cpu { pools, threads, stream } = &self.place else {
            return Err(Error::Plan("the CPU's attention on another device".into()));
        };
        let (of_layer, blocks) = (&self.layers[layer], self.spec.groups[0].num_blocks);
        let pool = pools.iter().find(|pool| *pool.shape() == shape(of_layer, blocks));
        let pool = Arc::clone(pool.ok_or_else(|| Error::Plan(format!("layer {layer} has no pool")))?);
        let window = of_layer.window.filter(|_| self.causal);
        let how = Attention { heads: spec.heads, scale: spec.scale, causal: self.causal, window, softcap: None };
        let width = dim(spec.heads * of_layer.head_dim);
        // Texts are short, and written and read at once.
        let slices = if self.causal { Vec::new() } else { slices(&batch.layout()) };
        if slices.len() <= 1 {
            let (threads, layout) = (Arc::clone(threads), batch.at_evaluation());
            let shape = [dim(batch.len()), width];
            let outputs = [Output::f32(&shape)];
            let [out] = cpu_primitive(stream, c"encoder_attention", &[q, k, v], outputs, move |inputs, outputs| {
                let layout = layout.get();
                pool.write(&threads, inputs[1].f32(), inputs[2].f32(), layout.slots(0));
                attention(&threads, inputs[0].f32(), &pool, &layout.ragged(0), &how, outputs[0].f32());
                Ok(())
            })?;
            return Ok(out);
        }
        let mut outputs = Vec::with_capacity(slices.len());
        for (i, slice) in slices.into_iter().enumerate() {
            let (threads, pool, layout) = (Arc::clone(threads), Arc::clone(&pool), batch.at_evaluation());
            let q = q.try_index(dim(slice.first)..dim(slice.first + slice.len()))?;
            let shape = [dim(slice.len()), width];
            let output = [Output::f32(&shape)];
            let [output] = cpu_primitive(stream, c"picture_attention", &[&q, k, v], output, move |inputs, outputs| {
                if i == 0 {
                    pool.write(&threads, inputs[1].f32(), inputs[2].f32(), layout.get().slots(0));
                }
                attention(&threads, inputs[0].f32(), &pool, &slice.ragged(), &how, outputs[0].f32());
                Ok(())
            })?;
            eval([&output])?;
            pause();
            outputs.push(output);
        }
        Ok(concatenate(&outputs, 0)?)
    }

    fn attend_mlx(&self, layer: usize, qkv: [&Tensor; 3], batch: &Batch, spec: AttentionSpec) -> Result<Tensor> {
        let width = dim(spec.heads * self.layers[layer].head_dim);
        let one = |span: Span| -> Result<Tensor> {
            let part = |x: &Tensor| -> Result<Tensor> {
                let x = x.try_index(dim(span.first)..dim(span.first + span.len))?;
                Ok(x.transpose_axes(&[1, 0, 2])?.expand_dims(0)?)
            };
            let [q, k, v] = [part(qkv[0])?, part(qkv[1])?, part(qkv[2])?];
            let window = self.layers[layer].window.filter(|&window| self.causal && window < span.len);
            let mask = window.map(|window| visible_mask(0, span.len, 0, Some(window), &[]));
            let mask = match &mask {
                Some(mask) => Some(ScaledDotProductAttentionMask::Array(mask)),
                None => (self.causal && span.len > 1).then_some(ScaledDotProductAttentionMask::Causal),
            };
            let out = scaled_dot_product_attention(&q, &k, &v, spec.scale, mask, None)?;
            Ok(out.transpose_axes(&[0, 2, 1, 3])?.reshape(&[dim(span.len), width])?)
        };
        let outputs = batch.layout().spans().map(one).collect::<Result<Vec<_>>>()?;
        Ok(concatenate(&outputs, 0)?)
    }
}

fn shape(layer: &LayerSpec, blocks: usize) -> KvShape {
    let LayerSpec { kv_heads, head_dim, .. } = *layer;
    KvShape { blocks, block_size: BLOCK_SIZE, kv_heads, head_dim, kind: KvKind::F32 }
}

/// [`TransientKv`] for one batch.
pub struct Attending<'a> {
    kv: &'a mut TransientKv,
    pause: &'a mut dyn FnMut(),
}

impl Attending<'_> {
    /// A batch of segments of these lengths, one after the other, each of which attends within itself: pictures, or windows of
    /// them. `axes`, one position a row each, is where the rows stand for a rotary embedding on two axes; without it a row's
    /// position is its place in the segment. Several batches of the same rows may take turns.
    ///
    /// # Errors
    /// If there are not as many positions as rows, or the system refuses the room.
    pub fn segments(&mut self, lengths: &[usize], axes: Option<[Vec<u32>; 2]>) -> Result<Batch> {
        self.kv.reserve(lengths.iter().map(|len| len.div_ceil(BLOCK_SIZE)).sum())?;
        let tables = self.kv.tables(lengths.iter().copied());
        Ok(Batch::new(Layout::of_segments(lengths, &tables, &self.kv.spec, axes)?.into()))
    }

    /// Computes what each row of x [rows, …] is made of by itself: `f` gets some rows at a time and gives as many. On the CPU these
    /// are few at once, with pauses in between, so that neither others wait long nor large intermediate results pile up.
    ///
    /// # Errors
    /// `f`'s, or MLX's own.
    pub fn by_rows<const N: usize>(
        &mut self,
        x: &Tensor,
        mut f: impl FnMut(&Tensor) -> Result<[Tensor; N]>,
    ) -> Result<[Tensor; N]> {
        let rows = x.dim(0);
        if matches!(self.kv.place, Place::Mlx) || rows <= dim(SLICE) {
            return f(x);
        }
        let mut slices: [Vec<Tensor>; N] = std::array::from_fn(|_| Vec::new());
        for first in (0..rows).step_by(SLICE) {
            let outputs = f(&x.try_index(first..(first + dim(SLICE)).min(rows))?)?;
            eval(&outputs)?;
            (self.pause)();
            slices.iter_mut().zip(outputs).for_each(|(slices, output)| slices.push(output));
        }
        let mut outputs = Vec::with_capacity(N);
        for slices in &slices {
            let output = concatenate(slices, 0)?;
            eval([&output])?;
            outputs.push(output);
        }
        // As many as there are outputs.
        outputs.try_into().map_err(|_| unreachable!())
    }
}

impl KvStore for Attending<'_> {
    /// Evaluates what came before: layers are computed one by one, so that there can be pauses.
    fn attend(
        &mut self,
        layer: usize,
        q: &Tensor,
        k: &Tensor,
        v: &Tensor,
        batch: &Batch,
        spec: AttentionSpec,
    ) -> Result<Tensor> {
        eval([q, k, v])?;
        (self.pause)();
        match &self.kv.place {
            Place::Cpu { .. } => self.kv.attend_cpu(layer, [q, k, v], batch, spec, self.pause),
            Place::Mlx => self.kv.attend_mlx(layer, [q, k, v], batch, spec),
        }
    }

    fn name(&self) -> &'static str {
        "transient 1"
    }

    fn spec(&self) -> &KvCacheSpec {
        &self.kv.spec
    }

    fn copy_block(&mut self, _: &BlockCopy) -> Result<()> {
        Err(nothing_kept())
    }

    fn export_block(&mut self, _: usize, _: BlockId, _: usize) -> Result<Vec<u8>> {
        Err(nothing_kept())
    }

    fn import_block(&mut self, _: usize, _: BlockId, _: usize, _: &[u8]) -> Result<()> {
        Err(nothing_kept())
    }

    fn unaccounted_bytes(&self) -> u64 {
        0
    }
}

fn nothing_kept() -> Error {
    Error::Plan("an encoder keeps no keys and values".into())
}
