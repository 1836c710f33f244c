//! Attention over paged KV: prefill in GFLOP/s, decode in GB/s of keys and values.
//!
//! `cargo bench -p vllm-kernels-cpu --bench attention`; `VLLM_CPU_ISA` picks an instruction set. Criterion's "elements"
//! are floating-point operations in prefill (what the causal mask hides is not counted).

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, RaggedBatch, attention};

/// (name, heads, KV heads, numbers of a head)
const MODELS: [(&str, usize, usize, usize); 2] = [("SmolLM2-135M", 9, 3, 64), ("Qwen3-0.6B", 16, 8, 128)];
const BLOCK: usize = 16;
const KINDS: [KvKind; 4] = [KvKind::F32, KvKind::F16, KvKind::Bf16, KvKind::Int8];

fn numbers(n: usize) -> Vec<f32> {
    (0..n as u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 8) as f32 / (1 << 23) as f32 - 1.0).collect()
}

/// A pool with `sequences` sequences of `context` tokens in interleaved blocks, and their tables.
fn filled(
    pool: &Pool,
    model: (&str, usize, usize, usize),
    kind: KvKind,
    sequences: usize,
    context: usize,
) -> (KvPool, Vec<u32>) {
    let (_, _, kv_heads, head_dim) = model;
    let blocks = context.div_ceil(BLOCK);
    let shape = KvShape { blocks: sequences * blocks, block_size: BLOCK, kv_heads, head_dim, kind };
    let kv = KvPool::new(shape).expect("a small pool");
    let slots: Vec<u32> = (0..(sequences * blocks * BLOCK) as u32).collect();
    let values = numbers(slots.len() * kv_heads * head_dim);
    kv.write(pool, &values, &values, &slots);
    let tables = (0..sequences).flat_map(|s| (0..blocks).map(move |b| (b * sequences + s) as u32)).collect();
    (kv, tables)
}

fn run(c: &mut Criterion, group: &str, queries: usize, sequences: usize, contexts: &[usize]) {
    let pool = Pool::default();
    let mut group = c.benchmark_group(group);
    group.sample_size(20);
    for (model, kind) in MODELS.into_iter().flat_map(|model| KINDS.map(|kind| (model, kind))) {
        let (name, heads, kv_heads, head_dim) = model;
        let name = format!("{name} {kind:?}");
        for &context in contexts {
            // A prefill takes the whole context, a decode one token at its end.
            let queries = if queries == 0 { context } else { queries };
            let (kv, blocks) = filled(&pool, model, kind, sequences, context);
            let q = numbers(sequences * queries * heads * head_dim);
            let mut out = vec![0.0; q.len()];
            let offsets = |step: usize| (0..=sequences).map(|i| (i * step) as u32).collect::<Vec<_>>();
            let (query_offsets, block_offsets) = (offsets(queries), offsets(context.div_ceil(BLOCK)));
            let starts = vec![(context - queries) as u32; sequences];
            let batch = RaggedBatch {
                query_offsets: &query_offsets,
                starts: &starts,
                block_offsets: &block_offsets,
                blocks: &blocks,
            };
            let layer =
                Attention { heads, scale: (head_dim as f32).sqrt().recip(), causal: true, window: None, softcap: None };
            group.throughput(if queries > 1 {
                let seen: usize = (context - queries..context).map(|position| position + 1).sum();
                Throughput::Elements((4 * sequences * seen * heads * head_dim) as u64)
            } else {
                Throughput::Bytes((sequences * context * kv.block_bytes() / BLOCK) as u64)
            });
            group.bench_with_input(BenchmarkId::new(&name, context), &batch, |b, batch| {
                b.iter(|| attention(&pool, black_box(&q), &kv, batch, &layer, &mut out));
            });
        }
    }
}

fn benches(c: &mut Criterion) {
    run(c, "prefill", 0, 1, &[512, 4096]);
    run(c, "decode", 1, 1, &[16, 64, 512, 4096, 32_768]);
    run(c, "decode of 16", 1, 16, &[512, 4096]);
    run(c, "decode of 64", 1, 64, &[64, 1024]);
}

criterion_group!(attention_benches, benches);
criterion_main!(attention_benches);
