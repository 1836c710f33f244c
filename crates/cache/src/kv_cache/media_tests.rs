//! Prefixes with media: found exactly, as far as they are alike and no farther.

use std::collections::HashMap;

use proptest::prelude::*;
use vllm_platform::{ContentHash, KvDtype};

use super::*;
use crate::{MediaMark, SsdEntry};

const SIZE: usize = 4;
/// The id of all tokens that stand for media.
const PAD: TokenId = 9;

/// A sequence: text, and stretches of media.
#[derive(Debug, Clone, Default)]
struct Mixed {
    tokens: Vec<TokenId>,
    marks: Vec<MediaMark>,
}

impl Mixed {
    fn text(mut self, tokens: &[TokenId]) -> Self {
        self.tokens.extend(tokens);
        self
    }

    fn shows(mut self, key: u8, first: usize, len: usize) -> Self {
        self.marks.push(MediaMark { start: self.tokens.len(), len, key: ContentHash([key; 16]), first });
        self.tokens.extend(vec![PAD; len]);
        self
    }

    fn prefix(&self) -> Prefix {
        let mut prefix = Prefix::with_media(None, self.marks.clone());
        prefix.extend(&self.tokens, SIZE);
        prefix
    }

    /// What each token stands for: this is what its KV is.
    fn spelled(&self) -> Vec<(TokenId, Option<(ContentHash, usize)>)> {
        let shown = |place: usize| {
            let mark = self.marks.iter().find(|mark| (mark.start..mark.start + mark.len).contains(&place))?;
            Some((mark.key, mark.first + place - mark.start))
        };
        self.tokens.iter().enumerate().map(|(place, &token)| (token, shown(place))).collect()
    }

    fn common(&self, other: &Self) -> usize {
        self.spelled().iter().zip(other.spelled()).take_while(|(a, b)| **a == *b).count()
    }
}

type Spelled = Vec<(TokenId, Option<(ContentHash, usize)>)>;

/// A cache, and what a runner would have in its blocks: for each token all of the sequence up to it.
struct Model {
    cache: KvCache,
    stored: HashMap<(BlockId, usize), Spelled>,
}

impl Model {
    fn new(blocks: usize) -> Self {
        let groups = vec![KvGroup { window: None, num_blocks: blocks, block_bytes: 1 }];
        let spec = KvCacheSpec { block_size: SIZE, dtype: KvDtype::F32, groups, rewind: None };
        Self { cache: KvCache::new(&spec, true), stored: HashMap::new() }
    }

    fn found(&self, sequence: &Mixed) -> usize {
        self.cache.find(&sequence.prefix(), &sequence.tokens, true).tokens
    }

    /// Computes what is not found; how much was, after a look at what is really there.
    fn compute(&mut self, sequence: &Mixed) -> usize {
        let (mut prefix, tokens, spelled) = (sequence.prefix(), &sequence.tokens, sequence.spelled());
        let hit = self.cache.find(&prefix, tokens, true);
        let Adopted { mut tables, floor, copies } = self.cache.adopt(&hit).expect("room");
        for BlockCopy { from, to, tokens, .. } in &copies {
            for place in 0..*tokens {
                let copied = self.stored[&(*from, place)].clone();
                self.stored.insert((*to, place), copied);
            }
            self.cache.release(0, *from);
        }
        while tables[0].len() < tokens.len().div_ceil(SIZE) {
            tables[0].push(self.cache.allocate(0).expect("room"));
        }
        for place in 0..tokens.len() {
            let slot = (tables[0][place / SIZE], place % SIZE);
            let wanted = &spelled[..=place];
            if place < hit.tokens {
                assert_eq!(self.stored.get(&slot).map(Vec::as_slice), Some(wanted), "token {place} is another's");
            } else {
                self.stored.insert(slot, wanted.to_vec());
            }
        }
        self.cache.index_full(&mut prefix, tokens, hit.tokens, &tables, floor);
        self.cache.index_partial(&mut prefix, tokens, &tables, floor);
        self.cache.release_tables(&tables);
        hit.tokens
    }
}

#[test]
fn a_picture_is_found_as_far_as_it_is_the_same() {
    let first = Mixed::default().text(&[1, 2]).shows(1, 0, 7).text(&[3, 4]);
    let mut model = Model::new(64);
    assert_eq!(model.compute(&first), 0);
    let start = || Mixed::default().text(&[1, 2]);
    let cases = [
        ("the same", start().shows(1, 0, 7).text(&[3, 4]), 10),
        ("and more", start().shows(1, 0, 7).text(&[3, 4, 5, 6]), 11),
        ("another question", start().shows(1, 0, 7).text(&[5, 6]), 9),
        ("another picture", start().shows(2, 0, 7).text(&[3, 4]), 2),
        ("other vectors of it", start().shows(1, 1, 7).text(&[3, 4]), 2),
        ("the token itself, typed", start().text(&[PAD; 7]).text(&[3, 4]), 2),
        ("cut short", start().shows(1, 0, 5).text(&[3, 4]), 7),
        ("then another", start().shows(1, 0, 3).shows(2, 0, 4).text(&[3, 4]), 5),
        ("then typed", start().shows(1, 0, 3).text(&[PAD; 4]).text(&[3, 4]), 5),
        ("in two pieces", start().shows(1, 0, 3).shows(1, 3, 4).text(&[3, 4]), 10),
        ("once more from its start", start().shows(1, 0, 3).shows(1, 0, 4).text(&[3, 4]), 5),
        ("at another place", Mixed::default().text(&[1]).shows(1, 0, 7).text(&[3, 4]), 1),
    ];
    for (name, sequence, wanted) in cases {
        assert_eq!(model.found(&sequence), wanted, "{name}");
        let prefix = sequence.prefix();
        let common = prefix.common(&sequence.tokens, &first.prefix(), &first.tokens);
        assert_eq!(common, sequence.common(&first), "{name}");
    }
}

#[test]
fn what_the_ssd_has_is_matched_by_what_it_shows() {
    let first = Mixed::default().text(&[1, 2]).shows(1, 0, 7).text(&[3, 4]);
    let mut model = Model::new(64);
    model.compute(&first);
    let new = model.cache.take_new();
    let entries: Vec<SsdEntry> = new
        .iter()
        .map(|hash| {
            let Unwritten { parent, tokens, media, .. } = model.cache.unwritten(hash).unwrap();
            let entry = SsdEntry { hash: *hash, parent, tokens: tokens.to_vec(), media: media.to_vec() };
            assert!(entry.is_named_right());
            entry
        })
        .collect();
    assert_eq!(entries.iter().map(|entry| entry.media.len()).collect::<Vec<_>>(), [1, 1, 1]);
    let mut fresh = Model::new(64);
    entries.iter().for_each(|entry| fresh.cache.found_on_ssd(entry));
    let mut wanted = |sequence: &Mixed| fresh.cache.only_on_ssd(&sequence.prefix(), &sequence.tokens);
    assert_eq!(wanted(&first), new);
    assert_eq!(wanted(&Mixed::default().text(&[1, 2]).shows(1, 0, 7).text(&[9, 9])), new);
    assert_eq!(wanted(&Mixed::default().text(&[1, 2]).shows(1, 0, 5).text(&[9, 9])), new[..2]);
    assert_eq!(wanted(&Mixed::default().text(&[1, 2]).shows(2, 0, 7).text(&[3, 4])), new[..1], "two tokens of text");
    assert_eq!(wanted(&Mixed::default().text(&[5, 2]).shows(1, 0, 7).text(&[3, 4])), []);
}

fn mixed() -> impl Strategy<Value = Mixed> {
    let piece = prop_oneof![
        // The typed placeholder among them.
        prop::collection::vec(prop_oneof![Just(1), Just(2), Just(PAD)], 1..4).prop_map(|text| (text, None)),
        (0u8..2, 0usize..2, 1usize..8).prop_map(|shown| (Vec::new(), Some(shown))),
    ];
    prop::collection::vec(piece, 1..6).prop_map(|pieces| {
        pieces.into_iter().fold(Mixed::default(), |sequence, (text, shown)| match shown {
            Some((key, first, len)) => sequence.shows(key, first, len),
            None => sequence.text(&text),
        })
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// With room for all, exactly the longest common beginning is found; with little room, never anything else's KV.
    #[test]
    fn hits_are_exact(sequences in prop::collection::vec(mixed(), 1..12), scarce in any::<bool>()) {
        let mut model = Model::new(if scarce { 16 } else { 512 });
        for (index, sequence) in sequences.iter().enumerate() {
            let before = sequences[..index].iter().map(|earlier| earlier.common(sequence)).max().unwrap_or(0);
            let wanted = before.min(sequence.tokens.len() - 1);
            let found = model.compute(sequence);
            prop_assert!(found <= wanted);
            prop_assert!(scarce || found == wanted, "found {} of {}", found, wanted);
        }
    }
}
