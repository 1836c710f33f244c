//! Requests with pictures, over a fake runner and a fake vision encoder: one case a behaviour.

mod pictures;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    time::Duration,
};

use pictures::{AtOnce, Counted, Kind, eventually, features, gated, show, source};
use vllm_platform::testing::{FakeConfig, FakeProbe, FakeRunner, FakeVisionConfig};
use vllm_scheduler::{
    Engine, EngineConfig, EngineHandle, Event, EventStream, Failure, FailureKind, FeatureSource, Finished, Phase,
    Request, SpanKind, SsdOptions, SubmitError, VisionHandle,
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

fn request(max_tokens: usize) -> Request {
    Request { max_tokens, ..Request::new("a") }
}

fn at_once(number: u8, tokens: usize) -> Arc<dyn FeatureSource> {
    Arc::new(AtOnce(Ok(Arc::new(features(number, tokens)))))
}

/// A picture between two words, and a question.
fn about(number: u8, kind: Kind, question: &[u32], features: Arc<dyn FeatureSource>) -> Request {
    let mut request = Request { prompt: vec![1, 2], ..request(8) };
    show(&mut request, number, 10, kind, features);
    request.prompt.extend(question);
    request
}

fn collect(mut events: EventStream) -> (Vec<u32>, Event) {
    let mut tokens = Vec::new();
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Token(generated) => tokens.push(generated.token),
            last => return (tokens, last),
        }
    }
    panic!("no last event");
}

fn answer(engine: &EngineHandle, request: Request) -> (Vec<u32>, Finished) {
    match collect(engine.submit(request).unwrap()) {
        (tokens, Event::Finished(end)) => (tokens, end),
        other => panic!("{other:?}"),
    }
}

fn failure(events: EventStream) -> Failure {
    match collect(events).1 {
        Event::Failed(failure) => failure,
        other => panic!("{other:?}"),
    }
}

fn counted(source: Arc<dyn FeatureSource>) -> (Arc<dyn FeatureSource>, Arc<AtomicU64>) {
    let polls = Arc::new(AtomicU64::new(0));
    (Arc::new(Counted { source, polls: Arc::clone(&polls) }), polls)
}

#[test]
fn an_answer_is_about_the_picture() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig { prefix_cache: false, ..Default::default() });
    for kind in [Kind::Plain, Kind::Grid, Kind::Bidirectional] {
        let ask = |number| answer(&engine, about(number, kind, &[3], at_once(number, 10))).0;
        assert_eq!(ask(1), ask(1), "{kind:?}");
        assert_ne!(ask(1), ask(2), "{kind:?}");
    }
    assert_eq!(probe.violations.load(Relaxed), 0);
}

#[test]
fn a_second_question_about_a_picture_needs_no_features() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig::default());
    let (first, end) = answer(&engine, about(1, Kind::Grid, &[3, 4], at_once(1, 10)));
    assert_eq!((end.usage.media_tokens, end.usage.cached_media_tokens, end.usage.cached_tokens), (10, 0, 0));
    let (source, polls) = counted(Arc::new(AtOnce(Err("it must not be asked".into()))));
    let (_, end) = answer(&engine, about(1, Kind::Grid, &[5, 6], Arc::clone(&source)));
    assert_eq!((end.usage.media_tokens, end.usage.cached_media_tokens, end.usage.cached_tokens), (10, 10, 12));
    let (again, end) = answer(&engine, about(1, Kind::Grid, &[3, 4], source));
    assert_eq!((again, end.usage.cached_tokens), (first, 13));
    assert_eq!(polls.load(Relaxed), 0, "nobody asks for features that nobody needs");
    // Another picture under the same tokens is another prompt, and so is the same one elsewhere on the axes.
    for request in [about(2, Kind::Grid, &[3, 4], at_once(2, 10)), about(1, Kind::Plain, &[3, 4], at_once(1, 10))] {
        let (_, end) = answer(&engine, request);
        assert_eq!((end.usage.cached_tokens, end.usage.cached_media_tokens), (2, 0));
    }
    let stats = engine.stats().prefix_cache;
    assert_eq!((stats.media_queries, stats.media_hits), (50, 20));
    assert_eq!(probe.violations.load(Relaxed), 0);
}

#[test]
fn only_what_is_new_is_asked_for() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let film = |frames: &[u8], source: &dyn Fn(u8) -> Arc<dyn FeatureSource>| {
        let mut film = Request { prompt: vec![1], ..request(4) };
        for &frame in frames {
            show(&mut film, frame, 6, Kind::Grid, source(frame));
            film.prompt.push(7);
        }
        film
    };
    answer(&engine, film(&[1, 2, 3], &|frame| at_once(frame, 6)));
    let polls: Vec<_> = (0..6).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let source = |frame: u8| {
        Arc::new(Counted { source: at_once(frame, 6), polls: Arc::clone(&polls[usize::from(frame)]) }) as Arc<_>
    };
    let (_, end) = answer(&engine, film(&[1, 2, 3, 4, 5], &source));
    assert_eq!((end.usage.media_tokens, end.usage.cached_media_tokens), (30, 18));
    let asked: Vec<u64> = polls.iter().map(|polls| polls.load(Relaxed)).collect();
    assert_eq!(asked, [0, 0, 0, 0, 1, 1]);
}

#[test]
fn others_go_ahead_of_whoever_waits_for_an_encoder() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, seen, go) = gated(Default::default(), Default::default());
    let traced = Request { trace: true, ..about(1, Kind::Grid, &[3], source(&vision, 1, 10)) };
    let picture = engine.submit(traced).unwrap();
    eventually("the encoder is at it", || vision.stats().running);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(runtime.block_on(engine.requests())[0].phase, Phase::Encoding);
    eventually("there is nothing to compute", || engine.silence().is_none());
    for _ in 0..3 {
        let (tokens, _) = answer(&engine, Request { prompt: vec![1, 2, 3], ..request(5) });
        assert_eq!(tokens.len(), 5);
    }
    // One whose picture is in the KV cache already does not wait for the encoder either.
    let known = || about(2, Kind::Grid, &[3], at_once(2, 10));
    assert_eq!(answer(&engine, known()).0, answer(&engine, known()).0);
    let steps = probe.steps.load(Relaxed);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((probe.steps.load(Relaxed), seen.calls.load(Relaxed)), (steps, 0), "nothing is computed meanwhile");
    drop(go);
    let (tokens, Event::Finished(end)) = collect(picture) else { panic!("no end") };
    assert_eq!(tokens.len(), 8);
    let kinds: Vec<_> = end.timeline.iter().map(|span| span.kind).collect();
    assert_eq!(kinds[..2], [SpanKind::MediaWait { spans: 1 }, SpanKind::Queue]);
    assert_eq!((end.usage.media_tokens, end.usage.reused_media_tokens), (10, 0));
    // The features are still there when the KV is not.
    runtime.block_on(engine.clear_cache());
    let (again, end) = answer(&engine, about(1, Kind::Grid, &[3], source(&vision, 1, 10)));
    assert_eq!((again, end.usage.cached_tokens, end.usage.reused_media_tokens), (tokens, 0, 10));
    assert_eq!(seen.calls.load(Relaxed), 1);
}

#[test]
fn texts_and_pictures_share_steps() {
    let (engine, probe) =
        start(FakeConfig::default(), EngineConfig { max_num_batched_tokens: 24, ..Default::default() });
    let (vision, seen, go) = gated(Default::default(), Default::default());
    let ask = |number: u8| {
        let question = [u32::from(number)];
        let kind = [Kind::Plain, Kind::Grid, Kind::Bidirectional][usize::from(number) % 3];
        match number % 4 {
            3 => Request { prompt: vec![question[0]; 9], ..request(8) },
            _ => about(number, kind, &question, source(&vision, number % 4, 10)),
        }
    };
    let together: Vec<_> = (0..12).map(|number| engine.submit(ask(number)).unwrap()).collect();
    drop(go);
    let together: Vec<_> = together.into_iter().map(|events| collect(events).0).collect();
    assert!(probe.most_rows.load(Relaxed) > 3, "they did not run together");
    assert_eq!(seen.calls.load(Relaxed), 3, "each picture once");
    let config = EngineConfig { prefix_cache: false, max_num_seqs: 1, ..Default::default() };
    let (alone, other) = start(FakeConfig::default(), config);
    for (number, batched) in together.iter().enumerate() {
        assert_eq!(answer(&alone, ask(number as u8)).0, *batched, "request {number}");
    }
    assert_eq!((probe.violations.load(Relaxed), other.violations.load(Relaxed)), (0, 0));
}

#[test]
fn a_stream_goes_on_while_a_picture_is_looked_at() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let slow = FakeVisionConfig { slices: 1000, delay: Duration::from_millis(1), ..Default::default() };
    let (vision, seen) = pictures::start(slow, Default::default());
    let picture = engine.submit(about(1, Kind::Grid, &[3], source(&vision, 1, 10))).unwrap();
    eventually("the encoder is at it", || seen.pauses.load(Relaxed) > 2);
    let (tokens, _) = answer(&engine, Request { prompt: vec![1, 2, 3], ..request(30) });
    assert_eq!((tokens.len(), seen.ended.load(Relaxed)), (30, 0), "the answer was there before the picture was done");
    drop(picture);
    vision.drain();
}

#[test]
fn whoever_goes_away_leaves_nothing_behind() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, seen, go) = gated(Default::default(), Default::default());
    let ask = |number| engine.submit(about(number, Kind::Grid, &[3], source(&vision, number, 10))).unwrap();
    let (begun, queued, timed) = (ask(1), ask(2), ask(3));
    eventually("the encoder is at it", || vision.stats().running);
    eventually("the others wait", || vision.stats().waiting == 2);
    drop((begun, queued));
    eventually("they are gone", || engine.stats().aborted == 2);
    eventually("nobody wants the second", || vision.stats().waiting == 1);
    drop(go);
    assert!(matches!(collect(timed).1, Event::Finished(_)));
    // The first was begun, and is there for whoever asks next.
    assert_eq!((seen.calls.load(Relaxed), vision.stats().skipped, vision.stats().entries), (2, 1, 2));
    eventually("all is free", || (engine.stats().waiting, engine.stats().blocks_in_use()) == (0, 0));
}

#[test]
fn time_runs_out_while_a_picture_is_looked_at() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, _, go) = gated(Default::default(), Default::default());
    let limited =
        Request { timeout: Some(Duration::from_millis(30)), ..about(1, Kind::Grid, &[3], source(&vision, 1, 10)) };
    assert_eq!(failure(engine.submit(limited).unwrap()).kind, FailureKind::Timeout);
    drop(go);
}

#[test]
fn a_picture_that_cannot_be_seen_fails_its_request_alone() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, _) =
        pictures::start(FakeVisionConfig { fail_at: [0].into(), ..Default::default() }, Default::default());
    let other = engine.submit(Request { prompt: vec![1, 2, 3], ..request(20) }).unwrap();
    let failed = failure(engine.submit(about(1, Kind::Grid, &[3], source(&vision, 1, 10))).unwrap());
    assert_eq!(failed.kind, FailureKind::Media);
    assert!(failed.message.contains("medium 0 of the prompt") && failed.message.contains("call 0"), "{failed}");
    let failed = failure(engine.submit(about(1, Kind::Grid, &[3], at_once(1, 8))).unwrap());
    assert_eq!(failed.message, "medium 0 of the prompt has 8 vectors, and its tokens take 10");
    assert_eq!(collect(other).0.len(), 20);
    assert_eq!(answer(&engine, about(1, Kind::Grid, &[3], source(&vision, 1, 10))).0.len(), 8);
    eventually("all is free", || engine.stats().blocks_in_use() == 0);
    assert_eq!(engine.stats().failed, 2);
}

#[test]
fn media_stand_where_they_can() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let placed = |spans: &[(usize, usize)]| {
        let mut request = Request { prompt: vec![1; 10], ..request(1) };
        for &(start, len) in spans {
            show(&mut request, 1, 2, Kind::Plain, at_once(1, 20));
            let span = &mut request.media.last_mut().unwrap().span;
            (span.start, span.len) = (start, len);
        }
        Request { prompt: vec![1; 10], ..request }
    };
    type Case = (&'static str, &'static [(usize, usize)], Result<(), (usize, &'static str)>);
    let cases: [Case; 7] = [
        ("everywhere", &[(0, 4), (4, 6)], Ok(())),
        ("empty", &[(0, 0)], Err((0, "stands for no token"))),
        ("beyond the end", &[(0, 1), (9, 2)], Err((1, "has 2 tokens from 9 on, and the prompt has 10"))),
        ("absurd", &[(usize::MAX, 2)], Err((0, "has 2 tokens from 18446744073709551615 on, and the prompt has 10"))),
        ("overlapping", &[(0, 4), (3, 2)], Err((1, "begins at token 3, and the one before it ends at 4"))),
        ("the same", &[(0, 4), (0, 4)], Err((1, "begins at token 0, and the one before it ends at 4"))),
        ("out of order", &[(5, 1), (0, 1)], Err((1, "begins at token 0, and the one before it ends at 6"))),
    ];
    for (name, spans, wanted) in cases {
        let wanted = wanted.map_err(|(index, what)| SubmitError::Media { index, what: what.into() });
        assert_eq!(engine.submit(placed(spans)).map(drop), wanted, "{name}");
    }
}

#[test]
fn what_sees_itself_is_computed_in_one_step() {
    // Longer than a step, with a window that has to be large enough for that.
    let config = EngineConfig { max_num_batched_tokens: 8, max_num_seqs: 4, ..Default::default() };
    let fake = FakeConfig { windowed: Some((6, 40)), ..Default::default() };
    let (engine, probe) = start(fake, config.clone());
    let ask = |number: u8| {
        let mut request = Request { prompt: vec![number.into(); 5], ..request(6) };
        show(&mut request, number, 20, Kind::Bidirectional, at_once(number, 20));
        request.prompt.extend([3; 6]);
        show(&mut request, 9, 6, Kind::Bidirectional, at_once(9, 6));
        request
    };
    let streams: Vec<_> = (0..6).map(|number| engine.submit(ask(number)).unwrap()).collect();
    let answers: Vec<_> = streams.into_iter().map(|events| collect(events).0).collect();
    assert_eq!(probe.violations.load(Relaxed), 0);
    assert!(probe.widest.load(Relaxed) <= 8 + 19, "{} tokens in one step", probe.widest.load(Relaxed));
    let (alone, _) = start(FakeConfig::default(), EngineConfig { prefix_cache: false, ..Default::default() });
    for (number, together) in answers.iter().enumerate() {
        assert_eq!(answer(&alone, ask(number as u8)).0, *together, "{number}");
    }
    // What the window has no room for is refused, not cut.
    let (narrow, _) = start(FakeConfig { windowed: Some((6, 6)), ..Default::default() }, config);
    assert!(matches!(narrow.submit(ask(0)).map(drop), Err(SubmitError::NeverFits { .. })));
    assert!(narrow.submit(Request { prompt: vec![1; 20], ..request(6) }).is_ok());
}

#[test]
fn kv_of_pictures_survives_a_restart_and_nobody_asks_for_features() {
    let folder = tempfile::tempdir().unwrap();
    let ssd = SsdOptions { dir: folder.path().into(), max_bytes: 1 << 30, quantize: false };
    let config = EngineConfig { ssd: Some(ssd), ..Default::default() };
    let mut answers = Vec::new();
    for (life, cached) in [(0, 0), (1, 30), (2, 30)] {
        let (engine, probe) = start(FakeConfig::default(), config.clone());
        let mut asked = Vec::new();
        let mut about = Request { prompt: vec![1, 2], ..request(6) };
        for number in 0..3 {
            let (source, polls) = counted(at_once(number, 10));
            show(&mut about, number, 10, Kind::Grid, source);
            about.prompt.extend([5, u32::from(number)]);
            asked.push(polls);
        }
        let (tokens, end) = answer(&engine, about);
        assert_eq!(end.usage.cached_media_tokens, cached, "life {life}");
        assert!(asked.iter().all(|polls| polls.load(Relaxed) == u64::from(life == 0)), "life {life}");
        answers.push(tokens);
        // A picture that was never there is not found.
        let mut other = Request { prompt: vec![1, 2], ..request(1) };
        show(&mut other, 7, 10, Kind::Grid, at_once(7, 10));
        let (_, end) = answer(&engine, other);
        assert_eq!(end.usage.cached_media_tokens, if life == 0 { 0 } else { 9 }, "life {life}");
        assert_eq!(probe.violations.load(Relaxed), 0);
        engine.drain();
        engine.join();
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]));
}

#[test]
fn who_loses_its_place_asks_again() {
    // Room for one and a half: the second gives way, and its features are forgotten meanwhile.
    let fake = FakeConfig { num_blocks: 14, step_delay: Duration::from_millis(3), ..Default::default() };
    let (engine, probe) = start(fake, EngineConfig { prefix_cache: false, ..Default::default() });
    let (vision, seen) =
        pictures::start(FakeVisionConfig::default(), vllm_scheduler::VisionConfig { cache_bytes: 0, ssd: None });
    let ask = |number: u8| Request { max_tokens: 30, ..about(number, Kind::Grid, &[3], source(&vision, number, 10)) };
    let streams = [1, 2].map(|number| engine.submit(ask(number)).unwrap());
    let answers = streams.map(|events| collect(events).0);
    assert!(engine.stats().preemptions > 0);
    assert_eq!(seen.calls.load(Relaxed), 2 + engine.stats().preemptions);
    let (alone, _) = start(FakeConfig::default(), EngineConfig::default());
    let lonely = [1, 2].map(|number| answer(&alone, ask(number)).0);
    assert_eq!(answers, lonely);
    assert_eq!(probe.violations.load(Relaxed), 0);
}

#[test]
fn features_are_let_go_when_they_are_computed() {
    let (engine, _) =
        start(FakeConfig { step_delay: Duration::from_millis(2), ..Default::default() }, Default::default());
    let held = Arc::new(features(1, 10));
    #[derive(Debug)]
    struct Lends(std::sync::Mutex<Option<Arc<vllm_platform::Features>>>);
    impl FeatureSource for Lends {
        fn poll(&self, _: &vllm_scheduler::Wake) -> Option<Result<Arc<vllm_platform::Features>, String>> {
            Some(Ok(self.0.lock().unwrap().take().expect("it is asked once")))
        }
    }
    let weak = Arc::downgrade(&held);
    let source = Arc::new(Lends(std::sync::Mutex::new(Some(held))));
    let mut events = engine.submit(Request { max_tokens: 200, ..about(1, Kind::Grid, &[3], source) }).unwrap();
    assert!(matches!(events.blocking_next(), Some(Event::Token(_))));
    assert_eq!((weak.strong_count(), engine.stats().running), (0, 1));
}

#[test]
fn an_engine_without_handles_finishes_what_waits_for_an_encoder() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, _, go): (VisionHandle, _, _) = gated(Default::default(), Default::default());
    let events = engine.submit(about(1, Kind::Grid, &[3], source(&vision, 1, 10))).unwrap();
    eventually("the encoder is at it", || vision.stats().running);
    drop((engine, vision));
    drop(go);
    assert_eq!(collect(events).0.len(), 8);
}

#[test]
fn whoever_has_no_room_for_a_copy_asks_for_what_it_would_have_covered() {
    let (engine, probe) = start(FakeConfig { num_blocks: 4, ..Default::default() }, EngineConfig::default());
    let ask = |question: &[u32], max_tokens, source| {
        let timeout = Some(Duration::from_secs(20));
        let mut request = Request { prompt: vec![1], timeout, ..request(max_tokens) };
        show(&mut request, 1, 6, Kind::Grid, source);
        request.prompt.extend(question);
        request
    };
    answer(&engine, ask(&[2], 1, at_once(1, 6)));
    // The picture ends in the second block, of which both begin alike; but with all four blocks for itself there is none
    // left to copy from.
    let (source, polls) = counted(at_once(1, 6));
    let long = [3; 7];
    let (tokens, end) = answer(&engine, ask(&long, 3, source));
    assert_eq!((end.usage.cached_tokens, end.usage.cached_media_tokens, polls.load(Relaxed)), (4, 3, 1));
    let (alone, _) = start(FakeConfig::default(), EngineConfig::default());
    assert_eq!(answer(&alone, ask(&long, 3, at_once(1, 6))).0, tokens);
    assert_eq!(probe.violations.load(Relaxed), 0);
}

#[test]
fn features_are_asked_for_a_few_requests_ahead() {
    let (engine, _) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, seen, go) = gated(Default::default(), Default::default());
    let asked = |number: u8| {
        let request = about(number, Kind::Grid, &[3], source(&vision, number, 10));
        engine.submit(Request { priority: if number == 9 { -1 } else { 0 }, ..request }).unwrap()
    };
    let streams: Vec<_> = (0..9).map(asked).collect();
    eventually("the encoder is at the first", || vision.stats().running);
    eventually("the next wait", || vision.stats().waiting == 3);
    // One that comes before them all is asked for at once.
    let first = asked(9);
    eventually("it waits too", || vision.stats().waiting == 4);
    drop(go);
    for events in streams.into_iter().chain([first]) {
        assert_eq!(collect(events).0.len(), 8);
    }
    assert_eq!(seen.calls.load(Relaxed), 10);
}

#[test]
fn a_picture_in_pieces_is_asked_for_once() {
    let (engine, probe) = start(FakeConfig::default(), EngineConfig::default());
    let (vision, seen) = pictures::start(FakeVisionConfig::default(), Default::default());
    let polls = Arc::new(AtomicU64::new(0));
    let ask = |question| {
        let mut request = Request { prompt: vec![1], ..request(4) };
        for first in [0, 4, 8] {
            let source = Counted { source: source(&vision, 1, 10), polls: Arc::clone(&polls) };
            show(&mut request, 1, 2, Kind::Grid, Arc::new(source));
            request.media.last_mut().unwrap().span.first = first;
            request.prompt.push(5);
        }
        request.prompt.push(question);
        request
    };
    let (_, end) = answer(&engine, ask(3));
    assert_eq!((end.usage.media_tokens, end.usage.reused_media_tokens), (6, 0));
    assert_eq!((vision.stats().joined, vision.stats().hits), (0, 0), "no piece is asked for beside the first");
    let (before, (_, end)) = (polls.load(Relaxed), answer(&engine, ask(4)));
    assert_eq!((end.usage.cached_media_tokens, polls.load(Relaxed), seen.calls.load(Relaxed)), (6, before, 1));
    // Another piece in its place is another prompt.
    let mut other = ask(3);
    other.media[1].span.first = 2;
    let (_, end) = answer(&engine, other);
    assert_eq!((end.usage.cached_media_tokens, end.usage.reused_media_tokens), (2, 4));
    assert_eq!(probe.violations.load(Relaxed), 0);
}
