//! Listeners that are slow, and some that come back late.

use std::{
    collections::HashSet,
    pin::pin,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;
use vllm_cache::{BlockTables, KvCache, KvEvent, Prefix};
use vllm_platform::{KvCacheSpec, KvDtype, KvGroup, TokenId};

use super::{Journal, KvEvents, KvNews, Recorder};
use crate::handle::Command;

/// Batches and blocks that are kept in these tests.
const KEPT: (usize, usize) = (4, 24);

/// A cache, who writes down what it does, and who answers listeners.
struct Engine {
    cache: KvCache,
    journal: Arc<Journal>,
    recorder: Recorder,
    commands: Arc<Sender<Command>>,
    received: Receiver<Command>,
    there: Vec<BlockTables>,
}

impl Engine {
    fn new() -> Self {
        let groups = vec![KvGroup { window: None, num_blocks: 12, block_bytes: 1 }];
        let spec = KvCacheSpec { block_size: 2, dtype: KvDtype::F32, groups, rewind: None };
        let (journal, recorder) = Journal::keeping(KEPT.0, KEPT.1);
        let (sender, received) = channel();
        let cache = KvCache::new(&spec, true);
        Self { cache, journal, recorder, commands: Arc::new(sender), received, there: Vec::new() }
    }

    /// Computes a sequence if there is room.
    fn compute(&mut self, tokens: &[TokenId]) {
        if self.cache.pools()[0].available() < tokens.len().div_ceil(2) {
            return;
        }
        let table = tokens.chunks(2).map_while(|_| self.cache.allocate(0)).collect();
        self.there.push(vec![table]);
        let tables = self.there.last().unwrap();
        self.cache.index_full(&mut Prefix::new(None), tokens, 0, tables, 0);
    }

    fn end(&mut self, one: usize) {
        if let Some(one) = one.checked_rem(self.there.len()) {
            self.cache.release_tables(&self.there.swap_remove(one));
        }
    }

    fn record(&mut self) {
        self.recorder.record(&mut self.cache);
    }

    fn listen(&self, from: u64) -> Listener {
        let events = KvEvents::new(Arc::downgrade(&self.commands), Arc::clone(&self.journal), from);
        Listener { events, blocks: HashSet::new(), sequence: 0, snapshots: 0 }
    }

    /// Lets a listener read one thing, if there is something.
    fn tell(&mut self, listener: &mut Listener) -> bool {
        for answered in [false, true] {
            if answered {
                while let Ok(command) = self.received.try_recv() {
                    let Command::KvSnapshot(reply) = command else { panic!("{command:?}") };
                    reply.send(self.recorder.snapshot(&mut self.cache)).unwrap();
                }
            }
            let polled = pin!(listener.events.next()).poll(&mut Context::from_waker(Waker::noop()));
            if let Poll::Ready(news) = polled {
                listener.take_in(news.expect("the engine is there"));
                return true;
            }
        }
        false
    }

    fn kept(&self) -> (bool, usize, usize) {
        let kept = crate::handle::lock(&self.journal.kept);
        (kept.recording, kept.batches.len(), kept.blocks)
    }
}

struct Listener {
    events: KvEvents,
    blocks: HashSet<u64>,
    sequence: u64,
    snapshots: usize,
}

impl Listener {
    fn take_in(&mut self, news: KvNews) {
        let (sequence, events) = match news {
            KvNews::Snapshot(snapshot) => {
                self.snapshots += 1;
                assert!(snapshot.sequence >= self.sequence);
                (snapshot.sequence, snapshot.events)
            }
            KvNews::Batch(batch) => {
                assert_eq!(batch.sequence, self.sequence + 1);
                (batch.sequence, batch.events.clone())
            }
        };
        self.sequence = sequence;
        for event in events {
            match event {
                KvEvent::Cleared => self.blocks.clear(),
                KvEvent::Removed { hashes, .. } => assert!(hashes.iter().all(|hash| self.blocks.remove(hash))),
                KvEvent::Stored { blocks, .. } => {
                    assert!(blocks.iter().all(|block| self.blocks.insert(block.hash)));
                }
            }
        }
    }
}

#[test]
fn slow_listeners_are_given_a_snapshot_and_fast_ones_are_not() {
    let mut engine = Engine::new();
    let (mut fast, mut slow) = (engine.listen(0), engine.listen(0));
    assert!(engine.tell(&mut fast) && engine.tell(&mut slow));
    for round in 0..20 {
        engine.compute(&[round, 1, round, 2]);
        engine.record();
        engine.end(0);
        assert!(engine.tell(&mut fast));
    }
    assert!(!engine.tell(&mut fast), "there is nothing more");
    assert!(engine.tell(&mut slow) && !engine.tell(&mut slow));
    assert_eq!((fast.snapshots, slow.snapshots), (1, 2));
    assert_eq!((fast.sequence, &fast.blocks), (slow.sequence, &slow.blocks));
    assert_eq!(engine.kept(), (true, 4, 16), "each speaks of two blocks that came and two that made room");
}

#[test]
fn who_comes_back_in_time_goes_on_where_it_was() {
    for (missed, snapshots) in [(0, 0), (1, 0), (KEPT.0, 0), (KEPT.0 + 1, 1)] {
        let mut engine = Engine::new();
        let mut before = engine.listen(0);
        assert!(engine.tell(&mut before));
        let Listener { blocks, sequence, .. } = before;
        for round in 0..missed as u32 {
            engine.compute(&[round, 1]);
            engine.end(0);
            engine.record();
        }
        let mut back = Listener { blocks, sequence, ..engine.listen(sequence + 1) };
        while engine.tell(&mut back) {}
        assert_eq!((back.blocks.len(), back.snapshots), (missed, snapshots), "{missed} missed");
    }
}

#[test]
fn what_nobody_has_listened_to_for_long_is_written_down_no_longer() {
    let mut engine = Engine::new();
    let batch = |engine: &mut Engine, first: u32| {
        engine.compute(&[first, 1]);
        engine.end(0);
        engine.record();
    };
    batch(&mut engine, 50);
    assert_eq!((engine.cache.is_listening(), engine.kept()), (false, (false, 0, 0)), "nobody ever asked");
    let mut listener = engine.listen(0);
    assert!(engine.tell(&mut listener));
    assert_eq!(listener.blocks.len(), 1);
    let sequence = listener.sequence;
    drop(listener);
    (0..2 + KEPT.0 as u32).for_each(|round| batch(&mut engine, round));
    assert_eq!((engine.cache.is_listening(), engine.kept()), (false, (false, 0, 0)));
    for from in [sequence + 1, sequence + 3, sequence + 3 + KEPT.0 as u64] {
        let mut back = engine.listen(from);
        assert!(engine.tell(&mut back));
        assert_eq!((back.snapshots, back.blocks.len()), (1, 3 + KEPT.0), "from {from}");
        assert!(back.sequence > sequence + KEPT.0 as u64);
    }
}

#[derive(Debug, Clone)]
enum Act {
    Compute(Vec<TokenId>),
    End(usize),
    Clear,
    Record,
    Listen,
    Read(usize),
    /// A listener leaves, and comes back with what it knew or knowing nothing.
    Return(usize, bool),
    Leave(usize),
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        6 => prop::collection::vec(0u32..3, 1..10).prop_map(Act::Compute),
        5 => any::<usize>().prop_map(Act::End),
        1 => Just(Act::Clear),
        6 => Just(Act::Record),
        2 => Just(Act::Listen),
        6 => any::<usize>().prop_map(Act::Read),
        2 => (any::<usize>(), any::<bool>()).prop_map(|(one, knowing)| Act::Return(one, knowing)),
        2 => any::<usize>().prop_map(Act::Leave),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..Default::default() })]

    #[test]
    fn all_listeners_get_to_know_the_same(acts in prop::collection::vec(act(), 1..120)) {
        let mut engine = Engine::new();
        let mut listeners: Vec<Listener> = Vec::new();
        for act in acts {
            match act {
                Act::Compute(tokens) => engine.compute(&tokens),
                Act::End(one) => engine.end(one),
                Act::Clear => drop(engine.cache.clear()),
                Act::Record => engine.record(),
                Act::Listen => listeners.push(engine.listen(0)),
                Act::Read(one) => {
                    if let Some(one) = one.checked_rem(listeners.len()) {
                        engine.tell(&mut listeners[one]);
                    }
                }
                Act::Return(one, knowing) => {
                    if let Some(one) = one.checked_rem(listeners.len()) {
                        let Listener { blocks, sequence, snapshots, .. } = listeners.swap_remove(one);
                        let from = if knowing && sequence > 0 { sequence + 1 } else { 0 };
                        listeners.push(Listener { blocks, sequence, snapshots, ..engine.listen(from) });
                    }
                }
                Act::Leave(one) => {
                    if let Some(one) = one.checked_rem(listeners.len()) {
                        listeners.swap_remove(one);
                    }
                }
            }
            let (_, batches, blocks) = engine.kept();
            prop_assert!(batches <= KEPT.0 && (blocks <= KEPT.1 || batches == 1));
        }
        let mut fresh = engine.listen(0);
        prop_assert!(engine.tell(&mut fresh));
        for listener in &mut listeners {
            while engine.tell(listener) {}
            prop_assert_eq!(&listener.blocks, &fresh.blocks);
        }
    }
}
