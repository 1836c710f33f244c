//! Attention against a plain f64 reference, and what it promises about bits.

use proptest::prelude::*;

use super::*;
use crate::{
    KvKind, KvShape,
    testing::{assert_close, every_isa, random},
};

/// A step and all it needs, with block tables drawn from a shuffled pool.
struct Step {
    shape: KvShape,
    layer: Attention,
    /// (start, queries) of each row.
    rows: Vec<(usize, usize)>,
    /// Rows and positions of pictures, whose tokens see each other.
    pictures: Vec<(usize, Range<usize>)>,
    tables: Vec<Vec<u32>>,
    /// Keys and values, as stored, of every position of each row's sequence: `[position, kv_heads, head_dim]`.
    sequences: Vec<(Vec<f32>, Vec<f32>)>,
    q: Vec<f32>,
    kv: KvPool,
}

impl Step {
    fn new(shape: KvShape, layer: Attention, rows: &[(usize, usize)], seed: u64) -> Self {
        let blocks_of = |&(start, queries): &(usize, usize)| (start + queries).div_ceil(shape.block_size);
        let needed: usize = rows.iter().map(blocks_of).sum();
        let shape = KvShape { blocks: needed + 3, ..shape };
        // A shuffle: blocks in the order of random keys.
        let keys = random(shape.blocks, seed ^ 77);
        let mut free: Vec<u32> = (0..shape.blocks as u32).collect();
        free.sort_by(|&a, &b| keys[a as usize].total_cmp(&keys[b as usize]));
        let kv = KvPool::new(shape).unwrap();
        let pool = Pool::new(1);
        // What no query may look at: every slot is NaN until it is written.
        let width = shape.kv_heads * shape.head_dim;
        let slots = shape.blocks * shape.block_size;
        let nan = vec![f32::NAN; slots * width];
        kv.write(&pool, &nan, &nan, &(0..slots as u32).collect::<Vec<_>>());
        let (mut tables, mut sequences) = (Vec::new(), Vec::new());
        for (i, row) in rows.iter().enumerate() {
            let tokens = row.0 + row.1;
            let table: Vec<u32> = free.drain(..blocks_of(row)).collect();
            let slots: Vec<u32> = (0..tokens)
                .map(|p| table[p / shape.block_size] * shape.block_size as u32 + (p % shape.block_size) as u32)
                .collect();
            let k = random(tokens * width, seed * 31 + 2 * i as u64);
            let v = random(tokens * width, seed * 31 + 2 * i as u64 + 1);
            kv.write(&pool, &k, &v, &slots);
            // What the kernel is to be compared on is what the pool made of them.
            let (mut k, mut v) = (k, v);
            kv.read(&slots, &mut k, &mut v);
            tables.push(table);
            sequences.push((k, v));
        }
        let tokens: usize = rows.iter().map(|row| row.1).sum();
        // Scores of a few units, so that softmax has something to choose.
        let q = random(tokens * layer.heads * shape.head_dim, seed).iter().map(|v| 4.0 * v).collect();
        Self { shape, layer, rows: rows.to_vec(), pictures: Vec::new(), tables, sequences, q, kv }
    }

    /// Position after the last token that the one at `position` of `row`'s sequence sees.
    fn until(&self, row: usize, position: usize) -> usize {
        let picture = self.pictures.iter().find(|picture| picture.0 == row && picture.1.contains(&position));
        picture.map_or(position + 1, |picture| picture.1.end)
    }

    /// The attention of the queries `q` of `rows` (index of the table, start, queries).
    fn attend(&self, pool: &Pool, q: &[f32], rows: &[(usize, usize, usize)]) -> Vec<f32> {
        let mut query_offsets = vec![0];
        let mut block_offsets = vec![0];
        let (mut starts, mut until, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        for &(table, start, queries) in rows {
            if !self.pictures.is_empty() {
                until.extend((start..start + queries).map(|position| self.until(table, position) as u32));
            }
            query_offsets.push(query_offsets.last().unwrap() + queries as u32);
            starts.push(start as u32);
            blocks.extend(&self.tables[table]);
            block_offsets.push(blocks.len() as u32);
        }
        let batch = RaggedBatch {
            query_offsets: &query_offsets,
            starts: &starts,
            until: &until,
            block_offsets: &block_offsets,
            blocks: &blocks,
        };
        let mut out = vec![f32::NAN; q.len()];
        attention(pool, q, &self.kv, &batch, &self.layer, &mut out);
        out
    }

    fn all(&self, pool: &Pool) -> Vec<f32> {
        let rows: Vec<_> = self.rows.iter().enumerate().map(|(i, &(start, queries))| (i, start, queries)).collect();
        self.attend(pool, &self.q, &rows)
    }

    /// f32 of queries before row `row`.
    fn offset(&self, row: usize) -> usize {
        self.rows[..row].iter().map(|row| row.1).sum::<usize>() * self.layer.heads * self.shape.head_dim
    }

    fn reference(&self) -> Vec<f64> {
        let KvShape { kv_heads, head_dim: dim, .. } = self.shape;
        let Attention { heads, scale, causal, window, softcap } = self.layer;
        let mut out = Vec::new();
        let mut queries = self.q.chunks(dim);
        for (row, (&(start, count), (k, v))) in self.rows.iter().zip(&self.sequences).enumerate() {
            for position in start..start + count {
                for head in 0..heads {
                    let q = queries.next().unwrap();
                    let place = |p: usize| (p * kv_heads + head / (heads / kv_heads)) * dim;
                    let first = window.map_or(0, |window| (position + 1).saturating_sub(window));
                    let last = if causal { self.until(row, position) - 1 } else { start + count - 1 };
                    let scores: Vec<f64> = (first..=last)
                        .map(|p| {
                            let k = &k[place(p)..][..dim];
                            let score: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                            let score = score * f64::from(scale);
                            softcap.map_or(score, |cap| f64::from(cap) * (score / f64::from(cap)).tanh())
                        })
                        .collect();
                    let greatest = scores.iter().fold(f64::MIN, |a, &b| a.max(b));
                    let weights: Vec<f64> = scores.iter().map(|score| (score - greatest).exp()).collect();
                    let total: f64 = weights.iter().sum();
                    out.extend((0..dim).map(|d| {
                        let values = (first..=last).map(|p| f64::from(v[place(p) + d]));
                        weights.iter().zip(values).map(|(w, v)| w * v).sum::<f64>() / total
                    }));
                }
            }
        }
        out
    }
}

fn shape(block_size: usize, kv_heads: usize, head_dim: usize) -> KvShape {
    KvShape { blocks: 0, block_size, kv_heads, head_dim, kind: KvKind::F32 }
}

fn layer(heads: usize, head_dim: usize) -> Attention {
    Attention { heads, scale: 1.0 / (head_dim as f32).sqrt(), causal: true, window: None, softcap: None }
}

/// (name, block size, heads, kv heads, head_dim, window, softcap, rows)
type Case = (&'static str, usize, usize, usize, usize, Option<usize>, Option<f32>, &'static [(usize, usize)]);

const CASES: [Case; 17] = [
    ("first token", 16, 9, 3, 64, None, None, &[(0, 1)]),
    ("prefill", 16, 9, 3, 64, None, None, &[(0, 150)]),
    ("decode", 16, 9, 3, 64, None, None, &[(300, 1)]),
    ("several tiles, strips that see nothing of a chunk", 16, 2, 1, 32, None, None, &[(100, 330)]),
    ("long decode, split over threads", 32, 2, 1, 64, None, None, &[(5000, 1)]),
    ("late prompt chunk", 32, 4, 4, 64, None, None, &[(250, 70)]),
    ("ragged", 16, 9, 3, 64, None, None, &[(0, 33), (17, 1), (127, 1), (128, 2), (0, 1), (255, 130)]),
    ("row without queries", 16, 2, 2, 32, None, None, &[(4, 0), (9, 3), (0, 0)]),
    ("one KV head", 16, 8, 1, 32, None, None, &[(0, 40), (90, 1)]),
    ("more heads than a tile has rows", 16, 71, 1, 64, None, None, &[(30, 3)]),
    ("Qwen3", 16, 16, 8, 128, None, None, &[(0, 20), (140, 1)]),
    ("Gemma 3", 16, 4, 1, 256, Some(64), None, &[(0, 100), (500, 1), (20, 30)]),
    ("Gemma 2", 32, 8, 4, 256, Some(100), Some(50.0), &[(120, 15), (200, 1)]),
    ("window of one", 16, 2, 1, 40, Some(1), None, &[(0, 20), (200, 1)]),
    ("window as long as a chunk", 16, 6, 2, 80, Some(128), None, &[(0, 300), (383, 1), (384, 1)]),
    ("softcap", 16, 3, 3, 96, None, Some(2.0), &[(10, 30), (150, 1)]),
    ("head of no whole vector", 16, 5, 5, 33, None, None, &[(0, 50), (140, 2)]),
];

const KINDS: [KvKind; 4] = [KvKind::F32, KvKind::F16, KvKind::Bf16, KvKind::Int8];

#[test]
fn attention_matches_f64() {
    for pool in every_isa() {
        for (name, block_size, heads, kv_heads, dim, window, softcap, rows) in CASES {
            for kind in KINDS {
                let layer = Attention { window, softcap, ..layer(heads, dim) };
                let step = Step::new(KvShape { kind, ..shape(block_size, kv_heads, dim) }, layer, rows, 5);
                let what = format!("{:?} {kind:?} {name}", pool.isa());
                assert_close(&step.all(&pool), step.reference(), 3e-6, what);
            }
        }
    }
}

#[test]
fn without_causality_a_query_sees_its_whole_sequence_and_no_other() {
    // (name, heads, head_dim, tokens of each sequence): from one token to several chunks and tiles.
    let cases: [(&str, usize, usize, &[usize]); 4] = [
        ("one token", 12, 32, &[1]),
        ("MiniLM", 12, 32, &[7, 1, 130, 33, 256]),
        ("long", 2, 64, &[600]),
        ("head of no whole vector", 5, 33, &[50, 3]),
    ];
    for pool in every_isa() {
        for (name, heads, dim, lengths) in cases {
            let rows: Vec<_> = lengths.iter().map(|&tokens| (0, tokens)).collect();
            let step = Step::new(shape(16, heads, dim), Attention { causal: false, ..layer(heads, dim) }, &rows, 8);
            let all = step.all(&pool);
            assert_close(&all, step.reference(), 3e-6, format_args!("{:?} {name}", pool.isa()));
            let one_thread = Pool::with_isa(1, pool.isa()).unwrap();
            assert_eq!(step.all(&one_thread), all, "{:?} {name}: one thread", pool.isa());
            for (row, &tokens) in lengths.iter().enumerate() {
                let (from, len) = (step.offset(row), tokens * heads * dim);
                let alone = step.attend(&pool, &step.q[from..from + len], &[(row, 0, tokens)]);
                assert_eq!(alone, all[from..from + len], "{:?} {name}: row {row} alone", pool.isa());
            }
        }
    }
}

/// (name, window, softcap, rows, pictures)
type Album = (&'static str, Option<usize>, Option<f32>, &'static [(usize, usize)], &'static [(usize, Range<usize>)]);

const ALBUMS: [Album; 6] = [
    ("a picture and nothing else", None, None, &[(0, 40)], &[(0, 0..40)]),
    ("text around a picture", None, None, &[(0, 300)], &[(0, 4..260)]),
    ("beyond a window", Some(40), None, &[(0, 330)], &[(0, 20..276)]),
    ("a window within a chunk", Some(10), Some(20.0), &[(100, 60)], &[(0, 110..140)]),
    (
        "two pictures, beside other sequences",
        Some(64),
        None,
        &[(140, 1), (0, 90), (30, 200)],
        &[(1, 3..19), (1, 24..80)],
    ),
    ("half of it is there already", None, None, &[(150, 60), (7, 9)], &[(0, 100..200)]),
];

#[test]
fn tokens_of_a_picture_see_each_other() {
    let many = Pool::new(5);
    for pool in every_isa() {
        for (name, window, softcap, rows, pictures) in ALBUMS {
            for kind in KINDS {
                let what = format!("{:?} {kind:?} {name}", pool.isa());
                let layer = Attention { window, softcap, ..layer(4, 64) };
                let mut step = Step::new(KvShape { kind, ..shape(16, 2, 64) }, layer, rows, 4);
                let plain = step.all(&pool);
                // Ends that are no further than the queries themselves change no bit.
                step.pictures = vec![(0, 0..0)];
                assert_eq!(step.all(&pool), plain, "{what}: no picture");
                step.pictures = pictures.to_vec();
                let all = step.all(&pool);
                assert_close(&all, step.reference(), 3e-6, &what);
                let one_thread = Pool::with_isa(1, pool.isa()).unwrap();
                assert_eq!(step.all(&one_thread), all, "{what}: one thread");
                if pool.isa() == many.isa() {
                    assert_eq!(step.all(&many), all, "{what}: five threads");
                }
                for (row, &(start, queries)) in rows.iter().enumerate() {
                    let (from, width) = (step.offset(row), 4 * 64);
                    let of = |positions: Range<usize>| {
                        from + (positions.start - start) * width..from + (positions.end - start) * width
                    };
                    // Text is what it was, pictures are not.
                    for position in start..start + queries {
                        let same = all[of(position..position + 1)] == plain[of(position..position + 1)];
                        assert_eq!(
                            same,
                            step.until(row, position) == position + 1,
                            "{what}: row {row} token {position}"
                        );
                    }
                    // Alone, and in parts that end where pictures do; in the midst of one where it has begun.
                    for position in start..start + queries {
                        if step.until(row, position) == position + 1 || position % 17 == 0 {
                            let end = step.until(row, position);
                            let part =
                                step.attend(&pool, &step.q[of(position..end)], &[(row, position, end - position)]);
                            assert_eq!(part, all[of(position..end)], "{what}: row {row} from {position}");
                        }
                    }
                }
            }
        }
    }
}

#[test]
fn a_query_gives_the_same_bits_in_every_company() {
    let many = Pool::new(5);
    let pools = every_isa();
    for (pool, kind) in pools.iter().flat_map(|pool| KINDS.map(|kind| (pool, kind))) {
        for (name, block_size, heads, kv_heads, dim, window, softcap, rows) in CASES {
            let name = format!("{kind:?} {name}");
            let layer = Attention { window, softcap, ..layer(heads, dim) };
            let step = Step::new(KvShape { kind, ..shape(block_size, kv_heads, dim) }, layer, rows, 7);
            let all = step.all(pool);
            let one_thread = Pool::with_isa(1, pool.isa()).unwrap();
            assert_eq!(step.all(&one_thread), all, "{:?} {name}: one thread", pool.isa());
            if pool.isa() == many.isa() {
                assert_eq!(step.all(&many), all, "{:?} {name}: five threads", pool.isa());
            }
            for (row, &(start, queries)) in rows.iter().enumerate() {
                let (from, width) = (step.offset(row), heads * dim);
                let q = &step.q[from..from + queries * width];
                let wanted = &all[from..from + queries * width];
                let alone = step.attend(pool, q, &[(row, start, queries)]);
                assert_eq!(alone, wanted, "{:?} {name}: row {row} alone", pool.isa());
                // As prompt chunks, in one step (the rows share a table), and token by token.
                let cut = queries / 3;
                let parts = [(row, start, cut), (row, start + cut, queries - cut)];
                let chunked = step.attend(pool, q, &parts);
                assert_eq!(chunked, wanted, "{:?} {name}: row {row} in chunks", pool.isa());
                for token in (0..queries).step_by(7) {
                    let range = token * width..(token + 1) * width;
                    let decoded = step.attend(pool, &q[range.clone()], &[(row, start + token, 1)]);
                    assert_eq!(decoded, wanted[range], "{:?} {name}: row {row} token {token}", pool.isa());
                }
            }
        }
    }
}

#[test]
fn block_tables_may_hold_anything_before_the_window() {
    let layer = Attention { window: Some(40), ..layer(4, 64) };
    let mut step = Step::new(shape(16, 2, 64), layer, &[(300, 5)], 8);
    let pool = Pool::new(2);
    let wanted = step.all(&pool);
    // The query at 300 sees 261 and later: block 16 is the first.
    step.tables[0][..16].fill(u32::MAX);
    assert_eq!(step.all(&pool), wanted);
}

/// Blocks that left the window may belong to others by now, and a copied block has only the tokens that were asked for:
/// whatever stands outside of what a query sees must not reach it, not even as 0 · NaN.
#[test]
fn what_no_query_sees_may_be_no_number() {
    for pool in every_isa() {
        for kind in KINDS {
            for window in [1, 16, 40, 100, 128, 200] {
                for (start, queries) in [(300, 1), (383, 1), (384, 2), (250, 60), (127, 5)] {
                    let layer = Attention { window: Some(window), softcap: Some(30.0), ..layer(4, 64) };
                    let mut step = Step::new(KvShape { kind, ..shape(16, 2, 64) }, layer, &[(start, queries)], 8);
                    let wanted = step.all(&pool);
                    let first = (start + 1usize).saturating_sub(window);
                    let hidden: Vec<u32> = (0..first).map(|p| step.tables[0][p / 16] * 16 + (p % 16) as u32).collect();
                    for (k, v) in [(f32::NAN, f32::NAN), (f32::INFINITY, f32::NEG_INFINITY)] {
                        step.kv.write(
                            &Pool::new(1),
                            &vec![k; hidden.len() * 128],
                            &vec![v; hidden.len() * 128],
                            &hidden,
                        );
                        assert_eq!(step.all(&pool), wanted, "{:?} {kind:?} {window} {start} {queries}", pool.isa());
                    }
                    step.tables[0][..first / 16].fill(u32::MAX);
                    assert_eq!(step.all(&pool), wanted, "{:?} {kind:?} {window} {start} {queries}", pool.isa());
                }
            }
        }
    }
}

#[test]
fn wrong_arguments_are_refused_in_words() {
    let step = Step::new(shape(16, 2, 64), layer(4, 64), &[(30, 2)], 9);
    let refused = |heads: usize, offsets: &[u32], until: &[u32], blocks: &[u32], window: Option<usize>, q: usize| {
        let batch = RaggedBatch {
            query_offsets: offsets,
            starts: &[30],
            until,
            block_offsets: &[0, blocks.len() as u32],
            blocks,
        };
        let layer = Attention { heads, window, ..step.layer };
        let mut out = vec![0.0; q];
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            attention(&Pool::new(1), &vec![0.0; q], &step.kv, &batch, &layer, &mut out)
        }));
        let payload = result.unwrap_err();
        let fixed = payload.downcast_ref::<&str>().map(|message| message.to_string());
        fixed.or_else(|| payload.downcast_ref::<String>().cloned()).expect("a panic with a message")
    };
    let call = |heads, offsets: &[u32], blocks: &[u32], window, q| refused(heads, offsets, &[], blocks, window, q);
    let width = 4 * 64;
    let until = |until: &[u32]| refused(4, &[0, 2], until, &[0, 1], None, 2 * width);
    let cases = [
        ("heads", call(3, &[0, 2], &[0, 1], None, 2 * width), "3 query heads are no multiple of 2"),
        ("window", call(4, &[0, 2], &[0, 1], Some(0), 2 * width), "window of 0"),
        ("length", call(4, &[0, 2], &[0, 1], None, width), "for 2 tokens of 4 heads of 64"),
        ("short table", call(4, &[0, 2], &[0], None, 2 * width), "a table of 1 blocks of 16 for 32 tokens"),
        ("unknown block", call(4, &[0, 2], &[0, 99], None, 2 * width), "names block 99 of a pool of 5"),
        ("offsets", call(4, &[0, 1, 2], &[0, 1], None, 2 * width), "ascending offsets"),
        ("few ends", until(&[32]), "1 ends of what is seen for 2 tokens"),
        ("beyond the row", until(&[0, 33]), "more than the row's 32 tokens"),
        ("fewer than before", refused(4, &[0, 3], &[33, 32, 0], &[0, 1, 2], None, 3 * width), "see less than those"),
    ];
    for (name, message, wanted) in cases {
        assert!(message.contains(wanted), "{name}: {message}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_ragged_batch_matches_f64(
        rows in prop::collection::vec((0usize..400, 0usize..40), 1..5),
        wide_blocks: bool,
        kv_heads in 1usize..4,
        group in 1usize..8,
        eighths in 1usize..17,
        window in prop::option::of(1usize..300),
        kind in prop::sample::select(&KINDS[..]),
        seed in 0u64..1000,
    ) {
        let dim = 8 * eighths;
        let layer = Attention { window, ..layer(kv_heads * group, dim) };
        let shape = KvShape { kind, ..shape(if wide_blocks { 32 } else { 16 }, kv_heads, dim) };
        let step = Step::new(shape, layer, &rows, seed);
        for pool in every_isa() {
            assert_close(&step.all(&pool), step.reference(), 3e-6, format_args!("{:?} {kind:?}", pool.isa()));
        }
    }
}
