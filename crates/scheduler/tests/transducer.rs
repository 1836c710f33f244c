//! The engine that hears, over a fake transducer: one case a behaviour.

mod sounds;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use sounds::{RATE, eventually, hear, request, sound, transduce};
use vllm_platform::testing::FakeTransducerConfig;
use vllm_scheduler::{FailureKind, SubmitError, TranscribeRequest, TranscriptionConfig};
use vllm_speech::whisper::{DecodingOptions, Task};

/// Chunks of 10 s that overlap by 2.
fn short() -> TranscriptionConfig {
    TranscriptionConfig {
        max_chunk: Duration::from_secs(10),
        overlap: Duration::from_secs(2),
        max_encode: 3,
        ..Default::default()
    }
}

/// Words for three, six and nine tenths of a second end sentences.
fn fake() -> FakeTransducerConfig {
    let pieces = ["▁zero", "▁one", "▁two", "▁three.", "▁four", "▁five", "▁six.", "▁seven", "▁eight", "▁nine."];
    FakeTransducerConfig { pieces: pieces.map(Into::into).into(), loud: 0.5, ..Default::default() }
}

fn ask(seconds: f64, bursts: &[(f64, usize)]) -> TranscribeRequest {
    TranscribeRequest { options: DecodingOptions::default(), ..request(&sound(seconds, bursts)) }
}

#[test]
fn chunks_are_heard_together_and_joined_into_sentences() {
    let (engine, probe) = transduce(fake(), short());
    // The chunks begin at 0, 8, 16 and 24 s: the words at 9 s and 16.5 s are heard twice, the one at 9.8 s is cut.
    let bursts =
        [(1.0, 2), (2.0, 3), (9.0, 1), (9.8, 4), (11.0, 6), (15.0, 5), (16.5, 7), (17.5, 3), (28.0, 2), (29.0, 1)];
    let heard = hear(engine.submit(ask(30.0, &bursts)).unwrap());
    let wanted = [
        (" two three.", 1.0, 2.3),
        (" one four six.", 9.0, 11.6),
        (" five seven three.", 15.0, 17.8),
        (" two one", 28.0, 29.1),
    ];
    heard.check("30 s", &wanted);
    assert_eq!(heard.language, None);
    assert_eq!(heard.done.map(|(duration, _, windows)| (duration, windows)), Some((30.0, 4)));
    assert_eq!((probe.calls.load(Relaxed), probe.most_sounds.load(Relaxed)), (2, 3));
    assert!(heard.segments.iter().all(|segment| segment.words.is_empty()));

    let options = DecodingOptions { word_timestamps: true, ..Default::default() };
    let heard = hear(engine.submit(TranscribeRequest { options, ..ask(30.0, &bursts) }).unwrap());
    let starts: Vec<f64> = heard.segments.iter().flat_map(|segment| &segment.words).map(|word| word.start).collect();
    assert_eq!(starts.len(), bursts.len());
    assert!(starts.iter().zip(bursts).all(|(found, (wanted, _))| (found - wanted).abs() < 0.06), "{starts:?}");
    let stats = engine.stats();
    assert_eq!((stats.work.finished, stats.windows, stats.audio_seconds), (2, 8, 60.0));
}

#[test]
fn speech_has_the_times_of_the_sound() {
    let (engine, probe) = transduce(fake(), short());
    let samples = |seconds: f64| (seconds * RATE as f64) as usize;
    let speech = [(50.0, 53.0), (70.0, 73.0), (90.0, 96.0)].map(|(start, end)| samples(start)..samples(end)).to_vec();
    let request = ask(100.0, &[(51.0, 3), (71.0, 1), (72.0, 6), (91.0, 2)]);
    let heard = hear(engine.submit(TranscribeRequest { speech: Some(speech), ..request }).unwrap());
    heard.check("speech", &[(" three.", 51.0, 51.3), (" one six.", 71.0, 72.6), (" two", 91.0, 91.2)]);
    // The first two stretches are one chunk.
    assert_eq!((probe.sounds.load(Relaxed), probe.longest.load(Relaxed)), (2, 601));
}

#[test]
fn what_it_cannot_do_is_refused() {
    let (engine, _) = transduce(fake(), short());
    let cases = [
        (DecodingOptions { task: Task::Translate, ..Default::default() }, "cannot translate"),
        (DecodingOptions { language: Some("en".into()), ..Default::default() }, "cannot be told"),
        (DecodingOptions { prompt: Some("names".into()), ..Default::default() }, "takes no prompt"),
        (DecodingOptions { temperatures: vec![0.5], ..Default::default() }, "takes no temperature"),
    ];
    for (options, wanted) in cases {
        let error = engine.submit(TranscribeRequest { options, ..ask(1.0, &[]) }).map(drop).unwrap_err();
        assert!(matches!(error, SubmitError::Sound(_)), "{error}");
        assert!(error.to_string().contains(wanted), "{error}");
    }
}

#[test]
fn a_call_that_fails_fails_its_requests_and_no_others() {
    let fake = FakeTransducerConfig { fail_at: [0].into(), panic_at: [1].into(), ..fake() };
    let (engine, _) = transduce(fake, short());
    for wanted in ["told to fail at call 0", "panicked: the fake was told to panic at call 1"] {
        let failure = hear(engine.submit(ask(30.0, &[(1.0, 3)])).unwrap()).failure.unwrap();
        assert_eq!(failure.kind, FailureKind::Step);
        assert!(failure.message.contains(wanted), "{failure}");
    }
    assert_eq!(hear(engine.submit(ask(30.0, &[(1.0, 3)])).unwrap()).text(), " three.");
    assert_eq!((engine.stats().work.failed, engine.stats().work.finished), (2, 1));
    assert_eq!(hear(engine.submit(ask(0.0, &[])).unwrap()).done, Some((0.0, 0, 0)));
}

#[test]
fn what_nobody_listens_to_is_left() {
    let slow = FakeTransducerConfig { delay: Duration::from_millis(20), ..fake() };
    let (engine, probe) = transduce(slow, TranscriptionConfig { max_encode: 1, ..short() });
    let stream = engine.submit(ask(400.0, &[])).unwrap();
    eventually("it is under way", || probe.calls.load(Relaxed) > 0);
    drop(stream);
    eventually("it is gone", || engine.stats().work.cancelled == 1);
    assert!(probe.calls.load(Relaxed) < 50);
}
