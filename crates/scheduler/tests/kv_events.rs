//! Random engine runs with listeners that come, go and come back: all of them know what lookups find.

use std::{collections::HashMap, time::Duration};

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};
use vllm_platform::{
    SamplingParams,
    testing::{FakeConfig, FakeRunner},
};
use vllm_scheduler::{
    Engine, EngineConfig, EngineHandle, Event, EventStream, KvEvent, KvEvents, KvNews, KvTier, Request, SsdOptions,
};

const BLOCK: usize = 4;

/// What comes before a block, its tokens, its salt.
type Block = (Option<u64>, Vec<u32>, Option<String>);

/// Somebody who listens, and what they know.
struct Listener {
    events: KvEvents,
    blocks: HashMap<u64, Block>,
    /// Number of the last batch.
    sequence: u64,
    snapshots: usize,
    /// It didn't come to know nothing.
    resumed: bool,
}

impl Listener {
    fn new(engine: &EngineHandle) -> Self {
        Self { events: engine.kv_events(0), blocks: HashMap::new(), sequence: 0, snapshots: 0, resumed: false }
    }

    /// Comes back with what it knew.
    fn resume(engine: &EngineHandle, old: &Self) -> Self {
        let (blocks, sequence) = (old.blocks.clone(), old.sequence);
        Self { events: engine.kv_events(sequence + 1), blocks, sequence, snapshots: 0, resumed: true }
    }

    async fn next(&mut self) -> bool {
        let events = match self.events.next().await {
            None => return false,
            Some(KvNews::Snapshot(snapshot)) => {
                assert_eq!(snapshot.events[0], KvEvent::Cleared);
                assert!(snapshot.sequence >= self.sequence);
                self.snapshots += 1;
                self.sequence = snapshot.sequence;
                snapshot.events
            }
            Some(KvNews::Batch(batch)) => {
                assert_eq!(batch.sequence, self.sequence + 1);
                assert!(!batch.events.is_empty());
                self.sequence = batch.sequence;
                batch.events.clone()
            }
        };
        events.into_iter().for_each(|event| self.take_in(event));
        true
    }

    fn take_in(&mut self, event: KvEvent) {
        match event {
            KvEvent::Cleared => self.blocks.clear(),
            KvEvent::Removed { hashes, tier: KvTier::Device } => {
                for hash in hashes {
                    assert!(self.blocks.remove(&hash).is_some(), "{hash:x} is gone that was not there");
                }
            }
            KvEvent::Stored { blocks, mut parent, salt, tier: KvTier::Device } => {
                for block in blocks {
                    assert_eq!(block.tokens.len(), BLOCK);
                    let before = parent.map(|parent| self.blocks.get(&parent).expect("parents come first"));
                    assert!(before.is_none_or(|(_, _, of)| of.as_deref() == salt.as_deref()), "of another salt");
                    let known = (parent, block.tokens.to_vec(), salt.as_deref().map(str::to_owned));
                    assert_eq!(self.blocks.insert(block.hash, known), None, "{:x} is there already", block.hash);
                    parent = Some(block.hash);
                }
            }
        }
    }

    /// Listens until it knows all that has happened up to now.
    async fn catch_up(&mut self, engine: &EngineHandle) {
        let mut fresh = Self::new(engine);
        assert!(fresh.next().await);
        while self.sequence < fresh.sequence {
            assert!(self.next().await);
        }
        assert_eq!(self.sequence, fresh.sequence);
        assert_eq!(self.blocks, fresh.blocks);
    }

    /// Whole blocks that a prompt begins with, found by content.
    fn find(&self, salt: Option<&str>, prompt: &[u32]) -> usize {
        let (mut parent, mut count) = (None, 0);
        for block in prompt[..prompt.len() - 1].chunks_exact(BLOCK) {
            let fits = |(before, tokens, of): &Block| *before == parent && tokens == block && of.as_deref() == salt;
            let Some((hash, _)) = self.blocks.iter().find(|(_, known)| fits(known)) else { break };
            (parent, count) = (Some(*hash), count + 1);
        }
        count
    }
}

#[derive(Debug, Clone)]
enum Act {
    Ask {
        family: u32,
        shared: usize,
        tail: Vec<u32>,
        max_tokens: usize,
        salted: bool,
        priority: i32,
    },
    /// Events of requests are read.
    Read(usize),
    /// A request's stream is dropped.
    Drop,
    Clear,
    Join,
    /// The first listener reads on a little.
    Listen(usize),
    /// One comes back who knows what the first one does.
    Resume,
}

fn act() -> impl Strategy<Value = Act> {
    let tail = prop::collection::vec(0u32..60, 1..8);
    let shared = prop_oneof![Just(0usize), Just(8), 0usize..40];
    prop_oneof![
        10 => (0u32..3, shared, tail, 1usize..25, prop::bool::weighted(0.2), -1i32..2).prop_map(
            |(family, shared, tail, max_tokens, salted, priority)| {
                Act::Ask { family, shared, tail, max_tokens, salted, priority }
            }
        ),
        6 => (1usize..20).prop_map(Act::Read),
        1 => Just(Act::Drop),
        1 => Just(Act::Clear),
        2 => Just(Act::Join),
        3 => (1usize..5).prop_map(Act::Listen),
        2 => Just(Act::Resume),
    ]
}

#[derive(Debug, Clone)]
struct House {
    num_blocks: usize,
    max_num_seqs: usize,
    room: usize,
    windowed: Option<(usize, usize)>,
    ssd: bool,
    fail_at: Option<u64>,
}

fn house() -> impl Strategy<Value = House> {
    let windowed = prop::option::weighted(0.2, (2usize..20, 16usize..60));
    let rest = (prop::bool::weighted(0.3), prop::option::weighted(0.2, 0u64..40));
    (18usize..40, 1usize..6, 0usize..40, windowed, rest).prop_map(
        |(num_blocks, max_num_seqs, room, windowed, (ssd, fail_at))| House {
            num_blocks,
            max_num_seqs,
            room,
            windowed,
            ssd,
            fail_at,
        },
    )
}

impl House {
    fn start(&self, folder: &std::path::Path) -> EngineHandle {
        let config = EngineConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_seqs + self.room,
            ssd: self.ssd.then(|| SsdOptions { dir: folder.into(), max_bytes: 200_000, quantize: false }),
            ..EngineConfig::default()
        };
        let chunk = config.max_num_batched_tokens;
        let fake = FakeConfig {
            block_size: BLOCK,
            num_blocks: self.num_blocks,
            windowed: self.windowed.map(|(window, more)| (window, (window + chunk) / BLOCK + more)),
            fail_at: self.fail_at.into_iter().collect(),
            ..FakeConfig::default()
        };
        Engine::start(move || Ok(Box::new(FakeRunner::new(fake)) as Box<_>), config).unwrap()
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

/// Reads a stream to its end, and says how many tokens of the prompt were cached.
async fn cached(mut stream: EventStream) -> usize {
    loop {
        match stream.next().await {
            Some(Event::Token(_)) => {}
            Some(Event::Finished(end)) => return end.usage.cached_tokens,
            other => panic!("{other:?}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 250, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn listeners_know_what_requests_find(acts in prop::collection::vec(act(), 1..40), house in house()) {
        let runtime = runtime();
        let folder = tempfile::tempdir().unwrap();
        for _life in 0..=usize::from(house.ssd) {
            let engine = house.start(folder.path());
            let mut listeners = vec![Listener::new(&engine)];
            let mut streams: Vec<EventStream> = Vec::new();
            let mut asked: Vec<(Option<&str>, Vec<u32>)> = Vec::new();
            runtime.block_on(async {
                for (id, act) in acts.iter().enumerate() {
                    match act {
                        Act::Ask { family, shared, tail, max_tokens, salted, priority } => {
                            let beginning = (0..*shared as u32).map(|i| (i * 7 + family * 13) % 60);
                            let prompt: Vec<u32> = beginning.chain(tail.iter().copied()).collect();
                            let salt = salted.then_some("salt");
                            asked.push((salt, prompt.iter().copied().chain([63]).collect()));
                            let params = SamplingParams { temperature: 1.5, seed: Some(1), ..Default::default() };
                            let request = Request {
                                prompt,
                                max_tokens: *max_tokens,
                                params,
                                priority: *priority,
                                cache_salt: salt.map(Into::into),
                                ..Request::new(id.to_string())
                            };
                            streams.push(engine.submit(request).unwrap());
                        }
                        Act::Read(count) => {
                            for _ in 0..*count {
                                let Some(stream) = streams.first_mut() else { break };
                                if stream.next().await.is_none() {
                                    streams.remove(0);
                                }
                            }
                        }
                        Act::Drop => drop(streams.pop()),
                        Act::Clear => drop(engine.clear_cache().await),
                        Act::Join => listeners.push(Listener::new(&engine)),
                        Act::Listen(count) => {
                            for _ in 0..*count {
                                let _ = tokio::time::timeout(Duration::from_micros(50), listeners[0].next()).await;
                            }
                        }
                        Act::Resume => {
                            if listeners[0].sequence > 0 {
                                let back = Listener::resume(&engine, &listeners[0]);
                                listeners.push(back);
                            }
                        }
                    }
                }
                for mut stream in streams {
                    while stream.next().await.is_some() {}
                }
                // Streams that were dropped are noticed at the engine's next turn.
                while engine.load().running + engine.load().waiting > 0 {
                    tokio::task::yield_now().await;
                }
                for listener in &mut listeners {
                    listener.catch_up(&engine).await;
                    assert_eq!(listener.snapshots, usize::from(!listener.resumed), "the history is long enough");
                }
            });
            // What they know is what requests find.
            let known = &mut listeners[0];
            for (id, (salt, prompt)) in asked.iter().enumerate() {
                if house.fail_at.is_some() {
                    break;
                }
                runtime.block_on(known.catch_up(&engine));
                let told = known.find(*salt, prompt);
                let request = Request {
                    prompt: prompt.clone(),
                    max_tokens: 1,
                    cache_salt: salt.map(Into::into),
                    ..Request::new(id.to_string())
                };
                let read = |engine: &EngineHandle| engine.stats().ssd.map_or(0, |ssd| ssd.read_blocks);
                let before = read(&engine);
                let found = runtime.block_on(cached(engine.submit(request).unwrap())) / BLOCK;
                // What is read from the SSD takes the place of other blocks before the request looks for them.
                if read(&engine) == before {
                    // Layers with a window may have less.
                    prop_assert!(found == told || (found < told && house.windowed.is_some()), "{} {}", found, told);
                }
            }
            engine.drain();
            while runtime.block_on(known.next()) {}
            engine.join();
        }
    }
}

#[test]
fn listening_does_not_keep_an_engine_alive_and_ends_with_it() {
    let runtime = runtime();
    let engine = Engine::start(|| Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>), Default::default());
    let engine = engine.unwrap();
    let mut listener = Listener::new(&engine);
    assert!(runtime.block_on(listener.next()));
    let mut late = engine.kv_events(0);
    drop(engine);
    assert!(!runtime.block_on(listener.next()));
    assert_eq!(runtime.block_on(late.next()), None);
}

#[test]
fn numbers_of_another_engine_are_answered_with_a_snapshot() {
    let runtime = runtime();
    let start = || Engine::start(|| Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>), Default::default());
    let ask = |engine: &EngineHandle, prompt: Vec<u32>| {
        let request = Request { prompt, max_tokens: 1, ..Request::new("a") };
        runtime.block_on(cached(engine.submit(request).unwrap()))
    };
    let first = start().unwrap();
    let mut listener = Listener::new(&first);
    assert!(runtime.block_on(listener.next()));
    ask(&first, (0..20).collect());
    runtime.block_on(listener.catch_up(&first));
    assert_eq!((listener.blocks.len(), listener.snapshots), (5, 1));

    let second = start().unwrap();
    ask(&second, (0..9).collect());
    for number in [1, listener.sequence + 1, u64::MAX] {
        let mut back = Listener { events: second.kv_events(number), ..Listener::new(&second) };
        assert!(runtime.block_on(back.next()));
        assert_eq!((back.blocks.len(), back.snapshots), (2, 1), "batch {number}");
    }
}
