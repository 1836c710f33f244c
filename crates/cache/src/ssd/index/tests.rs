use proptest::prelude::*;

use super::*;

fn name(number: u8) -> BlockHash {
    BlockHash([number; 16])
}

fn slot(index: &mut Index, size: u64, parent: Option<u8>) -> Slot {
    let used = index.tick(0);
    Slot { size, used, marked: used, known: parent.map(|parent| Known { parent: name(parent), groups: 1 }) }
}

fn index(blocks: &[(u8, Option<u8>)]) -> Index {
    let mut index = Index::default();
    for (block, parent) in blocks {
        let slot = slot(&mut index, 10, *parent);
        index.insert(name(*block), slot);
    }
    index
}

fn drain(mut index: Index) -> Vec<u8> {
    let mut order = vec![];
    while let Some(victim) = index.victim() {
        index.remove(victim);
        order.push(victim.0[0]);
    }
    assert_eq!((index.len(), index.bytes()), (0, 0));
    order
}

#[test]
fn longest_unused_first_and_ends_before_beginnings() {
    /// A name, blocks with their parents, uses, and the order in which they go.
    type Case = (&'static str, &'static [(u8, Option<u8>)], &'static [u8], &'static [u8]);
    let cases: [Case; 5] = [
        ("by age", &[(1, Some(0)), (2, Some(0)), (3, Some(0))], &[], &[1, 2, 3]),
        ("a use counts", &[(1, Some(0)), (2, Some(0)), (3, Some(0))], &[1], &[2, 3, 1]),
        ("a chain from its end", &[(1, Some(0)), (2, Some(1)), (3, Some(2)), (4, Some(0))], &[], &[3, 2, 1, 4]),
        ("the older branch first", &[(1, Some(0)), (2, Some(1)), (3, Some(1))], &[2], &[3, 2, 1]),
        ("headers not read yet: by age", &[(1, None), (2, None)], &[], &[1, 2]),
    ];
    for (name, blocks, uses, order) in cases {
        let mut index = index(blocks);
        for block in uses {
            index.touch(self::name(*block), 0, u64::MAX);
        }
        assert_eq!(drain(index), order, "{name}");
    }
}

#[test]
fn marks_are_renewed_when_stale_only() {
    let mut index = Index::default();
    index.insert(name(1), Slot { size: 1, used: 100, marked: 100, known: None });
    assert!(!index.touch(name(1), 150, 60), "50 later");
    assert!(index.touch(name(1), 161, 60), "61 later");
    assert!(!index.touch(name(1), 170, 60), "9 after it was renewed");
    assert!(!index.touch(name(2), 1000, 60), "not there");
}

#[derive(Debug, Clone)]
enum Action {
    /// Block, size, and how many below it its parent is; 0: not known.
    Insert(u8, u64, u8),
    Learn(u8, u8),
    Touch(u8, u64),
    Remove(u8),
    Evict,
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        (0u8..20, 0u64..100, 0u8..4).prop_map(|(block, size, up)| Action::Insert(block, size, up)),
        (0u8..20, 1u8..4).prop_map(|(block, up)| Action::Learn(block, up)),
        (0u8..20, 0u64..50).prop_map(|(block, now)| Action::Touch(block, now)),
        (0u8..20).prop_map(Action::Remove),
        Just(Action::Evict),
    ]
}

proptest! {
    #[test]
    fn agrees_with_a_list(actions in prop::collection::vec(action(), 0..150)) {
        let mut index = Index::default();
        // Block, size, parent; by last use.
        let mut list: Vec<(u8, u64, Option<u8>)> = vec![];
        let parent = |block: u8, up: u8| (up > 0).then_some(block.wrapping_sub(up));
        for action in actions {
            match action {
                Action::Insert(block, size, up) => {
                    let slot = slot(&mut index, size, parent(block, up));
                    index.insert(name(block), slot);
                    list.retain(|(other, ..)| *other != block);
                    list.push((block, size, parent(block, up)));
                }
                Action::Learn(block, up) => {
                    let parent = block.wrapping_sub(up);
                    index.learn(name(block), Known { parent: name(parent), groups: 1 });
                    if let Some(known) = list.iter_mut().find(|(other, _, known)| *other == block && known.is_none()) {
                        known.2 = Some(parent);
                    }
                }
                Action::Touch(block, now) => {
                    index.touch(name(block), now, 0);
                    if let Some(at) = list.iter().position(|(other, ..)| *other == block) {
                        let used = list.remove(at);
                        list.push(used);
                    }
                }
                Action::Remove(block) => {
                    let there = list.iter().any(|(other, ..)| *other == block);
                    prop_assert_eq!(index.remove(name(block)).is_some(), there);
                    list.retain(|(other, ..)| *other != block);
                }
                Action::Evict => {
                    let mut expected = list.first().map(|(block, ..)| *block);
                    while let Some(child) = list.iter().find(|(_, _, parent)| expected.is_some() && *parent == expected) {
                        expected = Some(child.0);
                    }
                    prop_assert_eq!(index.victim(), expected.map(name));
                    if let Some(block) = expected {
                        index.remove(name(block));
                        list.retain(|(other, ..)| *other != block);
                    }
                }
            }
            prop_assert_eq!(index.len(), list.len());
            prop_assert_eq!(index.bytes(), list.iter().map(|(_, size, _)| size).sum::<u64>());
        }
    }
}
