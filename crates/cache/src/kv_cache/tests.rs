use vllm_platform::KvDtype;

use super::*;
use crate::SsdEntry;

pub(super) fn cache(blocks: usize, windowed: Option<(usize, usize)>, rewind: Option<usize>) -> KvCache {
    let mut groups = vec![KvGroup { window: None, num_blocks: blocks, block_bytes: 1 }];
    groups.extend(windowed.map(|(window, num_blocks)| KvGroup { window: Some(window), num_blocks, block_bytes: 1 }));
    KvCache::new(&KvCacheSpec { block_size: 4, dtype: KvDtype::F32, groups, rewind }, true)
}

/// A sequence that is computed in one go.
pub(super) struct Computed {
    pub prefix: Prefix,
    pub tokens: Vec<TokenId>,
    pub tables: BlockTables,
    pub floor: usize,
}

pub(super) fn compute(cache: &mut KvCache, salt: Option<&str>, tokens: &[TokenId]) -> Computed {
    let mut prefix = Prefix::new(salt);
    prefix.extend(tokens, 4);
    let hit = cache.find(&prefix, tokens, true);
    let Adopted { mut tables, floor, copies } = cache.adopt(&hit).expect("room for the copies");
    for (group, table) in tables.iter_mut().enumerate() {
        while table.len() < tokens.len().div_ceil(4) {
            table.push(cache.allocate(group).expect("room for the sequence"));
        }
    }
    copies.iter().for_each(|copy| cache.release(copy.group, copy.from));
    cache.index_full(&mut prefix, tokens, hit.tokens, &tables, floor);
    Computed { prefix, tokens: tokens.to_vec(), tables, floor }
}

pub(super) fn end(cache: &mut KvCache, mut done: Computed) {
    cache.index_partial(&mut done.prefix, &done.tokens, &done.tables, done.floor);
    cache.release_behind_windows(&mut done.tables, done.tokens.len());
    cache.release_tables(&done.tables);
}

pub(super) fn found(cache: &KvCache, salt: Option<&str>, tokens: &[TokenId]) -> usize {
    let mut prefix = Prefix::new(salt);
    prefix.extend(tokens, 4);
    cache.find(&prefix, tokens, true).tokens
}

pub(super) fn range(tokens: std::ops::Range<u32>) -> Vec<TokenId> {
    tokens.collect()
}

#[test]
fn what_was_computed_is_found_up_to_the_last_token() {
    let mut cache = cache(32, None, None);
    let done = compute(&mut cache, None, &range(0..10));
    assert_eq!(found(&cache, None, &range(0..10)), 8, "full blocks are found while the sequence lives");
    end(&mut cache, done);
    let cases: [(&str, Vec<TokenId>, usize); 8] = [
        ("exact repeat", range(0..10), 9),
        ("longer", range(0..30), 10),
        ("ends at a block", range(0..8), 7),
        ("ends within a block", range(0..6), 5),
        ("parts in the second block", [range(0..6), vec![99, 7]].concat(), 6),
        ("parts at once", range(1..10), 0),
        ("one token", vec![0], 0),
        ("parts in the first block", vec![0, 1, 99, 98, 97], 2),
    ];
    for (name, tokens, wanted) in cases {
        assert_eq!(found(&cache, None, &tokens), wanted, "{name}");
    }
    assert_eq!(found(&cache, Some("tenant"), &range(0..10)), 0);
}

#[test]
fn whole_blocks_are_shared_and_the_rest_is_copied() {
    let mut cache = cache(32, None, None);
    let first = compute(&mut cache, None, &range(0..10));
    let in_use = cache.pools()[0].in_use();
    let second = compute(&mut cache, None, &[range(0..9), range(50..52)].concat());
    assert_eq!(second.tables[0][..2], first.tables[0][..2]);
    assert_ne!(second.tables[0][2], first.tables[0][2]);
    assert_eq!(cache.pools()[0].in_use(), in_use + 1);
    end(&mut cache, first);
    end(&mut cache, second);
    assert_eq!(cache.pools()[0].in_use(), 0);

    let mut prefix = Prefix::new(None);
    let tokens = [range(0..9), vec![50, 99]].concat();
    prefix.extend(&tokens, 4);
    let hit = cache.find(&prefix, &tokens, true);
    assert_eq!(hit.tokens, 10);
    let adopted = cache.adopt(&hit).unwrap();
    assert_eq!(adopted.copies.len(), 1);
    assert_eq!(adopted.copies[0].tokens, 2);
    assert_eq!(cache.find(&prefix, &tokens, false).tokens, 8, "without copies");
}

#[test]
fn the_least_recently_used_goes_first_and_its_tail_before_its_head() {
    let mut cache = cache(6, None, None);
    for base in [0, 100] {
        let done = compute(&mut cache, None, &range(base..base + 12));
        end(&mut cache, done);
    }
    assert_eq!((found(&cache, None, &range(0..20)), found(&cache, None, &range(100..120))), (12, 12));
    let taken: Vec<_> = (0..2).map(|_| cache.allocate(0).unwrap()).collect();
    assert_eq!((found(&cache, None, &range(0..20)), found(&cache, None, &range(100..120))), (4, 12));
    assert_eq!(cache.stats(), KvCacheStats { indexed_blocks: 4, evictions: 2 });
    taken.into_iter().for_each(|block| cache.release(0, block));
    assert_eq!(cache.clear(), 4);
    assert_eq!((found(&cache, None, &range(100..120)), cache.pools()[0].kept()), (0, 0));
}

#[test]
fn a_copy_without_room_changes_nothing() {
    let mut cache = cache(3, None, None);
    let done = compute(&mut cache, None, &range(0..10));
    end(&mut cache, done);
    let held: Vec<_> = compute(&mut cache, None, &range(0..9)).tables[0].clone();
    assert_eq!(held.len(), 3);
    let mut prefix = Prefix::new(None);
    prefix.extend(&range(0..9), 4);
    let hit = cache.find(&prefix, &range(0..9), true);
    let before = cache.pools()[0].in_use();
    if hit.tokens > 8 {
        assert!(cache.adopt(&hit).is_none());
    }
    assert_eq!(cache.pools()[0].in_use(), before);
}

#[test]
fn windowed_layers_need_their_window_only() {
    // Window of 6: after 12 tokens, tokens 7.. are read, in blocks 1 and 2.
    let mut cache = cache(32, Some((6, 4)), None);
    let done = compute(&mut cache, None, &range(0..16));
    end(&mut cache, done);
    assert_eq!(found(&cache, None, &range(0..20)), 16);
    // The windowed pool of 4 blocks is used up by others: block 3 goes last.
    let taken: Vec<_> = (0..2).map(|_| cache.allocate(1).unwrap()).collect();
    assert_eq!(found(&cache, None, &range(0..20)), 16, "blocks 0 and 1 are not read there");
    assert_eq!(found(&cache, None, &range(0..12)), 0, "what is read after 11 tokens is gone");
    let more = cache.allocate(1).unwrap();
    assert_eq!(found(&cache, None, &range(0..20)), 0);
    taken.into_iter().chain([more]).for_each(|block| cache.release(1, block));
    let again = compute(&mut cache, None, &range(0..16));
    assert_eq!(again.tables[1].len(), 4);
}

#[test]
fn a_block_is_cut_back_only_as_far_as_its_storage_can() {
    let mut cache = cache(32, None, Some(1));
    let done = compute(&mut cache, None, &range(0..3));
    end(&mut cache, done);
    assert_eq!(found(&cache, None, &range(0..9)), 3);
    assert_eq!(found(&cache, None, &range(0..3)), 2);
    assert_eq!(found(&cache, None, &range(0..2)), 0);
}

#[test]
fn a_copy_remembers_what_its_original_had_forgotten() {
    let spec = KvCacheSpec {
        block_size: 64,
        dtype: KvDtype::F32,
        groups: vec![KvGroup { window: None, num_blocks: 8, block_bytes: 1 }],
        rewind: Some(4),
    };
    let mut cache = KvCache::new(&spec, true);
    let first = compute(&mut cache, None, &range(0..20));
    end(&mut cache, first);
    // Cut back to 17, it goes on to 19: storage holds nothing that 15 would read.
    let second = compute(&mut cache, None, &[range(0..17), vec![90, 91]].concat());
    assert_eq!(second.floor, 16);
    end(&mut cache, second);
    for (count, wanted) in [(18, 17), (17, 16), (16, 0)] {
        let tokens = [range(0..count.min(17)), vec![90, 91, 92]].concat();
        let tokens = &tokens[..count as usize];
        assert_eq!(found(&cache, None, tokens), wanted, "{count} tokens");
    }
}

#[test]
fn what_the_ssd_has_is_found_after_it_was_read() {
    let mut cache = cache(4, None, None);
    let done = compute(&mut cache, None, &range(0..8));
    end(&mut cache, done);
    let written = cache.take_new();
    assert_eq!(written.len(), 2);
    let entries: Vec<_> = written
        .iter()
        .map(|hash| {
            let Unwritten { parent, tokens, media, .. } = cache.unwritten(hash).unwrap();
            SsdEntry { hash: *hash, parent, tokens: tokens.to_vec(), media: media.to_vec() }
        })
        .collect();
    for SsdEntry { hash, .. } in &entries {
        cache.set_on_ssd(*hash, true);
        assert!(cache.unwritten(hash).is_none());
    }
    let taken: Vec<_> = (0..4).map(|_| cache.allocate(0).unwrap()).collect();
    let mut prefix = Prefix::new(None);
    prefix.extend(&range(0..12), 4);
    assert_eq!(cache.find(&prefix, &range(0..12), true).tokens, 0);
    assert_eq!(cache.only_on_ssd(&prefix, &range(0..12)), written);
    assert!(cache.make_room(&written[0], &[true]).is_none());
    taken.into_iter().for_each(|block| cache.release(0, block));
    for hash in &written {
        let room = cache.make_room(hash, &[true]).unwrap();
        cache.loaded(*hash, &room);
    }
    let hit = cache.find(&prefix, &range(0..12), true);
    assert_eq!((hit.tokens, hit.ssd_tokens), (8, 8));
    assert!(cache.only_on_ssd(&prefix, &range(0..12)).is_empty());

    // Another process finds the same entries in any order.
    let mut fresh = self::cache(4, None, None);
    for entry in entries.iter().rev() {
        fresh.found_on_ssd(entry);
    }
    assert_eq!(fresh.only_on_ssd(&prefix, &range(0..12)), written);
    fresh.set_on_ssd(written[0], false);
    assert!(fresh.only_on_ssd(&prefix, &range(0..12)).is_empty());
}

#[test]
fn nothing_is_kept_if_it_is_off() {
    let spec = KvCacheSpec {
        block_size: 4,
        dtype: KvDtype::F32,
        groups: vec![KvGroup { window: None, num_blocks: 8, block_bytes: 1 }],
        rewind: None,
    };
    let mut cache = KvCache::new(&spec, false);
    let done = compute(&mut cache, None, &range(0..10));
    end(&mut cache, done);
    assert_eq!((found(&cache, None, &range(0..10)), cache.pools()[0].kept()), (0, 0));
}
