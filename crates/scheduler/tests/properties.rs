//! Random joins, leaves, limits and failures: nothing leaks, every request ends once, and neither batching, chunks,
//! preemption, cached prefixes, the SSD, nor when and how often pictures are looked at, change an answer.

mod pictures;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use pictures::{AtOnce, Kind, features, show, source};
use proptest::prelude::*;
use vllm_platform::{
    SamplingParams,
    testing::{FakeConfig, FakeProbe, FakeRunner, FakeVisionConfig},
};
use vllm_scheduler::{
    Engine, EngineConfig, EngineHandle, Event, EventStream, FailureKind, FeatureSource, FinishReason, Request,
    SsdOptions, VisionConfig, VisionHandle,
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
    /// After the beginning.
    pictures: Vec<(u8, Kind)>,
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
    fn request(&self, id: usize, features: &dyn Fn(u8) -> Arc<dyn FeatureSource>) -> Request {
        let prompt = (0..self.shared as u32).map(|i| (i * 7 + self.family * 13) % 60).collect();
        let mut request = Request { prompt, ..self.without_prompt(id) };
        for &(number, kind) in &self.pictures {
            show(&mut request, number, PICTURE, kind, features(number));
            // The id of placeholders may be typed, too.
            request.prompt.extend((number == 0).then_some(pictures::PAD));
        }
        request.prompt.extend(&self.tail);
        request
    }

    fn without_prompt(&self, id: usize) -> Request {
        Request {
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
    let kind = prop_oneof![Just(Kind::Plain), Just(Kind::Grid), Just(Kind::Bidirectional)];
    let pictures = prop::collection::vec((0u8..3, kind), 0..4);
    let shared = prop_oneof![Just(0usize), Just(8), 0usize..40];
    let prompt = (0u32..3, shared, pictures, prop::collection::vec(0u32..64, 1..12));
    let rank = (-1i32..2, prop::option::of(0u8..3), prop::bool::weighted(0.2));
    (prompt, 1usize..25, any::<u64>(), rank, fate, 0usize..4).prop_map(
        |((family, shared, pictures, tail), max_tokens, seed, (priority, client, salted), fate, pause)| Plan {
            family,
            shared,
            pictures,
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
    /// Pictures whose features the vision engine keeps.
    kept: usize,
}

/// Tokens of a picture.
const PICTURE: usize = 6;
/// The longest sequence: 39 + 3 pictures, each with a token more, + 11 of the prompt, 24 of the answer.
const LONGEST: usize = 95;

fn house() -> impl Strategy<Value = House> {
    let storage = (24usize..45, prop::option::of((2usize..20, 16usize..60)), prop::option::of(0usize..6), 0u8..5);
    let limits = (1usize..6, 0usize..40, prop::option::of(1usize..20), 0usize..3);
    (limits, storage, prop::bool::weighted(0.8), prop::bool::weighted(0.3), prop::option::weighted(0.2, 0u64..40))
        .prop_map(
            |(
                (max_num_seqs, room, prefill_step_size, kept),
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
                    kept,
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
            windowed: self.windowed.map(|(window, more)| {
                let chunk = config.max_num_batched_tokens.max(PICTURE);
                (window, (window + chunk) / 4 + more)
            }),
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

    fn vision(&self, folder: &std::path::Path) -> VisionHandle {
        let cache_bytes = self.kept * features(0, PICTURE).bytes();
        let ssd = SsdOptions { dir: folder.into(), max_bytes: 10_000, quantize: false };
        pictures::start(FakeVisionConfig::default(), VisionConfig { cache_bytes, ssd: self.ssd.then_some(ssd) }).0
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
fn live(engine: &EngineHandle, vision: &VisionHandle, plans: &[Plan]) -> Answers {
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
        let mut stream = engine.submit(plan.request(id, &|number| source(vision, number, PICTURE))).unwrap();
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
            let vision = house.vision(folder.path());
            let answers = live(&engine, &vision, &plans);
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
            prop_assert!(probe.widest.load(Relaxed) <= (house.max_num_seqs + house.room + PICTURE - 1) as u64);
            prop_assert!(probe.most_rows.load(Relaxed) <= house.max_num_seqs as u64);

            // One at a time, on an engine of its own that keeps nothing.
            let config = EngineConfig { prefix_cache: false, ..EngineConfig::default() };
            let alone = Engine::start(|| Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>), config).unwrap();
            let at_once = |number| Arc::new(AtOnce(Ok(Arc::new(features(number, PICTURE))))) as Arc<_>;
            let mut seen_failed = 0;
            for (id, (tokens, last)) in answers {
                let mut wanted = Vec::new();
                let mut stream = alone.submit(Request { timeout: None, ..plans[id].request(id, &at_once) }).unwrap();
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
            vision.drain();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(vision.stopped());
        }
    }
}
