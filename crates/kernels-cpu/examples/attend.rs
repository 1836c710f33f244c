//! One attention layer over a paged cache: a prompt of 40 tokens in one piece, then the same in two pieces and token
//! by token, which gives the same bits.

use vllm_kernels_cpu::{Attention, KvKind, KvPool, KvShape, Pool, RaggedBatch, attention};

const HEADS: usize = 4;
const DIM: usize = 64;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = Pool::default();
    let kv = KvPool::new(KvShape { blocks: 8, block_size: 16, kv_heads: 2, head_dim: DIM, kind: KvKind::F32 })?;
    let layer =
        Attention { heads: HEADS, scale: (DIM as f32).sqrt().recip(), causal: true, window: None, softcap: None };

    let numbers = |n: usize| (0..n).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<f32>>();
    let (q, k, v) = (numbers(40 * HEADS * DIM), numbers(40 * 2 * DIM), numbers(40 * 2 * DIM));
    // Token p lies in block table[p / 16]: any blocks will do.
    let table = [5, 0, 3];
    let piece = |start: usize, tokens: usize| {
        let (query_offsets, starts) = ([0, tokens as u32], [start as u32]);
        let batch = RaggedBatch {
            query_offsets: &query_offsets,
            starts: &starts,
            until: &[],
            block_offsets: &[0, table.len() as u32],
            blocks: &table,
        };
        let width = 2 * DIM;
        let rows = start * width..(start + tokens) * width;
        kv.write(&pool, &k[rows.clone()], &v[rows], &batch.slots(16).collect::<Vec<_>>());
        let mut out = vec![0.0; tokens * HEADS * DIM];
        attention(&pool, &q[start * HEADS * DIM..][..out.len()], &kv, &batch, &layer, &mut out);
        out
    };

    let whole = piece(0, 40);
    let halves = [piece(0, 25), piece(25, 15)].concat();
    let single = (0..40).flat_map(|p| piece(p, 1)).collect::<Vec<_>>();
    println!("{pool:?}, {} bytes a block", kv.block_bytes());
    println!("first numbers of the last query: {:?}", &whole[39 * HEADS * DIM..][..4]);
    println!("in two pieces: {}", if halves == whole { "the same bits" } else { "different" });
    println!("token by token: {}", if single == whole { "the same bits" } else { "different" });
    Ok(())
}
