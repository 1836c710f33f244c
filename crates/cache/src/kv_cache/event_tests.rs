//! Who keeps what events say has what lookups find.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{tests::*, *};
use crate::{KvEvent, KvTier, SsdEntry, StoredBlock};

/// What a listener knows.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Known {
    /// By name: what comes before, tokens, salt.
    pub blocks: HashMap<u64, (Option<u64>, Vec<TokenId>, Option<String>)>,
}

impl Known {
    pub fn take_in(&mut self, events: Vec<KvEvent>) {
        for event in events {
            match event {
                KvEvent::Cleared => self.blocks.clear(),
                KvEvent::Removed { hashes, tier: KvTier::Device } => {
                    for hash in hashes {
                        assert!(self.blocks.remove(&hash).is_some(), "{hash:x} is gone that was not there");
                        let orphan = self.blocks.values().find(|(parent, ..)| *parent == Some(hash));
                        assert!(orphan.is_none(), "{orphan:?} is left without {hash:x}");
                    }
                }
                KvEvent::Stored { blocks, mut parent, salt, tier: KvTier::Device } => {
                    for StoredBlock { hash, tokens, .. } in blocks {
                        assert!(parent.is_none_or(|parent| self.blocks.contains_key(&parent)), "no parent yet");
                        let block = (parent, tokens.to_vec(), salt.as_deref().map(str::to_owned));
                        assert_eq!(self.blocks.insert(hash, block), None, "{hash:x} is there already");
                        parent = Some(hash);
                    }
                }
            }
        }
    }

    /// Whole blocks of `tokens` that are known, the last token left out as lookups do. Found by content alone.
    pub fn find(&self, salt: Option<&str>, tokens: &[TokenId]) -> usize {
        let (mut parent, mut count) = (None, 0);
        for block in tokens[..tokens.len() - 1].chunks_exact(4) {
            let fits = |(before, content, of): &(Option<u64>, Vec<TokenId>, Option<String>)| {
                *before == parent && content == block && of.as_deref() == salt
            };
            let Some((hash, _)) = self.blocks.iter().find(|(_, known)| fits(known)) else { break };
            (parent, count) = (Some(*hash), count + 1);
        }
        count
    }
}

#[test]
fn blocks_are_told_of_with_what_they_follow() {
    let mut cache = cache(8, None, None);
    cache.listen();
    assert_eq!(cache.take_events(), []);
    let first = compute(&mut cache, Some("tenant"), &range(0..10));
    let events = cache.take_events();
    let [KvEvent::Stored { blocks, parent: None, salt: Some(salt), tier: KvTier::Device }] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!((&**salt, blocks.len()), ("tenant", 2), "the last block is not full");
    let name = BlockHash::root(Some("tenant")).extend(&range(0..4)).short();
    assert_eq!((blocks[0].hash, &*blocks[0].tokens), (name, &[0, 1, 2, 3][..]));
    end(&mut cache, first);
    assert_eq!(cache.take_events(), [], "nor when it ends");

    let other = compute(&mut cache, Some("tenant"), &[range(0..4), range(50..56)].concat());
    let events = cache.take_events();
    let [KvEvent::Stored { blocks, parent: Some(parent), .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!((*parent, blocks.len(), &*blocks[0].tokens), (name, 1, &[50, 51, 52, 53][..]));
    end(&mut cache, other);
    assert_eq!(cache.take_events(), []);
    let mut known = Known::default();
    known.take_in(cache.snapshot());
    assert_eq!(known.blocks.len(), 3);
    assert_eq!(cache.clear(), 5, "with the two unfilled ones");
    assert_eq!(cache.take_events(), [KvEvent::Cleared]);
    assert_eq!(cache.snapshot(), [KvEvent::Cleared]);
}

#[test]
fn what_follows_a_block_goes_and_comes_back_with_it() {
    let mut cache = cache(8, None, None);
    let done = compute(&mut cache, None, &range(0..13));
    let (hashes, block) = (done.prefix.hashes.clone(), done.tables[0][0]);
    end(&mut cache, done);
    cache.listen();
    let names: Vec<u64> = hashes.iter().map(BlockHash::short).collect();
    cache.distrust(0, block);
    let removed = KvEvent::Removed { hashes: names.iter().rev().copied().collect(), tier: KvTier::Device };
    assert_eq!(cache.take_events(), [removed], "children before parents");
    assert_eq!(found(&cache, None, &range(0..13)), 0);

    let again = compute(&mut cache, None, &range(0..4));
    let events = cache.take_events();
    let [KvEvent::Stored { blocks, parent: None, .. }] = &events[..] else { panic!("{events:?}") };
    assert_eq!(blocks.iter().map(|block| block.hash).collect::<Vec<_>>(), names);
    assert_eq!(found(&cache, None, &range(0..13)), 12);
    end(&mut cache, again);
}

#[derive(Debug, Clone)]
enum Act {
    /// A sequence begins and is computed.
    Compute {
        salt: usize,
        family: u32,
        shared: usize,
        tail: Vec<u32>,
    },
    /// One of those that are there ends.
    End(usize),
    /// A block of one of those that are there cannot be trusted.
    Distrust(usize, usize),
    Clear,
    /// What was computed is on the SSD, too, from now on; or no longer.
    Written(bool),
    /// What a prompt needs is read from the SSD.
    Read {
        salt: usize,
        family: u32,
    },
    /// The listener is told.
    Tell,
    /// Nobody listens for a while.
    Pause,
    /// Another one joins, and both have to know the same.
    Join,
}

const SALTS: [Option<&str>; 3] = [None, Some(""), Some("tenant")];

fn act() -> impl Strategy<Value = Act> {
    let tail = prop::collection::vec(0u32..3, 1..14);
    prop_oneof![
        8 => (0usize..3, 0u32..2, 0usize..17, tail)
            .prop_map(|(salt, family, shared, tail)| Act::Compute { salt, family, shared, tail }),
        6 => any::<usize>().prop_map(Act::End),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(one, block)| Act::Distrust(one, block)),
        1 => Just(Act::Clear),
        2 => any::<bool>().prop_map(Act::Written),
        3 => (0usize..3, 0u32..2).prop_map(|(salt, family)| Act::Read { salt, family }),
        6 => Just(Act::Tell),
        1 => Just(Act::Pause),
        2 => Just(Act::Join),
    ]
}

fn prompt(family: u32, shared: usize, tail: &[u32]) -> Vec<TokenId> {
    (0..shared as u32).map(|i| 10 + i * 7 + family * 13).chain(tail.iter().copied()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..Default::default() })]

    #[test]
    fn listeners_know_what_lookups_find(acts in prop::collection::vec(act(), 1..80), blocks in 12usize..40) {
        let mut cache = cache(blocks, None, None);
        let mut there: Vec<Computed> = Vec::new();
        let mut known: Option<Known> = None;
        let mut asked: Vec<(Option<&str>, Vec<TokenId>)> = Vec::new();
        let mut indexed = Vec::new();
        for act in acts {
            let told = matches!(act, Act::Tell | Act::Join);
            match act {
                Act::Compute { salt, family, shared, tail } => {
                    let (salt, tokens) = (SALTS[salt], prompt(family, shared, &tail));
                    // Blocks that nobody holds, one more for what is copied from.
                    if cache.pools()[0].available() > tokens.len().div_ceil(4) {
                        asked.push((salt, [&tokens[..], &[99]].concat()));
                        there.push(compute(&mut cache, salt, &tokens));
                        indexed.extend(cache.take_new());
                    }
                }
                Act::End(one) => {
                    if let Some(one) = one.checked_rem(there.len()) {
                        end(&mut cache, there.swap_remove(one));
                    }
                }
                Act::Distrust(one, block) => {
                    if let Some(one) = one.checked_rem(there.len()) {
                        let table = &there[one].tables[0];
                        cache.distrust(0, table[block % table.len()]);
                    }
                }
                Act::Clear => drop(cache.clear()),
                Act::Written(on_ssd) => indexed.iter().for_each(|&hash| cache.set_on_ssd(hash, on_ssd)),
                Act::Read { salt, family } => {
                    let tokens = prompt(family, 17, &[]);
                    let mut prefix = Prefix::new(SALTS[salt]);
                    prefix.extend(&tokens, 4);
                    for hash in cache.only_on_ssd(&prefix, &tokens) {
                        if let Some(room) = cache.make_room(&hash, &[true]) {
                            cache.loaded(hash, &room);
                        }
                    }
                }
                Act::Tell => {}
                Act::Pause => {
                    cache.stop_listening();
                    known = None;
                    prop_assert_eq!(cache.take_events(), []);
                }
                Act::Join => {
                    cache.listen();
                    let events = cache.take_events();
                    let mut other = Known::default();
                    other.take_in(cache.snapshot());
                    if let Some(known) = &mut known {
                        known.take_in(events);
                        prop_assert_eq!(&*known, &other);
                    }
                    known = Some(other);
                }
            }
            if let (true, Some(known)) = (told, &mut known) {
                known.take_in(cache.take_events());
                for (salt, tokens) in &asked {
                    let mut prefix = Prefix::new(*salt);
                    prefix.extend(tokens, 4);
                    prop_assert_eq!(known.find(*salt, tokens), cache.find(&prefix, tokens, false).tokens / 4);
                }
                // And nothing that lookups don't find: all is on the way to some prompt's end.
                let reachable: std::collections::HashSet<u64> = asked.iter().flat_map(|(salt, tokens)| {
                    let mut prefix = Prefix::new(*salt);
                    prefix.extend(tokens, 4);
                    let whole = known.find(*salt, tokens);
                    prefix.hashes.into_iter().take(whole).map(|hash| hash.short()).collect::<Vec<_>>()
                }).collect();
                prop_assert_eq!(known.blocks.len(), reachable.len());
            }
        }
    }
}

#[test]
fn blocks_from_the_ssd_are_told_of_with_the_salt_of_who_asked_for_them() {
    let mut before = cache(8, None, None);
    let done = compute(&mut before, Some("tenant"), &range(0..9));
    let mut parent = BlockHash::root(Some("tenant"));
    let mut now = cache(8, None, None);
    now.listen();
    for (place, &hash) in done.prefix.hashes.iter().enumerate() {
        let tokens = done.tokens[place * 4..][..4].to_vec();
        now.found_on_ssd(&SsdEntry { hash, parent, tokens, media: vec![] });
        parent = hash;
    }
    assert_eq!(now.take_events(), [], "what is on the SSD is not told of");
    let wanted = now.only_on_ssd(&done.prefix, &range(0..9));
    assert_eq!(wanted, done.prefix.hashes);
    // The second one first: whose turn it is to be read depends on the SSD.
    for (hash, told) in [(wanted[1], 0), (wanted[0], 2)] {
        let room = now.make_room(&hash, &[true]).unwrap();
        now.loaded(hash, &room);
        let events = now.take_events();
        let blocks: Vec<u64> = events
            .iter()
            .flat_map(|event| match event {
                KvEvent::Stored { blocks, parent: None, salt, .. } if salt.as_deref() == Some("tenant") => {
                    blocks.iter()
                }
                other => panic!("{other:?}"),
            })
            .map(|block| block.hash)
            .collect();
        assert_eq!(blocks, wanted.iter().map(BlockHash::short).take(told).collect::<Vec<_>>());
    }
}

#[test]
fn blocks_are_told_of_with_the_media_in_them() {
    let mut cache = cache(8, None, None);
    cache.listen();
    let mark = |start, len, first| MediaMark { start, len, key: vllm_platform::ContentHash([7; 16]), first };
    let mut prefix = Prefix::with_media(None, [mark(2, 5, 0)]);
    let tables = vec![(0..2).map(|_| cache.allocate(0).unwrap()).collect()];
    cache.index_full(&mut prefix, &range(0..8), 0, &tables, 0);
    let events = cache.take_events();
    let [KvEvent::Stored { blocks, .. }] = &events[..] else { panic!("{events:?}") };
    let media: Vec<&[MediaMark]> = blocks.iter().map(|block| &block.media[..]).collect();
    assert_eq!(media, [&[mark(2, 2, 0)][..], &[mark(0, 3, 2)]]);
}
