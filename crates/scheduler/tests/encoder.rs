//! The encoder's engine over a fake: one case a behaviour.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use vllm_platform::{
    EncoderInput, Error,
    testing::{FakeEncoder, FakeEncoderConfig, FakeEncoderProbe},
};
use vllm_scheduler::{
    EncodeInput, EncodeRequest, EncoderConfig, EncoderEngine, EncoderHandle, EngineState, FailureKind, StartError,
    SubmitError,
};

fn start(fake: FakeEncoderConfig, config: EncoderConfig) -> (EncoderHandle, Arc<FakeEncoderProbe>) {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let encoder = FakeEncoder::new(fake);
        sender.send(encoder.probe()).unwrap();
        Ok(Box::new(encoder) as Box<_>)
    };
    (EncoderEngine::start(make, config).unwrap(), probe.recv().unwrap())
}

fn slow() -> FakeEncoderConfig {
    FakeEncoderConfig { delay: Duration::from_millis(5), ..Default::default() }
}

fn texts(client: Option<&str>, count: usize, tokens: usize) -> EncodeRequest {
    let input = |i: usize| EncodeInput { tokens: vec![i as u32 % 300; tokens], types: Vec::new() };
    EncodeRequest { inputs: (0..count).map(input).collect(), client: client.map(Into::into), timeout: None }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn every_text_gets_its_own_vector_in_steps_of_bounded_size() {
    let (engine, probe) = start(Default::default(), EncoderConfig { max_num_batched_tokens: 32, ..Default::default() });
    let requests: Vec<EncodeRequest> = (1..6).map(|i| texts(None, 10 * i, 3 + i)).collect();
    let tickets: Vec<_> = requests.iter().map(|request| engine.submit(request.clone()).unwrap()).collect();
    let encoder = FakeEncoder::new(Default::default());
    for (request, ticket) in requests.iter().zip(tickets) {
        let encoded = ticket.blocking_wait().unwrap();
        let answer = |input: &EncodeInput| encoder.answer(&EncoderInput { tokens: &input.tokens, types: &[] });
        assert_eq!(encoded.vectors, request.inputs.iter().map(answer).collect::<Vec<_>>());
        assert_eq!(encoded.tokens, request.inputs.iter().map(|input| input.tokens.len()).sum::<usize>());
    }
    assert!(probe.widest.load(Relaxed) <= 32);
    let stats = engine.stats();
    assert_eq!((stats.waiting, stats.finished, stats.texts), (0, 5, 150));
    assert_eq!(stats.tokens, probe.tokens.load(Relaxed));
}

#[test]
fn a_short_request_does_not_wait_for_a_long_one() {
    let (engine, _) = start(slow(), EncoderConfig { max_num_batched_tokens: 16, ..Default::default() });
    let long = engine.submit(texts(None, 400, 8)).unwrap();
    eventually("the long one runs", || engine.stats().steps > 2);
    let before = engine.stats().steps;
    engine.submit(texts(None, 1, 8)).unwrap().blocking_wait().unwrap();
    assert!(engine.stats().steps <= before + 3, "it was in one of the next steps");
    drop(long);
    eventually("nobody waits for the rest", || engine.stats().waiting == 0);
    assert_eq!(engine.stats().cancelled, 1);
    assert!(engine.stats().texts < 400);
}

#[test]
fn what_can_never_be_computed_is_refused() {
    let (engine, _) = start(Default::default(), EncoderConfig::default());
    let one =
        |tokens: Vec<u32>| EncodeRequest { inputs: vec![EncodeInput { tokens, types: vec![] }], ..texts(None, 0, 0) };
    let cases = [
        ("no texts", texts(None, 0, 0), SubmitError::EmptyPrompt),
        ("no tokens", one(vec![]), SubmitError::EmptyPrompt),
        ("too long", one(vec![1; 65]), SubmitError::InputLength { index: 0, tokens: 65, limit: 64 }),
        ("no such token", one(vec![1, 300]), SubmitError::UnknownToken { token: 300, vocab: 300 }),
    ];
    for (name, request, wanted) in cases {
        assert_eq!(engine.submit(request).map(drop), Err(wanted), "{name}");
    }
    assert_eq!(engine.stats().waiting, 0);
}

#[test]
fn the_queue_is_bounded_for_all_and_for_each() {
    let config = EncoderConfig { max_waiting: 3, max_waiting_per_client: 2, ..Default::default() };
    let (engine, _) = start(slow(), config);
    let submit = |client| engine.submit(texts(client, 40, 64));
    let _tickets = [submit(Some("a")).unwrap(), submit(Some("a")).unwrap()];
    assert_eq!(submit(Some("a")).map(drop), Err(SubmitError::ClientBusy { limit: 2 }));
    let _third = submit(Some("b")).unwrap();
    assert_eq!(submit(None).map(drop), Err(SubmitError::Busy { limit: 3 }));
}

#[test]
fn time_runs_out() {
    let (engine, _) = start(slow(), EncoderConfig { max_num_batched_tokens: 8, ..Default::default() });
    let request = EncodeRequest { timeout: Some(Duration::from_millis(20)), ..texts(None, 1000, 8) };
    let failure = engine.submit(request).unwrap().blocking_wait().unwrap_err();
    assert_eq!(failure.kind, FailureKind::Timeout);
    assert_eq!(engine.stats().waiting, 0);
}

#[test]
fn a_failed_step_fails_its_requests_and_no_others() {
    let fake = FakeEncoderConfig { fail_at: [0].into(), panic_at: [1].into(), ..Default::default() };
    let (engine, _) = start(fake, EncoderConfig::default());
    for wanted in ["told to fail at call 0", "panicked: the fake was told to panic at call 1"] {
        let failure = engine.submit(texts(None, 2, 8)).unwrap().blocking_wait().unwrap_err();
        assert_eq!(failure.kind, FailureKind::Step);
        assert!(failure.message.contains(wanted), "{failure}");
    }
    assert!(engine.submit(texts(None, 2, 8)).unwrap().blocking_wait().is_ok());
    assert_eq!((engine.stats().failed, engine.stats().finished), (2, 1));
}

#[test]
fn panics_in_a_row_are_the_end() {
    let fake = FakeEncoderConfig { panic_at: [0, 1].into(), ..Default::default() };
    let (engine, _) = start(fake, EncoderConfig::default());
    for _ in 0..2 {
        assert!(engine.submit(texts(None, 1, 8)).unwrap().blocking_wait().is_err());
    }
    eventually("it gives up", || engine.stats().state == EngineState::Broken);
    let refused = engine.submit(texts(None, 1, 8)).map(drop);
    assert!(matches!(refused, Err(SubmitError::Draining | SubmitError::Stopped(_))), "{refused:?}");
}

#[test]
fn drained_engines_finish_what_they_have() {
    let (engine, _) = start(slow(), EncoderConfig { max_num_batched_tokens: 16, ..Default::default() });
    let ticket = engine.submit(texts(None, 20, 8)).unwrap();
    engine.drain();
    assert_eq!(engine.submit(texts(None, 1, 8)).map(drop), Err(SubmitError::Draining));
    assert_eq!(ticket.blocking_wait().unwrap().vectors.len(), 20);
    eventually("it stops", || engine.stats().state == EngineState::Stopped);
}

#[test]
fn shutdown_answers_everybody() {
    let (engine, _) = start(slow(), EncoderConfig { max_num_batched_tokens: 16, ..Default::default() });
    let ticket = engine.submit(texts(None, 1000, 8)).unwrap();
    engine.shutdown();
    assert_eq!(ticket.blocking_wait().unwrap_err().kind, FailureKind::Stopped);
}

#[test]
fn what_cannot_start_says_why() {
    let nothing = EncoderConfig { max_waiting: 0, ..Default::default() };
    let make = || Ok(Box::new(FakeEncoder::new(Default::default())) as Box<_>);
    assert!(matches!(EncoderEngine::start(make, nothing), Err(StartError::Config { field: "max_waiting", .. })));
    let broken = || Err(Error::Model("no such file".into()));
    let error = EncoderEngine::start(broken, EncoderConfig::default()).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "no such file");
    let error = EncoderEngine::start(|| panic!("loading broke"), EncoderConfig::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("loading broke"), "{error}");
}
