//! The engine over a fake runner: one case a behaviour.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use vllm_platform::{
    Error, SamplingParams,
    sampling::{InvalidParam, LogitsProcessor},
    testing::{FakeConfig, FakeProbe, FakeRunner},
};
use vllm_scheduler::{
    Engine, EngineConfig, EngineHandle, EngineState, Event, EventStream, Failure, FailureKind, FinishReason, Finished,
    Phase, Request, SpanKind, SsdOptions, StartError, SubmitError,
};

fn start(fake: FakeConfig, config: EngineConfig) -> (EngineHandle, Arc<FakeProbe>) {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let runner = FakeRunner::new(fake);
        sender.send(runner.probe()).unwrap();
        Ok(Box::new(runner) as Box<_>)
    };
    let engine = Engine::start(make, config).unwrap();
    (engine, probe.recv().unwrap())
}

fn slow() -> FakeConfig {
    FakeConfig { step_delay: Duration::from_millis(2), ..Default::default() }
}

fn request(id: &str, prompt: &[u32], max_tokens: usize) -> Request {
    Request { prompt: prompt.to_vec(), max_tokens, ..Request::new(id) }
}

/// All tokens and the last event, which must be the only one of its kind.
fn collect(mut events: EventStream) -> (Vec<u32>, Event) {
    let mut tokens = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Token(generated) => tokens.push(generated.token),
            last => {
                assert_eq!(events.blocking_next(), None, "an event after the last");
                return (tokens, last);
            }
        }
    }
    panic!("no last event");
}

fn finished(event: Event) -> Finished {
    match event {
        Event::Finished(finished) => finished,
        other => panic!("{other:?}"),
    }
}

/// Waits for something the engine's thread will do soon.
fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn an_answer_and_its_books() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig::default());
    let (tokens, last) = collect(engine.submit(request("a", &[1, 2, 3], 5)).unwrap());
    let end = finished(last);
    assert_eq!((tokens.len(), end.reason), (5, FinishReason::Length));
    assert_eq!((end.usage.prompt_tokens, end.usage.cached_tokens, end.usage.completion_tokens), (3, 0, 5));
    assert!(end.timings.queue <= end.timings.ttft);
    eventually("the last step is published", || engine.stats().steps == 5);
    let stats = engine.stats();
    assert_eq!((stats.running, stats.waiting, stats.blocks_in_use(), stats.finished()), (0, 0, 0, 1));
    // The last token generated is not computed.
    assert_eq!((stats.prompt_tokens, stats.generated_tokens, probe.tokens.load(Relaxed)), (3, 5, 7));
    assert!(stats.last_step.is_some());
    assert!(engine.memory().active > 0);
}

#[test]
fn a_stop_token_ends_the_answer_and_is_counted_but_not_handed_out() {
    let fake = FakeConfig { script: vec![8, 9, 0, 5], ..Default::default() };
    let (engine, _) = start(fake, EngineConfig::default());
    let stopping = Request { stop_tokens: vec![63, 0], ..request("a", &[1], 50) };
    let (tokens, last) = collect(engine.submit(stopping).unwrap());
    let end = finished(last);
    assert_eq!((tokens, end.reason, end.usage.completion_tokens), (vec![8, 9], FinishReason::Stop, 3));
}

#[test]
fn requests_run_together_and_none_changes_another() {
    let (engine, probe) = start(slow(), EngineConfig { max_num_batched_tokens: 20, ..Default::default() });
    let prompts: Vec<Vec<u32>> = (1..12u32).map(|n| (0..n * 3).map(|i| (i * n) % 64).collect()).collect();
    let ask = |i: usize| {
        let params = SamplingParams { temperature: 1.0, top_k: 20, seed: Some(i as u64), ..Default::default() };
        engine.submit(Request { params, ..request(&i.to_string(), &prompts[i], 10 + i) }).unwrap()
    };
    let together: Vec<_> = (0..prompts.len()).map(ask).collect();
    let together: Vec<_> = together.into_iter().map(|events| collect(events).0).collect();
    assert!(probe.most_rows.load(Relaxed) > 3, "they did not run together");
    assert!(probe.widest.load(Relaxed) <= 20, "the budget was exceeded");
    for (i, batched) in together.iter().enumerate() {
        assert_eq!(collect(ask(i)).0, *batched, "request {i}");
    }
    assert_eq!(probe.violations.load(Relaxed), 0);
}

#[test]
fn unseeded_requests_differ_and_seeded_ones_repeat() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let ask = |seed| {
        let params = SamplingParams { temperature: 2.0, seed, ..Default::default() };
        collect(engine.submit(Request { params, ..request("a", &[1, 2], 30) }).unwrap()).0
    };
    assert_eq!(ask(Some(5)), ask(Some(5)));
    assert_ne!(ask(Some(5)), ask(Some(6)));
    assert_ne!(ask(None), ask(None));
}

#[test]
fn logprobs_come_with_the_tokens() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let params = SamplingParams { logprobs: Some(3), ..Default::default() };
    let mut events = engine.submit(Request { params, ..request("a", &[1], 1) }).unwrap();
    let Some(Event::Token(generated)) = events.blocking_next() else { panic!("no token") };
    let logprobs = generated.logprobs.unwrap();
    assert_eq!(logprobs.top.len(), 3);
    assert_eq!((logprobs.top[0].token, logprobs.top[0].logprob), (generated.token, logprobs.sampled));
}

#[test]
fn what_can_never_run_is_refused_with_the_numbers() {
    let fake = FakeConfig { num_blocks: 10, context_length: 50, ..Default::default() };
    let (engine, _) = start(fake, EngineConfig::default());
    let hot = SamplingParams { temperature: 3.0, ..Default::default() };
    let cases = [
        ("empty", request("a", &[], 1), SubmitError::EmptyPrompt),
        ("no tokens", request("a", &[1], 0), SubmitError::NoTokens),
        ("context", request("a", &[1; 45], 6), SubmitError::ContextLength { prompt: 45, max_tokens: 6, context: 50 }),
        (
            "absurd",
            request("a", &[1], usize::MAX),
            SubmitError::ContextLength { prompt: 1, max_tokens: usize::MAX, context: 50 },
        ),
        ("blocks", request("a", &[1; 40], 2), SubmitError::NeverFits { needed: 11, blocks: 10, block_size: 4 }),
        ("token", request("a", &[64], 1), SubmitError::UnknownToken { token: 64, vocab: 64 }),
        (
            "params",
            Request { params: hot, ..request("a", &[1], 1) },
            SubmitError::Params(InvalidParam {
                field: "temperature",
                value: "3".into(),
                allowed: "from 0 to 2".into(),
            }),
        ),
    ];
    for (name, request, wanted) in cases {
        assert_eq!(engine.submit(request).unwrap_err(), wanted, "{name}");
    }
    assert_eq!(engine.stats().waiting, 0);
    // The largest that fits does run.
    assert_eq!(collect(engine.submit(request("a", &[1; 40], 1)).unwrap()).0.len(), 1);
}

#[test]
fn the_queue_is_bounded() {
    let config = EngineConfig { max_num_seqs: 1, max_waiting: 2, ..Default::default() };
    let (engine, _) = start(slow(), config);
    let first = engine.submit(request("first", &[1], 200)).unwrap();
    eventually("the first runs", || engine.stats().running == 1);
    let waiting: Vec<_> = (0..2).map(|_| engine.submit(request("w", &[1], 1)).unwrap()).collect();
    assert_eq!(engine.submit(request("x", &[1], 1)).unwrap_err(), SubmitError::Busy { limit: 2 });
    assert_eq!(engine.stats().waiting, 2);
    drop(first);
    for events in waiting {
        assert_eq!(collect(events).0.len(), 1);
    }
    assert_eq!(engine.stats().waiting, 0);
}

#[test]
fn dropping_the_stream_or_aborting_frees_everything() {
    let (engine, probe) = start(slow(), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let running = engine.submit(request("running", &[1], 250)).unwrap();
    eventually("it runs", || engine.stats().running == 1);
    let waiting = engine.submit(request("waiting", &[1], 250)).unwrap();
    let aborted = engine.submit(request("aborted", &[1; 7], 200)).unwrap();
    drop(waiting);
    engine.abort(&"aborted".into());
    let (tokens, last) = collect(aborted);
    let end = finished(last);
    assert_eq!((tokens.len(), end.reason, end.usage.prompt_tokens), (0, FinishReason::Abort, 7));
    drop(running);
    eventually("all is free", || {
        let stats = engine.stats();
        (stats.running, stats.waiting, stats.blocks_in_use(), stats.aborted) == (0, 0, 0, 3)
    });
    let steps = probe.steps.load(Relaxed);
    assert!(steps < 250, "the work went on: {steps} steps");
}

#[test]
fn a_failed_step_fails_its_requests_and_the_engine_lives_on() {
    let fake = FakeConfig { fail_at: [1].into(), ..slow() };
    let (engine, _) = start(fake, EngineConfig { max_num_seqs: 1, ..Default::default() });
    let first = engine.submit(request("first", &[1], 9)).unwrap();
    let second = engine.submit(request("second", &[1], 9)).unwrap();
    let (tokens, last) = collect(first);
    assert_eq!(tokens.len(), 1);
    let message = "the fake was told to fail at step 1".into();
    assert_eq!(last, Event::Failed(Failure { kind: FailureKind::Step, message }));
    assert_eq!(collect(second).0.len(), 9);
    eventually("all is free", || engine.stats().blocks_in_use() == 0);
    assert_eq!((engine.stats().failed, engine.stats().finished()), (1, 1));
}

#[test]
fn running_out_of_memory_is_told_apart() {
    let fake = FakeConfig { out_of_memory_at: [1].into(), ..slow() };
    let (engine, _) = start(fake, EngineConfig::default());
    let Event::Failed(failure) = collect(engine.submit(request("a", &[1], 9)).unwrap()).1 else { panic!("no failure") };
    assert_eq!(failure.kind, FailureKind::OutOfMemory);
    assert_eq!(collect(engine.submit(request("b", &[1], 9)).unwrap()).0.len(), 9);
}

#[test]
fn a_request_whose_time_is_up_fails_wherever_it_stands() {
    let (engine, _) = start(slow(), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let limited = |id| Request { timeout: Some(Duration::from_millis(60)), ..request(id, &[1], 250) };
    let (running, waiting) = (engine.submit(limited("a")).unwrap(), engine.submit(limited("b")).unwrap());
    for (events, some) in [(running, true), (waiting, false)] {
        let (tokens, Event::Failed(failure)) = collect(events) else { panic!("no failure") };
        assert_eq!((failure.kind, tokens.is_empty()), (FailureKind::Timeout, !some));
    }
    eventually("all is free", || (engine.stats().blocks_in_use(), engine.stats().waiting) == (0, 0));
}

#[test]
fn cancelling_says_whether_there_was_something_to_cancel() {
    let (engine, _) = start(slow(), EngineConfig::default());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let events = engine.submit(request("a", &[1], 250)).unwrap();
    assert!(!runtime.block_on(engine.cancel(&"b".into())));
    let described = runtime.block_on(engine.requests());
    assert_eq!((described.len(), &described[0].id, described[0].prompt_tokens), (1, &"a".into(), 1));
    assert!(matches!(described[0].phase, Phase::Waiting | Phase::Prefill | Phase::Decode));
    assert!(runtime.block_on(engine.cancel(&"a".into())));
    assert_eq!(finished(collect(events).1).reason, FinishReason::Abort);
    assert_eq!(runtime.block_on(engine.requests()), []);
}

#[test]
fn whoever_has_enough_ends_its_answer_with_all_its_books() {
    let (engine, _) = start(slow(), EngineConfig::default());
    let prompt: Vec<u32> = (0..20).collect();
    collect(engine.submit(request("first", &prompt, 1)).unwrap());
    let mut events = engine.submit(request("a", &prompt, 200)).unwrap();
    for _ in 0..3 {
        assert!(matches!(events.blocking_next(), Some(Event::Token(_))));
    }
    events.stop();
    let (more, last) = collect(events);
    let end = finished(last);
    assert_eq!((end.reason, end.usage.cached_tokens), (FinishReason::Stop, 19));
    assert_eq!(end.usage.completion_tokens, 3 + more.len());
    assert!(more.len() < 100, "it went on for {} tokens", more.len());
    eventually("it is booked", || engine.stats().finished() == 2);
    assert_eq!((engine.stats().stopped, engine.stats().full, engine.stats().aborted), (1, 1, 0));
}

#[test]
fn a_repeated_prompt_costs_one_token() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig::default());
    let prompt: Vec<u32> = (0..50).collect();
    let ask = || finished(collect(engine.submit(request("a", &prompt, 1)).unwrap()).1).usage.cached_tokens;
    assert_eq!(ask(), 0);
    let before = probe.tokens.load(Relaxed);
    assert_eq!(ask(), 49);
    assert_eq!(probe.tokens.load(Relaxed) - before, 1);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert!(runtime.block_on(engine.clear_cache()) >= 13);
    assert_eq!(ask(), 0);
    let stats = engine.stats().prefix_cache;
    assert_eq!((stats.queries, stats.hits, stats.hit_requests, stats.missed_requests), (150, 49, 1, 2));

    let (engine, _) = start(FakeConfig::default(), EngineConfig { prefix_cache: false, ..Default::default() });
    let ask = || finished(collect(engine.submit(request("a", &prompt, 1)).unwrap()).1).usage.cached_tokens;
    assert_eq!((ask(), ask()), (0, 0));
}

#[test]
fn answers_to_one_prompt_share_it_while_it_is_computed() {
    let (engine, probe) = start(slow(), EngineConfig { max_num_batched_tokens: 16, ..Default::default() });
    let prompt: Vec<u32> = (0..60).collect();
    let streams: Vec<_> = (0..4).map(|_| engine.submit(request("a", &prompt, 3)).unwrap()).collect();
    for events in streams {
        collect(events);
    }
    // Once the prompt, then its last token for each of the others, then two tokens of each answer.
    assert_eq!(probe.tokens.load(Relaxed), 60 + 3 + 4 * 2);
}

#[test]
fn one_client_cannot_fill_the_queue() {
    let config = EngineConfig { max_num_seqs: 1, max_waiting: 4, max_waiting_per_client: 2, ..Default::default() };
    let (engine, _) = start(slow(), config);
    let of = |client: &str| Request { client: Some(client.into()), ..request("r", &[1], 200) };
    let first = engine.submit(of("a")).unwrap();
    eventually("the first runs", || engine.stats().running == 1);
    let _waiting: Vec<_> = (0..2).map(|_| engine.submit(of("a")).unwrap()).collect();
    assert_eq!(engine.submit(of("a")).unwrap_err(), SubmitError::ClientBusy { limit: 2 });
    let _others: Vec<_> = (0..2).map(|_| engine.submit(of("b")).unwrap()).collect();
    assert_eq!(engine.submit(of("c")).unwrap_err(), SubmitError::Busy { limit: 4 });
    drop(first);
}

#[test]
fn the_timeline_tells_what_was_done() {
    let (engine, _) = start(slow(), EngineConfig { max_num_batched_tokens: 16, ..Default::default() });
    let prompt: Vec<u32> = (0..40).collect();
    let ask = |trace| {
        let traced = Request { trace, ..request("a", &prompt, 5) };
        finished(collect(engine.submit(traced).unwrap()).1).timeline
    };
    assert_eq!(ask(false), []);
    let kinds: Vec<_> = ask(true).iter().map(|span| span.kind).collect();
    let cached = SpanKind::CacheLookup { cached_tokens: 39 };
    assert_eq!(kinds, [SpanKind::Queue, cached, SpanKind::Prefill { tokens: 1 }, SpanKind::Decode { tokens: 5 }]);
}

#[test]
fn the_watchdog_sees_a_step_that_does_not_end() {
    let fake = FakeConfig { step_delay: Duration::from_millis(300), ..Default::default() };
    let (engine, _) = start(fake, EngineConfig::default());
    assert_eq!(engine.silence(), None);
    let events = engine.submit(request("a", &[1], 1)).unwrap();
    eventually("it is seen", || engine.silence().is_some_and(|silence| silence > Duration::from_millis(100)));
    collect(events);
    eventually("it is over", || engine.silence().is_none());
}

#[test]
fn what_was_computed_survives_a_restart_on_the_ssd() {
    let folder = tempfile::tempdir().unwrap();
    let ssd = SsdOptions { dir: folder.path().into(), max_bytes: 1 << 30, quantize: false };
    let config = EngineConfig { ssd: Some(ssd), ..Default::default() };
    let prompt: Vec<u32> = (0..50).collect();
    let mut answers = Vec::new();
    for (round, cached) in [(0, 0), (1, 49), (2, 49)] {
        let (engine, probe) = start(FakeConfig::default(), config.clone());
        let (tokens, last) = collect(engine.submit(request("a", &prompt, 6)).unwrap());
        assert_eq!(finished(last).usage.cached_tokens, cached, "round {round}");
        answers.push(tokens);
        assert_eq!(probe.violations.load(Relaxed), 0);
        engine.drain();
        engine.join();
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn one_panic_is_survived_and_repeated_ones_are_reported() {
    let fake = FakeConfig { panic_at: [1, 4, 5].into(), ..Default::default() };
    let (engine, _) = start(fake, EngineConfig::default());
    let failed = |events| match collect(events).1 {
        Event::Failed(error) => error,
        other => panic!("{other:?}"),
    };
    let error = failed(engine.submit(request("a", &[1], 9)).unwrap());
    assert_eq!(error.message, "the model runner panicked: the fake was told to panic at step 1");
    assert_eq!(collect(engine.submit(request("b", &[1], 2)).unwrap()).0.len(), 2);
    failed(engine.submit(request("c", &[1], 9)).unwrap());
    failed(engine.submit(request("d", &[1], 9)).unwrap());
    engine.join();
    assert_eq!(engine.stats().state, EngineState::Broken);
    let refused = engine.submit(request("e", &[1], 9)).unwrap_err();
    assert!(matches!(refused, SubmitError::Draining | SubmitError::Stopped(_)), "{refused}");
}

#[test]
fn load_errors_and_nonsense_are_reported_by_start() {
    let absent = || Err(Error::Model("config.json: no such file".into()));
    let error = Engine::start(absent, EngineConfig::default()).unwrap_err();
    assert_eq!(error.to_string(), "config.json: no such file");
    let error = Engine::start(|| panic!("bang"), EngineConfig::default()).unwrap_err();
    assert_eq!(error, StartError::Panicked("bang".into()));
    let narrow = EngineConfig { max_num_batched_tokens: 3, max_num_seqs: 4, ..Default::default() };
    let error = Engine::start(absent, narrow).unwrap_err().to_string();
    assert_eq!(error, "max_num_batched_tokens is 3: it must be at least max_num_seqs, 4");
}

#[test]
fn draining_finishes_what_is_there_and_stops() {
    let (engine, _) = start(slow(), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request("a", &[1], 5)).unwrap()).collect();
    engine.drain();
    assert_eq!(engine.submit(request("late", &[1], 5)).unwrap_err(), SubmitError::Draining);
    for events in streams {
        assert_eq!(finished(collect(events).1).reason, FinishReason::Length);
    }
    engine.join();
    assert_eq!(engine.stats().state, EngineState::Stopped);
}

#[test]
fn shutting_down_aborts_what_is_there() {
    let (engine, _) = start(slow(), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let streams: Vec<_> = (0..3).map(|_| engine.submit(request("a", &[1], 200)).unwrap()).collect();
    engine.shutdown();
    engine.join();
    for events in streams {
        assert_eq!(finished(collect(events).1).reason, FinishReason::Abort);
    }
    assert_eq!((engine.stats().aborted, engine.stats().waiting), (3, 0));
}

#[test]
fn the_engine_ends_with_its_last_handle() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let events = engine.submit(request("a", &[1], 5)).unwrap();
    drop(engine);
    assert_eq!(collect(events).0.len(), 5);
}

#[tokio::test]
async fn async_start_stream_and_stop() {
    let make = || Ok(Box::new(FakeRunner::new(FakeConfig::default())) as Box<_>);
    let engine = Engine::start_async(make, EngineConfig::default()).await.unwrap();
    let mut events = engine.submit(request("a", &[1], 2)).unwrap();
    assert!(matches!(events.next().await, Some(Event::Token(_))));
    assert!(matches!(events.next().await, Some(Event::Token(_))));
    assert!(matches!(events.next().await, Some(Event::Finished(_))));
    assert_eq!(events.next().await, None);
    engine.drain();
    assert_eq!(engine.stopped().await, EngineState::Stopped);
}

#[test]
fn processors_hear_of_each_token_before_they_are_asked_for_the_next() {
    #[derive(Debug, Default)]
    struct Recorder(Mutex<Vec<(bool, Vec<u32>)>>);
    impl LogitsProcessor for Recorder {
        fn process(&self, prompt: &[u32], output: &[u32], _logits: &mut [f32]) {
            assert_eq!(prompt, [1, 2, 3]);
            self.0.lock().unwrap().push((false, output.to_vec()));
        }
        fn sampled(&self, prompt: &[u32], output: &[u32]) {
            assert_eq!(prompt, [1, 2, 3]);
            self.0.lock().unwrap().push((true, output.to_vec()));
        }
    }
    let (engine, _) = start(FakeConfig { script: vec![7, 8, 9, 10], ..Default::default() }, EngineConfig::default());
    let recorder = Arc::new(Recorder::default());
    let processors: Vec<Arc<dyn LogitsProcessor>> = vec![recorder.clone()];
    let (tokens, last) = collect(engine.submit(Request { processors, ..request("a", &[1, 2, 3], 3) }).unwrap());
    assert_eq!(finished(last).reason, FinishReason::Length);
    let heard: Vec<Vec<u32>> =
        recorder.0.lock().unwrap().iter().filter(|(sampled, _)| *sampled).map(|(_, output)| output.clone()).collect();
    // Nothing follows the last one.
    assert_eq!(heard, [&tokens[..1], &tokens[..2]]);
}
