//! Random joins, leaves and limits: nothing leaks, every request ends once, and batching changes no answer.

use std::{
    collections::HashMap,
    sync::{atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use proptest::prelude::*;
use vllm_platform::{
    SamplingParams,
    testing::{FakeConfig, FakeRunner},
};
use vllm_scheduler::{Engine, EngineConfig, Event, FinishReason, Request};

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Ends,
    Aborted,
    /// Its stream is dropped after this many events.
    Dropped(usize),
}

#[derive(Debug, Clone)]
struct Plan {
    prompt: Vec<u32>,
    max_tokens: usize,
    seed: u64,
    fate: Fate,
    /// Events of earlier requests to read before it is submitted.
    pause: usize,
}

fn plan() -> impl Strategy<Value = Plan> {
    let fate = prop_oneof![
        4 => Just(Fate::Ends),
        1 => Just(Fate::Aborted),
        1 => (0usize..6).prop_map(Fate::Dropped),
    ];
    (prop::collection::vec(0u32..64, 1..40), 1usize..25, any::<u64>(), fate, 0usize..4)
        .prop_map(|(prompt, max_tokens, seed, fate, pause)| Plan { prompt, max_tokens, seed, fate, pause })
}

fn request(id: usize, plan: &Plan) -> Request {
    Request {
        prompt: plan.prompt.clone(),
        max_tokens: plan.max_tokens,
        stop_tokens: vec![3, 4],
        params: SamplingParams { temperature: 1.5, seed: Some(plan.seed), ..Default::default() },
        ..Request::new(id.to_string())
    }
}

fn fake(num_blocks: usize) -> FakeRunner {
    FakeRunner::new(FakeConfig { num_blocks, ..Default::default() })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..Default::default() })]

    #[test]
    fn requests_come_and_go(
        plans in prop::collection::vec(plan(), 1..24),
        max_num_seqs in 1usize..6,
        room in 0usize..40,
        num_blocks in 16usize..48,
    ) {
        let config = EngineConfig { max_num_seqs, max_num_batched_tokens: max_num_seqs + room, max_waiting: 100 };
        let (sender, probe) = mpsc::channel();
        let engine = Engine::start(
            move || {
                let runner = fake(num_blocks);
                sender.send(runner.probe()).unwrap();
                Ok(Box::new(runner) as Box<_>)
            },
            config,
        )
        .unwrap();
        let probe = probe.recv().unwrap();

        let mut streams = HashMap::new();
        let mut answers: HashMap<usize, (Vec<u32>, Option<Event>)> = HashMap::new();
        for (id, plan) in plans.iter().enumerate() {
            for _ in 0..plan.pause {
                let Some((&other, _)) = streams.iter().next() else { break };
                let stream: &mut vllm_scheduler::EventStream = streams.get_mut(&other).unwrap();
                match stream.blocking_next() {
                    Some(Event::Token(token)) => answers.entry(other).or_default().0.push(token.token),
                    Some(last) => {
                        answers.entry(other).or_default().1 = Some(last);
                        streams.remove(&other);
                    }
                    None => unreachable!("a stream that ended is removed"),
                }
            }
            let mut stream = engine.submit(request(id, plan)).unwrap();
            match plan.fate {
                Fate::Ends => drop(streams.insert(id, stream)),
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
                let answer = answers.entry(id).or_default();
                prop_assert!(answer.1.is_none(), "request {} goes on after its end", id);
                match event {
                    Event::Token(token) => answer.0.push(token.token),
                    last => answer.1 = Some(last),
                }
            }
        }

        let start = Instant::now();
        loop {
            // Figures are those of the engine's last look at its clients, so a cancelled request may still be among them.
            let stats = engine.stats();
            if stats.finished() + stats.aborted + stats.failed == plans.len() as u64 {
                prop_assert_eq!((stats.running, stats.waiting, stats.blocks_in_use(), stats.failed), (0, 0, 0, 0));
                break;
            }
            prop_assert!(start.elapsed() < Duration::from_secs(20), "something is stuck: {:?}", stats);
            std::thread::sleep(Duration::from_millis(1));
        }
        prop_assert_eq!(probe.violations.load(Relaxed), 0);
        prop_assert!(probe.widest.load(Relaxed) <= config.max_num_batched_tokens as u64);
        prop_assert!(probe.most_rows.load(Relaxed) <= max_num_seqs as u64);

        // One at a time, on an engine of its own.
        let alone = Engine::start(|| Ok(Box::new(fake(64)) as Box<_>), EngineConfig::default()).unwrap();
        for (id, (tokens, last)) in answers {
            let Some(Event::Finished(end)) = last else { panic!("request {id} ended as {last:?}") };
            let mut wanted = Vec::new();
            let mut stream = alone.submit(request(id, &plans[id])).unwrap();
            while let Some(Event::Token(token)) = stream.blocking_next() {
                wanted.push(token.token);
            }
            match end.reason {
                FinishReason::Abort => {
                    prop_assert_eq!(plans[id].fate, Fate::Aborted);
                    prop_assert!(wanted.starts_with(&tokens));
                }
                _ => prop_assert_eq!(tokens, wanted),
            }
        }
    }
}
