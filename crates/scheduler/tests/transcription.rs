//! The engine that hears, over a fake listener: one case a behaviour.

mod sounds;

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use sounds::{RATE, eventually, gated, hear, listen, request, sound, vocabulary};
use vllm_platform::{
    Error, Transcriber,
    testing::{FakeConfig, FakeListener, FakeListenerConfig, FakeListenerProbe, FakeRunner},
};
use vllm_scheduler::{
    Engine, EngineConfig, EngineState, Event, FailureKind, Request, StartError, SubmitError, TranscribeRequest,
    TranscriptionConfig, TranscriptionEngine,
};
use vllm_speech::whisper::{DecodingOptions, Task};

fn kept(probe: &FakeListenerProbe) -> (u64, u64) {
    (probe.windows.load(Relaxed), probe.texts.load(Relaxed))
}

fn slow() -> FakeListenerConfig {
    FakeListenerConfig { step_delay: Duration::from_millis(2), ..Default::default() }
}

/// A word each half a minute, each in a stretch of its own.
fn spread(words: usize) -> TranscribeRequest {
    let bursts: Vec<(f64, usize)> = (0..words).map(|i| (30.0 * i as f64 + 5.0, 1 + i % 9)).collect();
    let stretch =
        |&(start, _): &(f64, usize)| ((start - 4.0) * RATE as f64) as usize..((start + 12.0) * RATE as f64) as usize;
    let speech = Some(bursts.iter().map(stretch).collect());
    TranscribeRequest { speech, ..request(&sound(30.0 * words as f64, &bursts)) }
}

#[test]
fn windows_follow_one_another_where_the_text_before_ended() {
    let (engine, probe) = listen(Default::default(), Default::default());
    // The fourth goes on beyond the first window's end, so that the second begins after the third.
    let bursts = [(0.5, 3), (10.0, 4), (28.9, 5), (29.8, 6), (45.0, 1), (60.0, 2)];
    let heard = hear(engine.submit(request(&sound(70.0, &bursts))).unwrap());
    let wanted = [
        (" three", 0.5, 0.8),
        (" four", 10.0, 10.4),
        (" five", 28.9, 29.4),
        (" six", 29.8, 30.4),
        (" one", 45.0, 45.1),
        (" two", 59.4, 60.2),
    ];
    heard.check("70 s", &wanted);
    assert_eq!(heard.language, Some(("en", 1.0)));
    let (duration, tokens, windows) = heard.done.unwrap();
    assert_eq!((duration, windows), (70.0, 3));
    let seeks: Vec<usize> = heard.segments.iter().map(|segment| segment.seek / 10).collect();
    assert_eq!(seeks, [0, 0, 0, 294, 294, 594]);
    let stats = engine.stats();
    assert_eq!((stats.work.finished, stats.work.running, stats.work.waiting), (1, 0, 0));
    assert_eq!((stats.windows, stats.tokens, stats.audio_seconds), (3, tokens as u64, 70.0));
    assert_eq!((stats.decode_steps, stats.decode_rows), (tokens as u64, tokens as u64));
    assert_eq!(kept(&probe), (0, 0));
    assert_eq!(stats.windows_held, 0);
}

#[test]
fn what_is_there_is_done_together() {
    let config = TranscriptionConfig { max_windows: 6, max_encode: 3, ..Default::default() };
    let (engine, probe, go) = gated(&[0], config);
    let sounds: Vec<_> = (0..10).map(|i| sound(8.0, &[(0.5, 1 + i % 9), (4.0, 9 - i % 9)])).collect();
    let streams: Vec<_> = sounds.iter().map(|sound| engine.submit(request(sound)).unwrap()).collect();
    go.send(()).unwrap();
    let names = ["", " one", " two", " three", " four", " five", " six", " seven", " eight", " nine"];
    for (i, stream) in streams.into_iter().enumerate() {
        let heard = hear(stream);
        assert_eq!(heard.text(), format!("{}{}", names[1 + i % 9], names[9 - i % 9]), "request {i}");
    }
    assert_eq!((probe.most_encoded.load(Relaxed), probe.most_rows.load(Relaxed)), (3, 6));
    assert_eq!(probe.most_windows.load(Relaxed), 6);
    assert_eq!(kept(&probe), (0, 0));
    let stats = engine.stats();
    assert!(stats.decode_rows > 3 * stats.decode_steps, "{stats:?}");
}

#[test]
fn stretches_of_speech_are_heard_side_by_side_and_told_in_order() {
    let (engine, probe) = listen(Default::default(), Default::default());
    let heard = hear(engine.submit(spread(5)).unwrap());
    let names = [" one", " two", " three", " four", " five"];
    // A window's only segment begins with it, which is 4 s before the word.
    let wanted: Vec<_> =
        (0..5).map(|i| (names[i], 30.0 * i as f64 + 1.0, 30.0 * i as f64 + 5.1 + 0.1 * i as f64)).collect();
    heard.check("five stretches", &wanted);
    assert_eq!(heard.done.unwrap().2, 5);
    assert_eq!(probe.most_rows.load(Relaxed), 5);
    assert_eq!((probe.encodes.load(Relaxed), probe.most_encoded.load(Relaxed)), (2, 4));

    // Short stretches share a window, and their times are those of the sound.
    let bursts = [(100.5, 3), (110.0, 4), (150.0, 5)];
    let speech = [(100.0, 101.0), (109.9, 110.9), (149.5, 151.0)];
    let samples = |seconds: f64| (seconds * RATE as f64) as usize;
    let speech = speech.map(|(start, end)| samples(start)..samples(end)).to_vec();
    let both = TranscribeRequest { speech: Some(speech), ..request(&sound(160.0, &bursts)) };
    let heard = hear(engine.submit(both).unwrap());
    heard.check("one window", &[(" three", 100.5, 100.8), (" four", 110.0, 110.4), (" five", 150.0, 150.5)]);
    assert_eq!(heard.done.map(|(duration, _, windows)| (duration, windows)), Some((160.0, 1)));
    assert_eq!(kept(&probe), (0, 0));
}

#[test]
fn the_language_is_heard_in_the_first_window() {
    let (engine, probe) = listen(FakeListenerConfig { language: 1, ..Default::default() }, Default::default());
    let detect = |request| TranscribeRequest { options: DecodingOptions::default(), ..request };
    for (name, request, windows) in [
        ("window after window", detect(request(&sound(40.0, &[(0.5, 3), (35.0, 4)]))), 2),
        ("side by side", detect(spread(3)), 3),
    ] {
        let before = probe.encoded.load(Relaxed);
        let heard = hear(engine.submit(request).unwrap());
        let (code, probability) = heard.language.unwrap();
        assert_eq!(code, "de", "{name}");
        assert!(probability > 0.99, "{name}: {probability}");
        assert_eq!(heard.segments.len(), windows, "{name}");
        assert_eq!(probe.encoded.load(Relaxed) - before, windows as u64, "{name}: no window is encoded twice");
    }
    assert_eq!(kept(&probe), (0, 0));
}

#[test]
fn poor_texts_are_tried_again_hotter() {
    let fake = FakeListenerConfig { mumble_at: [0, 1].into(), ..Default::default() };
    let (engine, probe) = listen(fake, Default::default());
    let heard = hear(engine.submit(request(&sound(10.0, &[(0.5, 3)]))).unwrap());
    heard.check("third attempt", &[(" three", 0.0, 0.8)]);
    assert_eq!(heard.segments[0].temperature, 0.4);
    assert_eq!(engine.stats().fallbacks, 2);
    assert_eq!(probe.encodes.load(Relaxed), 1);
    assert_eq!(kept(&probe), (0, 0));
}

#[test]
fn words_have_times_where_they_are_asked_for() {
    let (engine, probe) = listen(Default::default(), Default::default());
    let sound = sound(40.0, &[(0.5, 3), (10.0, 4), (20.0, 5), (35.0, 6)]);
    let options = DecodingOptions { word_timestamps: true, ..request(&sound).options };
    let heard = hear(engine.submit(TranscribeRequest { options, ..request(&sound) }).unwrap());
    assert_eq!(heard.failure, None);
    let words: Vec<_> = heard.segments.iter().flat_map(|segment| &segment.words).collect();
    let texts: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
    assert_eq!(texts, [" three", " four", " five", " six"]);
    // A word ends where the next is heard; a window's first begins with it, and so up to 1.4 s before it is heard.
    for (word, [start, end]) in words.iter().zip([[0.0, 10.0], [10.0, 20.0], [20.0, 30.0], [34.2, 35.6]]) {
        assert!(start - 0.1 < word.start && word.start < word.end && word.end < end + 0.1, "{start}..{end}: {word:?}");
        assert!(word.probability > 0.9, "{word:?}");
    }
    assert_eq!(probe.alignments.load(Relaxed), heard.done.unwrap().2 as u64);
    assert_eq!(kept(&probe), (0, 0));
    let heard = hear(engine.submit(request(&sound)).unwrap());
    assert!(heard.segments.iter().all(|segment| segment.words.is_empty()));
}

#[test]
fn where_nobody_speaks_there_is_no_text() {
    let (engine, probe) = listen(Default::default(), Default::default());
    let nothing = |speech| TranscribeRequest { speech, ..request(&sound(60.0, &[])) };
    for (name, request, windows) in [
        ("silence", nothing(None), 2),
        ("no speech", nothing(Some(vec![])), 0),
        ("shorter than a frame", request(&sound(0.005, &[])), 0),
        ("nothing at all", request(&sound(0.0, &[])), 0),
    ] {
        let heard = hear(engine.submit(request).unwrap());
        assert_eq!((heard.segments.len(), heard.done.map(|done| done.2)), (0, Some(windows)), "{name}");
        assert_eq!(heard.language.is_some(), windows > 0, "{name}");
    }
    assert_eq!(kept(&probe), (0, 0));
}

#[test]
fn a_sentence_does_not_wait_for_an_hour() {
    let config = TranscriptionConfig { max_windows: 2, ..Default::default() };
    let (engine, _) = listen(slow(), config);
    let hour = engine.submit(TranscribeRequest { client: Some("a".into()), ..spread(40) }).unwrap();
    eventually("the hour is begun", || engine.stats().windows >= 4);
    let before = engine.stats().windows;
    let sentence = request(&sound(5.0, &[(0.5, 3)]));
    hear(engine.submit(TranscribeRequest { client: Some("b".into()), ..sentence }).unwrap())
        .check("b", &[(" three", 0.0, 0.8)]);
    let after = engine.stats().windows;
    assert!(after <= before + 6, "it was among the next: {before} windows, then {after}");
    assert_eq!(engine.stats().work.running, 1);
    drop(hour);
    eventually("nobody waits for the rest", || engine.stats().work.cancelled == 1);
}

#[test]
fn what_nobody_listens_to_is_given_back() {
    let (engine, probe, go) = gated(&[0, 2], Default::default());
    let mut streams: Vec<_> = (0..3).map(|_| engine.submit(spread(6)).unwrap()).collect();
    go.send(()).unwrap();
    eventually("all are under way", || engine.stats().work.running == 3 && probe.steps.load(Relaxed) == 3);
    assert!(kept(&probe).1 > 4);
    streams.truncate(1);
    go.send(()).unwrap();
    assert_eq!(hear(streams.remove(0)).segments.len(), 6);
    assert_eq!(kept(&probe), (0, 0));
    let stats = engine.stats();
    assert_eq!((stats.work.cancelled, stats.work.finished, stats.work.running), (2, 1, 0));
    assert!(stats.windows < 18);
}

#[test]
fn time_runs_out() {
    let (engine, probe) = listen(slow(), Default::default());
    let heard =
        hear(engine.submit(TranscribeRequest { timeout: Some(Duration::from_millis(20)), ..spread(20) }).unwrap());
    assert_eq!(heard.failure.unwrap().kind, FailureKind::Timeout);
    assert_eq!(kept(&probe), (0, 0));
    assert_eq!(engine.stats().work.failed, 1);
}

#[test]
fn a_call_that_fails_fails_its_requests_and_no_others() {
    let step = |steps: [u64; 1]| FakeListenerConfig { fail_step_at: steps.into(), ..Default::default() };
    let cases = [
        ("a step", step([2]), FailureKind::Step, "told to fail at step 2"),
        ("the first", step([0]), FailureKind::Step, "told to fail at step 0"),
        (
            "memory",
            FakeListenerConfig { out_of_memory_at: [1].into(), ..Default::default() },
            FailureKind::OutOfMemory,
            "out of memory: the fake was told to run out at step 1",
        ),
        (
            "a panic",
            FakeListenerConfig { panic_step_at: [1].into(), ..Default::default() },
            FailureKind::Step,
            "the model panicked: the fake was told to panic at step 1",
        ),
        (
            "an encoding",
            FakeListenerConfig { fail_encode_at: [0].into(), ..Default::default() },
            FailureKind::Step,
            "told to fail at call 0",
        ),
        (
            "an encoding that panics",
            FakeListenerConfig { panic_encode_at: [0].into(), ..Default::default() },
            FailureKind::Step,
            "panicked",
        ),
        (
            "an alignment",
            FakeListenerConfig { fail_alignment_at: [0].into(), ..Default::default() },
            FailureKind::Step,
            "told to fail at call 0",
        ),
    ];
    let sound = sound(8.0, &[(0.5, 3)]);
    let options = DecodingOptions { word_timestamps: true, ..request(&sound).options };
    let request = TranscribeRequest { options, ..request(&sound) };
    for (name, fake, kind, wanted) in cases {
        let (engine, probe) = listen(fake, Default::default());
        let failure = hear(engine.submit(request.clone()).unwrap()).failure.unwrap();
        assert_eq!(failure.kind, kind, "{name}");
        assert!(failure.message.contains(wanted), "{name}: {failure}");
        assert_eq!(kept(&probe), (0, 0), "{name}");
        assert_eq!(hear(engine.submit(request.clone()).unwrap()).text(), " three", "{name}");
        assert_eq!((engine.stats().work.failed, engine.stats().work.finished), (1, 1), "{name}");
        assert_eq!(kept(&probe), (0, 0), "{name}");
    }
}

#[test]
fn panics_in_a_row_are_the_end() {
    let fake = FakeListenerConfig { panic_encode_at: [0, 1, 2].into(), ..Default::default() };
    let (engine, _) = listen(fake, Default::default());
    let sound = sound(1.0, &[(0.5, 3)]);
    for _ in 0..3 {
        assert!(hear(engine.submit(request(&sound)).unwrap()).failure.is_some());
    }
    eventually("it gives up", || engine.stats().work.state == EngineState::Broken);
    let refused = engine.submit(request(&sound)).map(drop);
    assert!(matches!(refused, Err(SubmitError::Draining | SubmitError::Stopped(_))), "{refused:?}");
}

#[test]
fn drained_engines_finish_what_they_have_and_shut_down_ones_do_not() {
    for drains in [true, false] {
        let (engine, probe) = listen(slow(), Default::default());
        let stream = engine.submit(spread(12)).unwrap();
        eventually("it is under way", || engine.stats().decode_steps > 0);
        if drains {
            engine.drain();
        } else {
            engine.shutdown();
        }
        assert_eq!(engine.submit(spread(1)).map(drop), Err(SubmitError::Draining));
        let heard = hear(stream);
        match drains {
            true => assert_eq!(heard.segments.len(), 12),
            false => assert_eq!(heard.failure.unwrap().kind, FailureKind::Stopped),
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        assert_eq!(runtime.block_on(engine.stopped()), EngineState::Stopped);
        assert_eq!(kept(&probe), (0, 0));
        assert_eq!(Arc::strong_count(&probe), 1, "the model is gone");
    }
}

#[test]
fn what_can_never_be_heard_is_refused() {
    let (engine, _) = listen(Default::default(), Default::default());
    let sound = sound(1.0, &[]);
    let with = |options| TranscribeRequest { options, ..request(&sound) };
    let speech = |stretches: &[[usize; 2]]| {
        let speech = stretches.iter().map(|&[start, end]| start..end).collect();
        TranscribeRequest { speech: Some(speech), ..request(&sound) }
    };
    let cases = [
        ("a language", with(DecodingOptions { language: Some("klingon".into()), ..Default::default() }), "klingon"),
        ("not learnt", with(DecodingOptions { language: Some("fr".into()), ..Default::default() }), "has not learnt"),
        ("temperatures", with(DecodingOptions { temperatures: vec![2.0], ..Default::default() }), "from 0 to 1"),
        ("speech out of order", speech(&[[10, 20], [15, 30]]), "speech at 15..30 is not after 20"),
        ("speech beyond the end", speech(&[[10, 16_001]]), "within the sound's 16000 samples"),
        ("no length", speech(&[[10, 10]]), "speech at 10..10"),
        (
            "not finite",
            TranscribeRequest { sound: vec![0.0, f32::NAN].into(), ..request(&sound) },
            "samples that are not finite",
        ),
    ];
    for (name, request, wanted) in cases {
        let error = engine.submit(request).map(drop).unwrap_err();
        assert!(matches!(error, SubmitError::Sound(_)), "{name}");
        assert!(error.to_string().contains(wanted), "{name}: {error}");
    }
    assert_eq!(engine.stats().work.waiting, 0);
    assert_eq!(engine.vocabulary().unwrap().languages().collect::<Vec<_>>(), ["en", "de", "ja"]);
    let translate = DecodingOptions { task: Task::Translate, ..request(&sound).options };
    assert_eq!(engine.check(&translate), Ok(Some("en")));
    let (busy, _) = listen(slow(), TranscriptionConfig { max_waiting: 1, ..Default::default() });
    let _one = busy.submit(spread(30)).unwrap();
    assert_eq!(busy.submit(spread(1)).map(drop), Err(SubmitError::Busy { limit: 1 }));
}

#[test]
fn a_text_is_written_beside_it() {
    let fake = FakeListenerConfig { encode_delay: Duration::from_millis(2), ..slow() };
    let (hearing, _) = listen(fake, TranscriptionConfig { max_windows: 1, ..Default::default() });
    let runner = FakeConfig { step_delay: Duration::from_millis(2), ..Default::default() };
    let make = || Ok(Box::new(FakeRunner::new(runner)) as Box<_>);
    let writing = Engine::start(make, EngineConfig::default()).unwrap();
    let mut sounds = hearing.submit(spread(60)).unwrap();
    eventually("it hears", || hearing.stats().decode_steps > 0);
    let before = hearing.stats().decode_steps;
    let mut text = writing.submit(Request { prompt: vec![1, 2, 3], max_tokens: 150, ..Request::new("text") }).unwrap();
    let mut tokens = 0;
    while let Some(event) = text.blocking_next() {
        tokens += u64::from(matches!(event, Event::Token(_)));
    }
    let steps = hearing.stats().decode_steps - before;
    // A step of each takes as long: a quarter of the time is a third as many.
    assert_eq!(tokens, 150);
    assert!((1..=100).contains(&steps), "{steps} steps of hearing beside {tokens} of writing");
    assert!(sounds.blocking_next().unwrap().is_ok());
}

#[test]
fn what_cannot_start_says_why() {
    let make = || Ok(Transcriber::Listener(Box::new(FakeListener::new(Default::default()))));
    let start = |text, config| TranscriptionEngine::start(make, text, config).map(drop).unwrap_err();
    let bounds = [
        ("max_windows", TranscriptionConfig { max_windows: 0, ..Default::default() }),
        ("max_encode", TranscriptionConfig { max_encode: 0, ..Default::default() }),
        ("max_waiting", TranscriptionConfig { max_waiting: 0, ..Default::default() }),
        ("max_chunk", TranscriptionConfig { max_chunk: Duration::from_secs(15), ..Default::default() }),
    ];
    for (wanted, config) in bounds {
        let error = start(Some(vocabulary()), config);
        assert!(matches!(error, StartError::Config { field, .. } if field == wanted), "{wanted}: {error}");
    }
    assert_eq!(start(None, Default::default()).to_string(), "a model that writes needs a tokenizer");
    let other = FakeListenerConfig::default();
    let mel = vllm_platform::MelSettings { sample_rate: 8000, ..other.mel.clone() };
    let make = move || Ok(Transcriber::Listener(Box::new(FakeListener::new(FakeListenerConfig { mel, ..other }))));
    let error = TranscriptionEngine::start(make, Some(vocabulary()), Default::default()).map(drop).unwrap_err();
    assert!(error.to_string().contains("hears 8000 samples a second"), "{error}");
    let broken = || Err(Error::Model("no such file".into()));
    let error = TranscriptionEngine::start(broken, None, Default::default()).map(drop).unwrap_err();
    assert_eq!(error.to_string(), "no such file");
    let error = TranscriptionEngine::start(|| panic!("bang"), None, Default::default()).map(drop).unwrap_err();
    assert_eq!(error, StartError::Panicked("bang".into()));
}
