//! The engine that speaks, over a fake: one case a behaviour.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use vllm_platform::{
    Error, Utterance,
    testing::{FakeSynthesizer, FakeSynthesizerConfig, FakeSynthesizerProbe},
};
use vllm_scheduler::{
    EngineState, FailureKind, SpeakRequest, SpeechStream, Spoken, StartError, SubmitError, SynthesisConfig,
    SynthesisEngine, SynthesisHandle,
};

fn start(fake: FakeSynthesizerConfig, config: SynthesisConfig) -> (SynthesisHandle, Arc<FakeSynthesizerProbe>) {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let model = FakeSynthesizer::new(fake);
        sender.send(model.probe()).unwrap();
        Ok(Box::new(model) as Box<_>)
    };
    (SynthesisEngine::start(make, config).unwrap(), probe.recv().unwrap())
}

fn slow() -> FakeSynthesizerConfig {
    FakeSynthesizerConfig { delay: Duration::from_millis(5), ..Default::default() }
}

fn spoken(symbols: &[u32]) -> Spoken {
    Spoken { symbols: symbols.to_vec(), style: vec![0.5; 256].into(), pause: Duration::ZERO }
}

/// Utterances of so many symbols each.
fn request(lengths: &[usize]) -> SpeakRequest {
    let utterance = |(i, &len): (usize, &usize)| spoken(&vec![1 + i as u32 % 90; len]);
    let utterances = lengths.iter().enumerate().map(utterance).collect();
    SpeakRequest { utterances, speed: 1.0, seed: 7, client: None, timeout: None }
}

fn listen(mut stream: SpeechStream) -> Vec<Result<Vec<f32>, (FailureKind, String)>> {
    let mut chunks = Vec::new();
    while let Some(chunk) = stream.blocking_next() {
        chunks.push(chunk.map_err(|failure| (failure.kind, failure.message)));
    }
    assert_eq!(stream.blocking_next(), None);
    chunks
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn each_utterance_is_a_chunk_with_its_pause() {
    let (engine, probe) = start(Default::default(), Default::default());
    let model = FakeSynthesizer::new(Default::default());
    let mut request = SpeakRequest { speed: 2.0, ..request(&[3, 1, 2]) };
    request.utterances[1].pause = Duration::from_millis(250);
    let chunks = listen(engine.submit(request.clone()).unwrap());
    assert_eq!(chunks.len(), 3);
    for (spoken, chunk) in request.utterances.iter().zip(chunks) {
        let utterance = Utterance { symbols: &spoken.symbols, style: &spoken.style, speed: 2.0, seed: 7 };
        let mut wanted = model.answer(&utterance);
        let pause = if spoken.pause.is_zero() { 0 } else { 6000 };
        wanted.extend(vec![0.0; pause]);
        assert_eq!(chunk, Ok(wanted));
    }
    let stats = engine.stats();
    assert_eq!((stats.work.finished, stats.work.running, stats.work.waiting), (1, 0, 0));
    assert_eq!((stats.utterances, stats.symbols, stats.samples), (3, 6, 6 * 600));
    assert_eq!(stats.first_chunk.count(), 1);
    assert_eq!(probe.symbols.load(Relaxed), 6);
}

#[test]
fn a_sentence_does_not_wait_for_a_book() {
    let (engine, _) = start(slow(), Default::default());
    let mut book = engine.submit(SpeakRequest { client: Some("a".into()), ..request(&[10; 500]) }).unwrap();
    assert!(book.blocking_next().unwrap().is_ok());
    let before = engine.stats().utterances;
    let sentence = SpeakRequest { client: Some("b".into()), ..request(&[10]) };
    assert_eq!(listen(engine.submit(sentence).unwrap()).len(), 1);
    assert!(engine.stats().utterances <= before + 4, "it was among the next");
    assert_eq!(engine.stats().work.running, 1);
    drop(book);
    eventually("nobody waits for the rest", || engine.stats().work.cancelled == 1);
    assert!(engine.stats().utterances < 500);
    assert_eq!((engine.stats().work.running, engine.stats().work.waiting), (0, 0));
}

#[test]
fn a_call_that_fails_fails_its_request_and_no_other() {
    let fake = FakeSynthesizerConfig {
        fail_at: [1].into(),
        panic_at: [2].into(),
        not_finite_at: [3].into(),
        ..Default::default()
    };
    let (engine, _) = start(fake, Default::default());
    let cases = [
        ("in the midst", 1, "told to fail at call 1"),
        ("a panic", 0, "the model panicked: the fake was told to panic at call 2"),
        ("no numbers", 0, "sample 0 is not a finite number"),
    ];
    for (name, spoken, wanted) in cases {
        let chunks = listen(engine.submit(request(&[2, 2])).unwrap());
        assert_eq!(chunks.len(), spoken + 1, "{name}");
        let (kind, message) = chunks.last().unwrap().clone().unwrap_err();
        assert_eq!(kind, FailureKind::Step, "{name}");
        assert!(message.contains(wanted), "{name}: {message}");
    }
    assert!(listen(engine.submit(request(&[2, 2])).unwrap()).iter().all(Result::is_ok));
    assert_eq!((engine.stats().work.failed, engine.stats().work.finished), (3, 1));
}

#[test]
fn time_runs_out() {
    let (engine, _) = start(slow(), Default::default());
    let request = SpeakRequest { timeout: Some(Duration::from_millis(20)), ..request(&[2; 1000]) };
    let chunks = listen(engine.submit(request).unwrap());
    assert_eq!(chunks.last().unwrap().clone().unwrap_err().0, FailureKind::Timeout);
    assert!(chunks.len() < 1000);
}

#[test]
fn panics_in_a_row_are_the_end() {
    let fake = FakeSynthesizerConfig { panic_at: [0, 1, 3, 4, 5].into(), ..Default::default() };
    let (engine, _) = start(fake, Default::default());
    let answers: Vec<bool> = (0..6).map(|_| listen(engine.submit(request(&[1])).unwrap())[0].is_ok()).collect();
    assert_eq!(answers, [false, false, true, false, false, false]);
    eventually("it gives up", || engine.stats().work.state == EngineState::Broken);
    let refused = engine.submit(request(&[1])).map(drop);
    assert!(matches!(refused, Err(SubmitError::Draining | SubmitError::Stopped(_))), "{refused:?}");
}

#[test]
fn drained_engines_finish_what_they_have_and_shut_down_ones_do_not() {
    for drains in [true, false] {
        let (engine, probe) = start(slow(), Default::default());
        let stream = engine.submit(request(&[2; 20])).unwrap();
        eventually("it is under way", || engine.stats().utterances > 0);
        if drains {
            engine.drain();
        } else {
            engine.shutdown();
        }
        assert_eq!(engine.submit(request(&[1])).map(drop), Err(SubmitError::Draining));
        let chunks = listen(stream);
        match drains {
            true => assert_eq!((chunks.len(), chunks.iter().all(Result::is_ok)), (20, true)),
            false => assert_eq!(chunks.last().unwrap().clone().unwrap_err().0, FailureKind::Stopped),
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(engine.stopped()), EngineState::Stopped);
        assert_eq!(Arc::strong_count(&probe), 1, "the model is gone");
    }
}

#[test]
fn the_engine_ends_with_its_last_handle() {
    let (engine, probe) = start(Default::default(), Default::default());
    let stream = engine.submit(request(&[2; 3])).unwrap();
    drop(engine);
    assert_eq!(listen(stream).len(), 3, "what was begun is ended");
    eventually("the model is gone", || Arc::strong_count(&probe) == 1);
}

#[test]
fn the_watchdog_sees_a_model_that_does_not_pause() {
    let (engine, _) = start(FakeSynthesizerConfig { delay: Duration::from_millis(300), ..slow() }, Default::default());
    assert_eq!(engine.silence(), None);
    let stream = engine.submit(request(&[1])).unwrap();
    eventually("it is seen", || engine.silence().is_some_and(|silence| silence > Duration::from_millis(100)));
    assert_eq!(listen(stream).len(), 1);
    eventually("it is over", || engine.silence().is_none());
}

#[test]
fn what_can_never_be_said_is_refused() {
    let (engine, _) = start(Default::default(), SynthesisConfig { max_waiting: 1, ..Default::default() });
    let with = |change: &dyn Fn(&mut SpeakRequest)| {
        let mut request = request(&[2, 2]);
        change(&mut request);
        request
    };
    let cases = [
        ("nothing", with(&|request| request.utterances.clear()), "the prompt is empty"),
        ("no symbols", with(&|request| request.utterances[1].symbols.clear()), "utterance 1 has no symbols"),
        ("too long", request(&[2, 511]), "utterance 1 has 511 symbols, and this model speaks 510"),
        ("style", with(&|request| request.utterances[0].style = [0.0].into()), "utterance 0 has a style of 1 numbers"),
        (
            "no style",
            with(&|request| request.utterances[0].style = vec![f32::NAN; 256].into()),
            "utterance 0 has a style that is not made of finite numbers",
        ),
        ("pause", with(&|request| request.utterances[0].pause = Duration::MAX), "utterance 0 has a pause of"),
        ("speed", with(&|request| request.speed = 0.0), "speed is 0: it must be greater than 0"),
        ("no speed", with(&|request| request.speed = f32::NAN), "speed is NaN"),
    ];
    for (name, request, wanted) in cases {
        let error = engine.submit(request).map(drop).unwrap_err();
        assert!(error.to_string().contains(wanted), "{name}: {error}");
    }
    let (busy, _) = start(slow(), SynthesisConfig { max_waiting: 1, ..Default::default() });
    let _one = busy.submit(request(&[2; 100])).unwrap();
    assert_eq!(busy.submit(request(&[1])).map(drop), Err(SubmitError::Busy { limit: 1 }));
}

#[test]
fn what_cannot_start_says_why() {
    let make = || Ok(Box::new(FakeSynthesizer::new(Default::default())) as Box<_>);
    let nothing = SynthesisConfig { max_waiting_per_client: 0, ..Default::default() };
    let error = SynthesisEngine::start(make, nothing).map(drop).unwrap_err();
    assert!(matches!(error, StartError::Config { field: "max_waiting_per_client", .. }), "{error}");
    let broken = || Err(Error::Model("no such file".into()));
    assert_eq!(SynthesisEngine::start(broken, Default::default()).map(drop).unwrap_err().to_string(), "no such file");
    let error = SynthesisEngine::start(|| panic!("bang"), Default::default()).map(drop).unwrap_err();
    assert_eq!(error, StartError::Panicked("bang".into()));
}
