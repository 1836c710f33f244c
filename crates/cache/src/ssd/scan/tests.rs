use proptest::prelude::*;

use super::*;
use crate::ssd::SsdEntry;

/// Blocks `0..parents.len()`; block i continues block `parents[i] % i`, the first the root.
fn tree(parents: &[usize]) -> Vec<SsdFound> {
    let mut found: Vec<SsdFound> = vec![];
    for (block, parent) in parents.iter().enumerate() {
        let parent = if block == 0 { BlockHash::root(None) } else { found[parent % block].entry.hash };
        let tokens = vec![block as u32];
        let entry = SsdEntry { hash: parent.extend(&tokens), parent, tokens, media: vec![] };
        found.push(SsdFound { entry, groups: vec![true] });
    }
    found
}

proptest! {
    #[test]
    fn parents_come_first_and_everything_comes(
        parents in prop::collection::vec(any::<usize>(), 1..40),
        bad in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        seed in any::<u64>(),
    ) {
        let blocks = tree(&parents);
        let mut files: Vec<usize> = (0..blocks.len()).collect();
        files.sort_by_key(|block| (*block as u64 ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let bad: Vec<usize> = bad.iter().map(|bad| bad.index(blocks.len())).collect();

        let mut scan = Scan::new(files.iter().map(|block| blocks[*block].entry.hash).collect());
        let mut told = vec![];
        for block in files {
            let found = &blocks[block];
            prop_assert_eq!(scan.next(), Some(found.entry.hash));
            if bad.contains(&block) {
                scan.without(found.entry.hash, &mut told);
            } else {
                scan.good(found.clone(), &mut told);
            }
        }
        prop_assert_eq!(scan.next(), None);

        let place = |hash: BlockHash| told.iter().position(|found| found.entry.hash == hash);
        for (block, found) in blocks.iter().enumerate() {
            let at = place(found.entry.hash);
            prop_assert_eq!(at.is_none(), bad.contains(&block));
            prop_assert!(at.is_none() || place(found.entry.parent) < at);
        }
        prop_assert_eq!(told.len(), blocks.len() - blocks.iter().enumerate().filter(|(b, _)| bad.contains(b)).count());
    }
}

#[test]
fn a_parent_that_is_not_there_is_not_waited_for() {
    let blocks = tree(&[0, 0, 1]);
    let mut scan = Scan::new(vec![blocks[2].entry.hash, blocks[1].entry.hash]);
    let mut told = vec![];
    scan.good(blocks[2].clone(), &mut told);
    assert_eq!(told, []);
    scan.good(blocks[1].clone(), &mut told);
    assert_eq!(told, [blocks[1].clone(), blocks[2].clone()]);
}
