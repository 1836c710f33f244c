//! The two KV stores against each other: our paged attention kernel, and MLX's attention over contiguous extents.

mod support;

use std::sync::Arc;

use mlx_rs::{Stream, with_stream};
use vllm_kernels_cpu::Pool;
use vllm_platform::{BlockId, Features, KvDtype, MediaSpan, Row, SeqId, StepPlan};
use vllm_platform_mlx::{
    Batch, Layout,
    kv::{AttentionSpec, ContiguousKv, KvStore, PagedKv, group_layers},
    model::LayerSpec,
};

use support::numbers;

const MAX_LEN: usize = 320;
const SPEC: AttentionSpec = AttentionSpec { heads: 6, scale: 0.25 };

/// What a step computes: sequence, position of its first token, tokens.
type Step = &'static [(u64, usize, usize)];

/// Pictures, whose tokens see each other: sequence, first token, tokens.
type Pictures = &'static [(u64, usize, usize)];

/// The same step as a batch over `store`'s blocks; `table` names a sequence's.
fn batch(store: &dyn KvStore, step: Step, pictures: Pictures, table: impl Fn(u64) -> Vec<BlockId>) -> Batch {
    let tokens = [0; MAX_LEN];
    let tables: Vec<[Vec<BlockId>; 1]> = step.iter().map(|&(seq, ..)| [table(seq)]).collect();
    let features = Arc::new(Features::new(vec![0.0; MAX_LEN], 1, 1));
    let media: Vec<Vec<MediaSpan>> = step
        .iter()
        .map(|&(seq, start, len)| {
            let seen = pictures.iter().filter(|picture| picture.0 == seq && picture.1 < start + len);
            let span = |&(_, start, len): &(u64, usize, usize)| MediaSpan {
                start,
                len,
                first: 0,
                grid: None,
                bidirectional: true,
                features: Some(Arc::clone(&features)),
            };
            seen.map(span).collect()
        })
        .collect();
    let row = |((&(seq, start, len), tables), media): ((&(u64, usize, usize), _), _)| Row {
        seq: SeqId(seq),
        tokens: &tokens[..len],
        start,
        tables,
        media,
        sample: None,
    };
    let tables = tables.iter().map(|tables| &tables[..]);
    let rows = step.iter().zip(tables).zip(media.iter().map(|media| &media[..])).map(row).collect();
    Batch::new(Layout::new(&StepPlan { rows, ..StepPlan::default() }, store.spec()).expect("a sound plan").into())
}

/// Both stores give the same for every step, whatever the window.
fn assert_agreement(steps: &[Step], pictures: Pictures) {
    let stream = Stream::cpu();
    with_stream(&stream, || {
        for window in [None, Some(16), Some(64)] {
            let layers = [LayerSpec { kv_heads: 2, head_dim: 16, window }];
            let blocks = MAX_LEN / 16;
            let threads = Arc::new(Pool::new(2));
            let groups = group_layers(&layers, MAX_LEN).into_iter().map(|group| (group, 2 * blocks)).collect();
            let mut paged =
                PagedKv::new(&layers, groups, threads, stream.clone(), 16, KvDtype::F32).expect("room for the pool");
            let mut contiguous = ContiguousKv::new(&layers, KvDtype::F32, 2, MAX_LEN, 256);
            for (i, step) in steps.iter().enumerate() {
                let tokens = step.iter().map(|&(.., len)| len as i32).sum();
                let q = numbers(3 * i as u64, &[tokens, 6, 16]);
                let [k, v] = [1, 2].map(|part| numbers(3 * i as u64 + part, &[tokens, 2, 16]));
                // Blocks of the two sequences alternate in the pool.
                let interleaved = |seq| (0..blocks as u32).map(|b| 2 * b + seq as u32).collect();
                let over_blocks = batch(&paged, step, pictures, interleaved);
                let over_slots = batch(&contiguous, step, pictures, |seq| vec![seq as u32]);
                let ours = paged.attend(0, &q, &k, &v, &over_blocks, SPEC).expect("paged");
                let theirs = contiguous.attend(0, &q, &k, &v, &over_slots, SPEC).expect("contiguous");
                let theirs = theirs.contiguous().expect("row-major");
                assert_eq!(ours.shape(), theirs.shape());
                let pairs = ours.as_slice::<f32>().iter().zip(theirs.as_slice::<f32>());
                let worst = pairs.fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
                assert!(worst < 2e-6, "window {window:?}, step {i}: off by {worst}");
            }
        }
    });
}

#[test]
fn the_stores_agree_over_prefill_chunks_decode_and_reused_places() {
    assert_agreement(
        &[
            &[(0, 0, 40)],
            &[(0, 40, 7), (1, 0, 21)],
            &[(1, 21, 1), (0, 47, 1)],
            &[(0, 48, 230), (1, 22, 1)],
            // Another sequence takes the place of the first.
            &[(0, 0, 5), (1, 23, 30)],
            &[(0, 5, 1), (1, 53, 1)],
        ],
        &[],
    );
}

#[test]
fn the_stores_agree_on_tokens_that_see_each_other() {
    assert_agreement(
        &[
            // Text and a picture; the same with more text behind it, and beside a sequence without any.
            &[(0, 0, 60)],
            &[(0, 60, 130), (1, 0, 21)],
            &[(1, 21, 1), (0, 190, 1)],
            // From the midst of a picture on, whose beginning is there already.
            &[(1, 22, 20), (0, 30, 30)],
        ],
        &[(0, 5, 55), (0, 70, 100)],
    );
}
