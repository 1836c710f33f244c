//! What the KV stores do with blocks: copied, given back, cut off, and taken out and in.

mod support;

use mlx_rs::{Stream, with_stream};
use support::sequences::{BLOCK, MAX_LEN, Sequence, assert_close, contiguous, paged, paged_in, poison, windowed};
use vllm_platform::{BlockCopy, BlockId, KvDtype, NO_BLOCK};
use vllm_platform_mlx::kv::KvStore;

fn on_cpu(test: impl FnOnce(&Stream)) {
    let stream = Stream::cpu();
    with_stream(&stream, || test(&stream));
}

/// A sequence goes on where 1 to 48 tokens of another end: whole blocks are shared, the last one is copied.
#[test]
fn a_copied_block_goes_its_own_way() {
    on_cpu(|stream| {
        let (first, other) = (Sequence::new(1), Sequence::new(2));
        let wanted_first = first.alone(stream, 48..60);
        for tokens in 1..=48usize {
            let second = first.then(tokens, &other);
            let wanted = second.alone(stream, tokens..tokens + 20);

            let mut store = paged(stream, 10);
            (0..3).for_each(|group| (0..10).for_each(|block| poison(&mut store, group, block)));
            let table: Vec<BlockId> = vec![7, 2, 4, 1];
            first.attend(&mut store, 0..48, &vec![table.clone(); 3]);
            let (whole, part) = (tokens / BLOCK, tokens % BLOCK);
            let mut own: Vec<_> = table[..whole].iter().copied().chain([9, 0, 5]).collect();
            own.truncate((tokens + 20).div_ceil(BLOCK));
            if part > 0 {
                for group in 0..3 {
                    let copy = BlockCopy { group, from: table[whole], to: 9, tokens: part };
                    store.copy_block(&copy).expect("both blocks");
                }
            }
            let found = second.attend(&mut store, tokens..tokens + 20, &vec![own; 3]);
            assert_eq!(found, wanted, "paged, {tokens} tokens");
            let found = first.attend(&mut store, 48..60, &vec![table; 3]);
            assert_eq!(found, wanted_first, "paged, {tokens} tokens: the original");

            let mut store = contiguous(2);
            first.attend(&mut store, 0..48, &[vec![0]]);
            store.copy_block(&BlockCopy { group: 0, from: 0, to: 1, tokens }).expect("both slots");
            let found = second.attend(&mut store, tokens..tokens + 20, &[vec![1]]);
            assert_close(&format!("contiguous, {tokens} tokens"), &found, &wanted);
            let found = first.attend(&mut store, 48..60, &[vec![0]]);
            assert_close(&format!("contiguous, {tokens} tokens: the original"), &found, &wanted_first);
        }
    });
}

/// As a sequence leaves blocks behind, they are taken by others: NaN stands there from then on.
#[test]
fn what_left_the_window_is_never_read() {
    on_cpu(|stream| {
        let sequence = Sequence::new(3);
        let mut store = paged(stream, 40);
        let table: Vec<BlockId> = (0..30).rev().collect();
        let mut start = 0usize;
        let mut gone = [0; 3];
        for len in [40, 1, 1, 90, 16, 15, 1, 1, 1, 130, 60, 1] {
            let end = start + len;
            let tables = windowed(&store, &table[..end.div_ceil(BLOCK)], start);
            for (group, tables) in tables.iter().enumerate() {
                let given_back = tables.iter().filter(|&&block| block == NO_BLOCK).count();
                table[..given_back].iter().for_each(|&block| poison(&mut store, group, block));
                gone[group] = given_back;
            }
            let found = sequence.attend(&mut store, start..end, &tables);
            assert_eq!(found, sequence.alone(stream, start..end), "{start}..{end}");
            start = end;
        }
        // Before position 356, windows of 100 and of 16.
        assert_eq!(gone, [0, 16, 21]);
    });
}

#[test]
fn what_was_exported_is_imported_bit_by_bit() {
    on_cpu(|stream| {
        let sequence = Sequence::new(4);
        for dtype in KvDtype::ALL {
            let mut from = paged_in(stream, 4, dtype);
            sequence.attend(&mut from, 0..48, &vec![vec![3, 1, 0]; 3]);
            for tokens in 1..=48usize {
                let mut into = paged_in(stream, 9, dtype);
                (0..3).for_each(|group| (0..9).for_each(|block| poison(&mut into, group, block)));
                for (i, (old, new)) in [(3, 0), (1, 8), (0, 5)].into_iter().enumerate() {
                    for group in 0..3 {
                        let held = tokens.saturating_sub(i * BLOCK).min(BLOCK);
                        if held > 0 {
                            let bytes = from.export_block(group, old, held).expect("a block");
                            into.import_block(group, new, held, &bytes).expect("of the same model");
                        }
                    }
                }
                let found = sequence.attend(&mut into, tokens..tokens + 20, &vec![vec![0, 8, 5, 2, 7]; 3]);
                let wanted = sequence.alone_in(stream, dtype, tokens..tokens + 20);
                assert_eq!(found, wanted, "paged in {dtype}, {tokens} tokens");
            }
        }

        for end in [1, 15, 256, 257, 700, 1300] {
            let [mut from, mut into] = [contiguous(1), contiguous(3)];
            grow(&mut from, &sequence, end, 0);
            let bytes = from.export_block(0, 0, end).expect("a slot");
            into.import_block(0, 2, end, &bytes).expect("of the same model");
            assert_eq!(into.export_block(0, 2, end).expect("a slot"), bytes, "{end} tokens");
            let go_on = |store: &mut dyn KvStore, slot| sequence.attend(store, end..end + 30, &[vec![slot]]);
            assert_eq!(go_on(&mut into, 2), go_on(&mut from, 0), "contiguous, {end} tokens");
        }
    });
}

/// Computes the first `end` tokens in chunks of 100.
fn grow(store: &mut dyn KvStore, sequence: &Sequence, end: usize, slot: BlockId) {
    for start in (0..end).step_by(100) {
        sequence.attend(store, start..end.min(start + 100), &[vec![slot]]);
    }
}

#[test]
fn extents_forget_what_lies_far_before_the_window() {
    on_cpu(|stream| {
        let sequence = Sequence::new(5);
        let mut store = contiguous(1);
        for (start, end) in [(0, 250), (250, 500), (500, 501), (501, 757), (757, 1000), (1000, 1001), (1001, 1250)] {
            let found = sequence.attend(&mut store, start..end, &[vec![0]]);
            assert_close(&format!("{start}..{end}"), &found, &sequence.alone(stream, start..end));
        }
        let token = 2 * 2 * 16 * 4;
        let bytes = store.export_block(0, 0, 1250).expect("a slot").len();
        // One layer keeps everything; windows of 100 and twice 16 (less the next token itself), 256 tokens more.
        assert_eq!(bytes, token * (1250 + (99 + 256) + 2 * (15 + 256)));
        // In room for whole steps of 256: what else a chunk of 256 may need.
        assert_eq!(store.spec().groups[0].block_bytes as usize, token * (1536 + 768 + 2 * 768));
    });
}

#[test]
fn an_extent_is_cut_back_as_far_as_promised_and_no_further() {
    on_cpu(|stream| {
        let (sequence, other) = (Sequence::new(6), Sequence::new(7));
        let mut store = contiguous(3);
        let most = store.spec().rewind.expect("layers with windows");
        for end in [1000, 1024, 1025, 1279, 1280] {
            grow(&mut store, &sequence, end, 0);
            for cut in [0, 1, 17, most - 1, most] {
                let tokens = end - cut;
                store.copy_block(&BlockCopy { group: 0, from: 0, to: 1, tokens }).expect("not too far");
                let second = sequence.then(tokens, &other);
                let found = second.attend(&mut store, tokens..tokens + 40, &[vec![1]]);
                assert_close(&format!("{end} less {cut}"), &found, &second.alone(stream, tokens..tokens + 40));
            }
        }
        let mut copy = |from, to, tokens| store.copy_block(&BlockCopy { group: 0, from, to, tokens });
        let too_far = copy(0, 1, 600).expect_err("forgotten").to_string();
        assert!(too_far.contains("position 600 sees 585, its block kept what is from"), "{too_far}");
        // A copy has no more than its original had.
        copy(0, 1, 1280 - most).expect("not too far");
        copy(1, 2, 1280 - 2 * most).expect_err("forgotten");
        let beyond = copy(0, 1, 1281).expect_err("never computed").to_string();
        assert!(beyond.contains("position 1281 was to follow the 1280 tokens"), "{beyond}");
    });
}

#[test]
fn blocks_that_are_not_there_are_refused() {
    on_cpu(|stream| {
        let sequence = Sequence::new(8);
        let (mut blocks, mut slots) = (paged(stream, 4), contiguous(2));
        sequence.attend(&mut slots, 0..10, &[vec![0]]);
        let stores: [(&mut dyn KvStore, BlockId, usize); 2] = [(&mut blocks, 4, BLOCK), (&mut slots, 2, MAX_LEN)];
        for (store, beyond, size) in stores {
            let groups = store.spec().groups.len();
            let copy = |group, from, to, tokens| BlockCopy { group, from, to, tokens };
            for copy in [copy(groups, 0, 1, 1), copy(0, beyond, 1, 1), copy(0, 0, beyond, 1), copy(0, 0, 1, size + 1)] {
                store.copy_block(&copy).expect_err("there is no such block");
            }
            store.export_block(0, beyond, 1).expect_err("there is no such block");
            store.export_block(groups, 0, 1).expect_err("there is no such group");
            let bytes = store.export_block(0, 0, 10).expect("a block");
            for wrong in [&bytes[1..], &[&bytes[..], &[0]].concat(), &[]] {
                store.import_block(0, 1, 10, wrong).expect_err("of another length");
            }
            store.import_block(0, 1, 11, &bytes).expect_err("of another number of tokens");
            store.import_block(0, 1, 10, &bytes).expect("as it was exported");
        }
        slots.export_block(0, 0, 11).expect_err("it holds ten");
        let mut empty = contiguous(1);
        empty.export_block(0, 0, 1).expect_err("it holds nothing");
        for range in [5..6, 11..12] {
            sequence.try_attend(&mut empty, range.clone(), &[vec![0]]).expect_err("it holds nothing");
            let found = sequence.try_attend(&mut slots, range.clone(), &[vec![0]]);
            assert_eq!(found.is_ok(), range.start == 5, "{range:?}");
        }
    });
}
