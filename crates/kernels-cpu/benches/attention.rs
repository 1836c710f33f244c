//! Attention over paged KV: `cargo bench -p vllm-kernels-cpu --bench attention`; `VLLM_CPU_ISA` picks an instruction set.
//!
//! A prefill's operations don't count what the causal mask hides. A decode reads another pool of KV each time, as in a model, where
//! every layer has its own.

mod support;

use std::hint::black_box;

use support::{Suite, Work, cold_copies, numbers};
use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, RaggedBatch, attention};

/// What attention depends on of a model.
struct Model {
    name: &'static str,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

const MODELS: [Model; 2] = [
    Model { name: "SmolLM2", heads: 9, kv_heads: 3, head_dim: 64 },
    Model { name: "Qwen3", heads: 16, kv_heads: 8, head_dim: 128 },
];
const BLOCK: usize = 16;
const KINDS: [KvKind; 3] = [KvKind::F32, KvKind::F16, KvKind::Int8];

/// A pool with `sequences` sequences of `context` tokens in interleaved blocks.
fn filled(pool: &Pool, model: &Model, kind: KvKind, sequences: usize, context: usize) -> KvPool {
    let (kv_heads, head_dim) = (model.kv_heads, model.head_dim);
    let blocks = sequences * context.div_ceil(BLOCK);
    let kv = KvPool::new(KvShape { blocks, block_size: BLOCK, kv_heads, head_dim, kind });
    let kv = kv.expect("a small pool");
    let slots: Vec<u32> = (0..(blocks * BLOCK) as u32).collect();
    let values = numbers(slots.len() * kv_heads * head_dim);
    kv.write(pool, &values, &values, &slots);
    kv
}

/// The last `queries` tokens of each of `sequences` contexts.
fn run(suite: &mut Suite, model: &Model, kind: KvKind, queries: usize, sequences: usize, context: usize) {
    let (kv_heads, head_dim) = (model.kv_heads, model.head_dim);
    let shape = KvShape { blocks: 1, block_size: BLOCK, kv_heads, head_dim, kind };
    let kv_bytes = sequences * context * shape.block_bytes() / BLOCK;
    let copies = if queries == 1 { cold_copies(kv_bytes) } else { 1 };
    let pools: Vec<KvPool> = (0..copies).map(|_| filled(&suite.pool, model, kind, sequences, context)).collect();
    let q = numbers(sequences * queries * model.heads * model.head_dim);
    let mut out = vec![0.0; q.len()];
    let blocks_each = context.div_ceil(BLOCK);
    let offsets = |step: usize| (0..=sequences).map(|i| (i * step) as u32).collect::<Vec<_>>();
    let (query_offsets, block_offsets) = (offsets(queries), offsets(blocks_each));
    let starts = vec![(context - queries) as u32; sequences];
    let blocks: Vec<u32> =
        (0..sequences).flat_map(|s| (0..blocks_each).map(move |b| (b * sequences + s) as u32)).collect();
    let batch = RaggedBatch {
        query_offsets: &query_offsets,
        starts: &starts,
        until: &[],
        block_offsets: &block_offsets,
        blocks: &blocks,
    };
    let scale = (model.head_dim as f32).sqrt().recip();
    let layer = Attention { heads: model.heads, scale, causal: true, window: None, softcap: None };
    let seen: usize = (context - queries..context).map(|position| position + 1).sum();
    let flops = 4 * sequences * seen * model.heads * model.head_dim;
    let group = if queries == 1 { "attention decode" } else { "attention prefill" };
    let name = format!("{} {sequences} x {context} {kind:?}", model.name);
    suite.bench(group, &name, Work::f32(flops, kv_bytes + 8 * q.len()), |pool, i| {
        attention(pool, black_box(&q), &pools[i % copies], &batch, &layer, &mut out);
    });
}

fn main() {
    let mut suite = Suite::new("attention");
    for (model, kind) in MODELS.iter().flat_map(|model| KINDS.map(|kind| (model, kind))) {
        run(&mut suite, model, kind, 512, 1, 512);
        for (sequences, context) in [(1, 64), (1, 512), (1, 4096), (16, 512)] {
            run(&mut suite, model, kind, 1, sequences, context);
        }
    }
    suite.finish();
}
