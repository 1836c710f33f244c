//! Sequences made up of numbers, and stores that attend over them.

use std::{ops::Range, sync::Arc};

use mlx_rs::{Array, Stream, ops::indexing::TryIndexOp};
use vllm_kernels_cpu::Pool;
use vllm_platform::{BlockId, KvDtype, NO_BLOCK, Row, SeqId, StepPlan};
use vllm_platform_mlx::{
    Batch, Layout,
    kv::{AttentionSpec, ContiguousKv, KvStore, PagedKv, group_layers},
    model::LayerSpec,
};

use super::numbers;

/// Longest sequence: longer than any window and what an extent keeps before it.
pub const MAX_LEN: usize = 1504;
/// Tokens of a paged block.
pub const BLOCK: usize = 16;
const WINDOWS: [Option<usize>; 4] = [Some(16), None, Some(100), Some(16)];
const SPEC: AttentionSpec = AttentionSpec { heads: 6, scale: 0.25 };

pub fn layers() -> Vec<LayerSpec> {
    WINDOWS.map(|window| LayerSpec { kv_heads: 2, head_dim: 16, window }).to_vec()
}

/// Groups of windows `None`, 100 and 16, with `blocks` blocks each.
pub fn paged(stream: &Stream, blocks: usize) -> PagedKv {
    paged_in(stream, blocks, KvDtype::F32)
}

/// The same in other numbers.
pub fn paged_in(stream: &Stream, blocks: usize, dtype: KvDtype) -> PagedKv {
    let groups = group_layers(&layers(), MAX_LEN).into_iter().map(|group| (group, blocks)).collect();
    PagedKv::new(&layers(), groups, Arc::new(Pool::new(2)), stream.clone(), BLOCK, dtype).expect("room for the pools")
}

pub fn contiguous(slots: usize) -> ContiguousKv {
    ContiguousKv::new(&layers(), KvDtype::F32, slots, MAX_LEN, 256)
}

/// What attention makes of some tokens, layer by layer.
pub type Attended = Vec<Vec<f32>>;

/// Queries, keys and values [`MAX_LEN`, heads, 16] of a sequence, the same for all layers.
#[derive(Clone)]
pub struct Sequence([Array; 3]);

impl Sequence {
    pub fn new(seed: u64) -> Self {
        let part = |part, heads| numbers(3 * seed + part, &[MAX_LEN as i32, heads, 16]);
        Self([part(0, 6), part(1, 2), part(2, 2)])
    }

    /// This one's first `tokens` tokens, and then `other`'s.
    pub fn then(&self, tokens: usize, other: &Self) -> Self {
        let join = |i: usize| {
            let (before, after) = (rows(&self.0[i], 0..tokens), rows(&other.0[i], tokens..MAX_LEN));
            mlx_rs::ops::concatenate(&[before, after], 0).expect("of one shape")
        };
        Self([join(0), join(1), join(2)])
    }

    /// Computes the tokens `range` over `tables`.
    pub fn attend(&self, store: &mut dyn KvStore, range: Range<usize>, tables: &[Vec<BlockId>]) -> Attended {
        self.try_attend(store, range, tables).expect("a sound plan")
    }

    pub fn try_attend(
        &self,
        store: &mut dyn KvStore,
        range: Range<usize>,
        tables: &[Vec<BlockId>],
    ) -> vllm_platform_mlx::Result<Attended> {
        let tokens = vec![0; range.len()];
        let row = Row { seq: SeqId(0), tokens: &tokens, start: range.start, tables, media: &[], sample: None };
        let batch = Batch::new(Layout::new(&StepPlan { rows: vec![row], ..StepPlan::default() }, store.spec())?.into());
        let [q, k, v] = [0, 1, 2].map(|i| rows(&self.0[i], range.clone()));
        let one = |layer| {
            let out = store.attend(layer, &q, &k, &v, &batch, SPEC)?.contiguous()?;
            out.eval()?;
            Ok(out.as_slice::<f32>().to_vec())
        };
        (0..WINDOWS.len()).map(one).collect()
    }

    /// What a store of its own makes of the tokens `range`, once those before it are computed.
    pub fn alone(&self, stream: &Stream, range: Range<usize>) -> Attended {
        self.alone_in(stream, KvDtype::F32, range)
    }

    /// The same with keys and values in other numbers.
    pub fn alone_in(&self, stream: &Stream, dtype: KvDtype, range: Range<usize>) -> Attended {
        let mut store = paged_in(stream, MAX_LEN / BLOCK, dtype);
        let tables = vec![(0..(MAX_LEN / BLOCK) as BlockId).collect(); 3];
        if range.start > 0 {
            self.attend(&mut store, 0..range.start, &tables);
        }
        self.attend(&mut store, range, &tables)
    }
}

fn rows(x: &Array, range: Range<usize>) -> Array {
    x.try_index(range.start as i32..range.end as i32).expect("within the sequence")
}

/// `table` for the three groups of [`paged`], without the blocks that a token at `start` reads no more.
pub fn windowed(store: &dyn KvStore, table: &[BlockId], start: usize) -> Vec<Vec<BlockId>> {
    let of_group = |group: &vllm_platform::KvGroup| {
        let first = group.first_read(start, BLOCK).min(table.len());
        [&vec![NO_BLOCK; first], &table[first..]].concat()
    };
    store.spec().groups.iter().map(of_group).collect()
}

/// Overwrites a block with what is no number.
pub fn poison(store: &mut dyn KvStore, group: usize, block: BlockId) {
    let bytes = store.export_block(group, block, BLOCK).expect("a block").len();
    let nan = f32::NAN.to_le_bytes().repeat(bytes / 4);
    store.import_block(group, block, BLOCK, &nan).expect("a block");
}

pub fn assert_close(what: &str, found: &Attended, wanted: &Attended) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (layer, (found, wanted)) in found.iter().zip(wanted).enumerate() {
        assert_eq!(found.len(), wanted.len(), "{what}, layer {layer}");
        for (a, b) in found.iter().zip(wanted) {
            assert!((a - b).abs() < 2e-6, "{what}, layer {layer}: {a} for {b}");
        }
    }
}
