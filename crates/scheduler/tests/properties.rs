//! Random joins, leaves, limits and failures: nothing leaks, every request ends once, and neither batching, chunks,
//! preemption, cached prefixes nor the SSD change an answer.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use vllm_platform::{
    SamplingParams,
    testing::{FakeConfig, FakeProbe, FakeRunner},
};
use vllm_scheduler::{
    Engine, EngineConfig, EngineHandle, Event, EventStream, FailureKind, FinishReason, Request, SsdOptions,
};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Ends,
    Aborted,
    /// Its stream is dropped after this many events.
    Dropped(usize),
    /// It has no time to end in.
    TimesOut,
}

#[derive(Debug, Clone)]
struct Plan {
    /// Which of a few long beginnings the prompt has, how much of it, and how it goes on.
    family: u32,
    shared: usize,
    tail: Vec<u32>,
    max_tokens: usize,
    seed: u64,
    priority: i32,
    client: Option<u8>,
    salted: bool,
    fate: Fate,
    /// Events of earlier requests to read before it is submitted.
    pause: usize,
}

impl Plan {
    fn prompt(&self) -> Vec<u32> {
        let beginning = (0..self.shared as u32).map(|i| (i * 7 + self.family * 13) % 64);
        beginning.chain(self.tail.iter().copied()).collect()
    }

    fn request(&self, id: usize) -> Request {
        Request {
            prompt: self.prompt(),
            max_tokens: self.max_tokens,
            stop_tokens: vec![3, 4],
            params: SamplingParams { temperature: 1.5, seed: Some(self.seed), ..Default::default() },
            priority: self.priority,
            client: self.client.map(|client| client.to_string().into()),
            cache_salt: self.salted.then(|| "salt".into()),
            timeout: (self.fate == Fate::TimesOut).then_some(Duration::ZERO),
            ..Request::new(id.to_string())
        }
    }
}

fn plan() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        8 => Just(Fate::Ends),
        1 => Just(Fate::Aborted),
        1 => (0usize..6).prop_map(Fate::Dropped),
        1 => Just(Fate::TimesOut),
    ];
    let prompt = (0u32..3, 0usize..40, prop::collection::vec(0u32..64, 1..12));
    let rank = (-1i32..2, prop::option::of(0u8..3), prop::bool::weighted(0.2));
    (prompt, 1usize..25, any::<u64>(), rank, fate, 0usize..4).prop_map(
        |((family, shared, tail), max_tokens, seed, (priority, client, salted), fate, pause)| Plan {
            family,
            shared,
            tail,
            max_tokens,
            seed,
            priority,
            client,
            salted,
            fate,
            pause,
        },
    )
}

#[derive(Debug, Clone)]
struct House {
    max_num_seqs: usize,
    room: usize,
    prefill_step_size: Option<usize>,
    num_blocks: usize,
    /// Window and blocks of a second group.
    windowed: Option<(usize, usize)>,
    rewind: Option<usize>,
    /// One block for a whole sequence, as contiguous storage has it.
    whole: bool,
    prefix_cache: bool,
    ssd: bool,
    fail_at: Option<u64>,
}

/// The longest sequence: 39 + 11 of the prompt, 24 of the answer.
const LONGEST: usize = 74;

fn house() -> impl Strategy<Value = House> {
    let storage = (19usize..40, prop::option::of((2usize..20, 16usize..60)), prop::option::of(0usize..6), 0u8..5);
    let limits = (1usize..6, 0usize..40, prop::option::of(1usize..20));
    (limits, storage, prop::bool::weighted(0.8), prop::bool::weighted(0.3), prop::option::weighted(0.2, 0u64..40))
        .prop_map(
            |(
                (max_num_seqs, room, prefill_step_size),
                (num_blocks, windowed, rewind, kind),
                prefix_cache,
                ssd,
                fail_at,
            )| {
                let whole = kind == 0;
                House {
                    max_num_seqs,
                    room,
                    prefill_step_size,
                    num_blocks: if whole { 1 + num_blocks / 6 } else { num_blocks },
                    windowed: windowed.filter(|_| !whole),
                    rewind: rewind.filter(|_| whole),
                    whole,
                    prefix_cache,
                    ssd: ssd && prefix_cache,
                    fail_at,
                }
            },
        )
}

impl House {
    fn start(&self, folder: &std::path::Path) -> (EngineHandle, Arc<FakeProbe>) {
        let config = EngineConfig {
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_seqs + self.room,
            prefill_step_size: self.prefill_step_size,
            prefix_cache: self.prefix_cache,
            ssd: self.ssd.then(|| SsdOptions { dir: folder.into(), max_bytes: 200_000, quantize: false }),
            ..EngineConfig::default()
        };
        let fake = FakeConfig {
            block_size: if self.whole { LONGEST } else { 4 },
            num_blocks: self.num_blocks,
            // Room for one sequence's window at least, or its request would be refused.
            windowed: self.windowed.map(|(window, more)| (window, (window + config.max_num_batched_tokens) / 4 + more)),
            rewind: self.rewind,
            fail_at: self.fail_at.into_iter().collect(),
            ..FakeConfig::default()
        };
        let (sender, probe) = mpsc::channel();
        let make = move || {
            let runner = FakeRunner::new(fake);
            sender.send(runner.probe()).unwrap();
            Ok(Box::new(runner) as Box<_>)
        };
        let engine = Engine::start(make, config).unwrap();
        (engine, probe.recv().unwrap())
    }
}

type Answers = HashMap<usize, (Vec<u32>, Option<Event>)>;

fn note(answers: &mut Answers, id: usize, event: Event) -> bool {
    let answer = answers.entry(id).or_default();
    assert!(answer.1.is_none(), "request {id} goes on after its end");
    match event {
        Event::Token(token) => answer.0.push(token.token),
        last => answer.1 = Some(last),
    }
    answer.1.is_some()
}

/// Submits all requests as they are planned and gathers what comes back.
fn live(engine: &EngineHandle, plans: &[Plan]) -> Answers {
    let mut streams: HashMap<usize, EventStream> = HashMap::new();
    let mut answers = Answers::new();
    for (id, plan) in plans.iter().enumerate() {
        for _ in 0..plan.pause {
            let Some(&other) = streams.keys().next() else { break };
            let event = streams.get_mut(&other).and_then(EventStream::blocking_next);
            if note(&mut answers, other, event.expect("a stream that ended is removed")) {
                streams.remove(&other);
            }
        }
        let mut stream = engine.submit(plan.request(id)).unwrap();
        match plan.fate {
            Fate::Ends | Fate::TimesOut => drop(streams.insert(id, stream)),
            Fate::Aborted => {
                engine.abort(stream.id());
                streams.insert(id, stream);
            }
            Fate::Dropped(after) => {
                for _ in 0..after {
                    stream.blocking_next();
                }
            }
        }
    }
    for (id, mut stream) in streams {
        while let Some(event) = stream.blocking_next() {
            note(&mut answers, id, event);
        }
    }
    answers
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 200, failure_persistence: None, ..Default::default() })]

    #[test]
    fn requests_come_and_go(plans in prop::collection::vec(plan(), 1..24), house in house()) {
        let folder = tempfile::tempdir().unwrap();
        // The second life finds on the SSD what the first left there.
        for life in 0..=usize::from(house.ssd) {
            let (engine, probe) = house.start(folder.path());
            let answers = live(&engine, &plans);
            let start = Instant::now();
            let failed = loop {
                // Figures are those of the engine's last look at its clients: a cancelled request may still be there.
                let stats = engine.stats();
                if stats.finished() + stats.aborted + stats.failed == plans.len() as u64 {
                    prop_assert_eq!((stats.running, stats.waiting, stats.blocks_in_use()), (0, 0, 0));
                    for group in &stats.blocks {
                        prop_assert!(group.cached == 0 || house.prefix_cache);
                    }
                    prop_assert!(house.prefix_cache || stats.prefix_cache.hits == 0);
                    break stats.failed;
                }
                prop_assert!(start.elapsed() < Duration::from_secs(20), "something is stuck: {:?}", stats);
                std::thread::sleep(Duration::from_millis(1));
            };
            let failures = answers.values().filter_map(|(_, last)| match last {
                Some(Event::Failed(failure)) => Some(failure.to_string()),
                _ => None,
            });
            prop_assert_eq!(probe.violations.load(Relaxed), 0, "{:?}", failures.collect::<Vec<_>>());
            prop_assert!(probe.widest.load(Relaxed) <= (house.max_num_seqs + house.room) as u64);
            prop_assert!(probe.most_rows.load(Relaxed) <= house.max_num_seqs as u64);

            // One at a time, on an engine of its own that keeps nothing.
            let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
            let alone = Engine::start(|| Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>), config).unwrap();
            let mut seen_failed = 0;
            for (id, (tokens, last)) in answers {
                let mut wanted = Vec::new();
                let mut stream = alone.submit(Request { timeout: None, ..plans[id].request(id) }).unwrap();
                while let Some(Event::Token(token)) = stream.blocking_next() {
                    wanted.push(token.token);
                }
                match last {
                    Some(Event::Finished(end)) if end.reason == FinishReason::Abort => {
                        prop_assert_eq!(plans[id].fate, Fate::Aborted);
                        prop_assert!(wanted.starts_with(&tokens), "life {life}: {tokens:?} {wanted:?}");
                    }
                    Some(Event::Finished(_)) => prop_assert_eq!(tokens, wanted, "life {}, request {}", life, id),
                    Some(Event::Failed(failure)) => {
                        seen_failed += 1;
                        let timed_out = failure.kind == FailureKind::Timeout;
                        prop_assert!(house.fail_at.is_some() || timed_out, "{}", failure);
                        prop_assert_eq!(timed_out, plans[id].fate == Fate::TimesOut && timed_out);
                        prop_assert!(wanted.starts_with(&tokens));
                    }
                    other => prop_assert!(false, "request {} ended as {:?}", id, other),
                }
            }
            prop_assert!(seen_failed <= failed);
            engine.drain();
            engine.join();
        }
    }
}
