//! Who keeps what events say has what lookups find.

use std::collections::HashMap;

use super::{tests::*, *};
use crate::{KvEvent, KvTier, StoredBlock};

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
    let mut known = Known::default();
    known.take_in(cache.snapshot());
    assert_eq!(known.blocks.len(), 3);
    assert_eq!(cache.clear(), 5, "with the two unfilled ones");
    assert_eq!(cache.take_events(), [KvEvent::Cleared]);
    assert_eq!(cache.snapshot(), [KvEvent::Cleared]);
}
