//! The vision engine over a fake: one case a behaviour.

mod pictures;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use pictures::{eventually, features, gated, key, peek, picture, source, start, wait};
use vllm_platform::{
    Error,
    testing::{FakeVision, FakeVisionConfig},
};
use vllm_scheduler::{EngineState, FeatureOrigin, SsdOptions, StartError, VisionConfig, VisionEngine, VisionHandle};

/// Bytes of the features of `tokens` vectors.
fn bytes(tokens: usize) -> usize {
    tokens * 3 * 4
}

fn stopped(vision: &VisionHandle) -> EngineState {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(vision.stopped())
}

#[test]
fn what_was_seen_once_is_not_looked_at_again() {
    let (vision, probe) = start(Default::default(), Default::default());
    let first = source(&vision, 1, 6);
    assert_eq!(vision.stats().waiting, 0, "nothing is done before somebody asks");
    assert_eq!(*wait(&*first).unwrap(), features(1, 6));
    assert_eq!(first.origin(), Some(FeatureOrigin::Encoded));
    let again = source(&vision, 1, 6);
    assert_eq!(*peek(&*again).expect("at once").unwrap(), features(1, 6));
    assert_eq!(again.origin(), Some(FeatureOrigin::Memory));
    assert_eq!(*wait(&*first).unwrap(), features(1, 6), "a source can be asked again");
    assert_eq!(*wait(&*source(&vision, 2, 4)).unwrap(), features(2, 4));
    eventually("the last run is booked", || !vision.stats().running);
    let stats = vision.stats();
    assert_eq!((stats.encoded, stats.patches, stats.tokens, probe.calls.load(Relaxed)), (2, 10, 10, 2));
    assert_eq!((stats.hits, stats.misses, stats.joined, stats.ssd_hits), (2, 2, 0, 0));
    assert_eq!((stats.entries, stats.bytes, stats.capacity), (2, bytes(10), 512 << 20));
    assert_eq!((vision.clear_cache(), vision.stats().bytes), (2, 0));
    assert_eq!(*wait(&*first).unwrap(), features(1, 6));
    assert_eq!(probe.calls.load(Relaxed), 3);
}

#[test]
fn who_comes_while_it_is_looked_at_gets_the_same() {
    let (vision, probe, go) = gated(Default::default(), VisionConfig { cache_bytes: 0, ssd: None });
    let sources: Vec<_> = (0..8).map(|_| source(&vision, 1, 6)).collect();
    // Those that come before it is begun, and those that come then.
    assert!(sources[..4].iter().all(|source| peek(&**source).is_none()));
    eventually("it is begun", || vision.stats().running);
    assert!(sources[4..].iter().all(|source| peek(&**source).is_none()));
    assert_eq!((vision.stats().joined, vision.stats().misses), (7, 1));
    drop(go);
    let answers: Vec<_> = sources.iter().map(|source| wait(&**source).unwrap()).collect();
    assert!(answers.iter().all(|answer| **answer == features(1, 6)));
    let origins: Vec<_> = sources.iter().map(|source| source.origin().unwrap()).collect();
    assert_eq!(origins, [[FeatureOrigin::Encoded].as_slice(), &[FeatureOrigin::Joined; 7]].concat());
    assert_eq!(probe.calls.load(Relaxed), 1);
    // Nothing is kept, and what somebody holds is found all the same.
    assert_eq!((vision.stats().entries, vision.stats().bytes), (0, 0));
    assert!(peek(&*source(&vision, 1, 6)).is_some());
    drop(answers);
    eventually("nobody holds it any more", || peek(&*source(&vision, 1, 6)).is_none());
}

#[test]
fn memory_holds_what_was_used_last() {
    let (vision, probe) = start(Default::default(), VisionConfig { cache_bytes: bytes(12), ssd: None });
    let see = |number, tokens| drop(wait(&*source(&vision, number, tokens)).unwrap());
    see(1, 6);
    see(2, 6);
    see(1, 6);
    assert_eq!((probe.calls.load(Relaxed), vision.stats().bytes), (2, bytes(12)));
    see(3, 4);
    assert_eq!((vision.stats().evictions, vision.stats().bytes), (1, bytes(10)), "the second made room");
    see(1, 6);
    assert_eq!(probe.calls.load(Relaxed), 3);
    see(2, 6);
    assert_eq!(probe.calls.load(Relaxed), 4);
    // Larger than all of it: not kept, and nobody makes room for it.
    let before = vision.stats();
    see(4, 14);
    assert_eq!((vision.stats().entries, vision.stats().evictions), (before.entries, before.evictions));
}

#[test]
fn features_survive_a_restart_on_the_ssd() {
    let folder = tempfile::tempdir().unwrap();
    let config = |max_bytes| VisionConfig {
        ssd: Some(SsdOptions { dir: folder.path().into(), max_bytes, quantize: false }),
        ..VisionConfig::default()
    };
    for (life, calls) in [(0, 5), (1, 0), (2, 0)] {
        let (vision, probe) = start(Default::default(), config(1 << 20));
        for number in 0..5 {
            let source = source(&vision, number, 6);
            assert_eq!(*wait(&*source).unwrap(), features(number, 6), "life {life}");
            assert_eq!(source.origin() == Some(FeatureOrigin::Ssd), life > 0);
        }
        assert_eq!((probe.calls.load(Relaxed), vision.stats().ssd_hits), (calls, 5 - calls), "life {life}");
        vision.drain();
        assert_eq!(stopped(&vision), EngineState::Stopped);
        assert_eq!(vision.stats().ssd.unwrap().corrupt, 0);
    }
    // Another shape under the same name is never taken for features.
    let wider = FakeVisionConfig { width: 5, ..Default::default() };
    let (vision, probe) = start(wider.clone(), config(1 << 20));
    assert_eq!(*wait(&*source(&vision, 0, 6)).unwrap(), FakeVision::new(wider).answer(&picture(0, 6)));
    assert_eq!((probe.calls.load(Relaxed), vision.stats().ssd_hits), (1, 0));
    vision.drain();
    stopped(&vision);
    // Another encoder finds nothing.
    let other = FakeVisionConfig { fingerprint: "0e".into(), ..Default::default() };
    let (vision, probe) = start(other, config(1 << 20));
    wait(&*source(&vision, 1, 6)).unwrap();
    assert_eq!(probe.calls.load(Relaxed), 1);
}

#[test]
fn clearing_reaches_the_ssd() {
    let folder = tempfile::tempdir().unwrap();
    let ssd = SsdOptions { dir: folder.path().into(), max_bytes: 1 << 20, quantize: false };
    let (vision, probe) = start(Default::default(), VisionConfig { cache_bytes: 0, ssd: Some(ssd) });
    wait(&*source(&vision, 1, 6)).unwrap();
    let origin = || {
        let again = source(&vision, 1, 6);
        wait(&*again).unwrap();
        again.origin().unwrap()
    };
    eventually("nobody holds it any more", || origin() == FeatureOrigin::Ssd);
    assert_eq!(probe.calls.load(Relaxed), 1);
    vision.clear_cache();
    eventually("it is gone", || origin() == FeatureOrigin::Encoded);
}

#[test]
fn what_nobody_waits_for_any_more_is_skipped() {
    let (vision, probe, go) = gated(Default::default(), Default::default());
    let sources: Vec<_> = (0..4).map(|number| source(&vision, number, 6)).collect();
    assert!(sources.iter().all(|source| peek(&**source).is_none()));
    eventually("the first is begun", || vision.stats().running);
    assert_eq!(vision.stats().waiting, 3);
    let mut sources = sources.into_iter();
    let (first, last) = (sources.next().unwrap(), sources.next_back().unwrap());
    drop(sources);
    assert_eq!(vision.stats().waiting, 1);
    // Somebody comes back for one of those that were given up.
    let back = source(&vision, 2, 6);
    assert!(peek(&*back).is_none());
    drop(go);
    for source in [first, last, back] {
        wait(&*source).unwrap();
    }
    assert_eq!((probe.calls.load(Relaxed), vision.stats().skipped), (3, 2));
}

#[test]
fn failures_are_those_of_one_picture() {
    let fake = FakeVisionConfig { fail_at: [0].into(), panic_at: [1].into(), ..Default::default() };
    let (vision, _) = start(fake, Default::default());
    let short = vision.features(key(9), 5, || picture(9, 6));
    let foreign = vision.features(key(8), 6, || vllm_platform::VisionInput { patch_len: 3, ..picture(8, 6) });
    let torn = vision.features(key(7), 6, || vllm_platform::VisionInput { grids: vec![[9, 9]], ..picture(7, 6) });
    let broken = vision.features(key(6), 6, || panic!("no such frame"));
    let cases = [
        (source(&vision, 1, 6), "told to fail at call 0"),
        (source(&vision, 1, 6), "panicked: the fake was told to panic at call 1"),
        (short, "gave features of [1, 6, 3], and [1, 5, 3] are wanted"),
        (foreign, "patches have 3 numbers, and the encoder takes 4"),
        (torn, "24 numbers are not 81 patches of 4"),
        (broken, "preparing a picture panicked: no such frame"),
    ];
    for (source, wanted) in cases {
        let why = wait(&*source).unwrap_err();
        assert!(why.contains(wanted), "{why}");
    }
    assert!(wait(&*source(&vision, 1, 6)).is_ok(), "it is tried again");
    assert_eq!((vision.stats().failed, vision.stats().encoded), (6, 1));
    assert_eq!(vision.stats().state, EngineState::Running);
}

#[test]
fn panics_in_a_row_are_the_end() {
    let fake = FakeVisionConfig { panic_at: [0, 1].into(), ..Default::default() };
    let (vision, _, go) = gated(fake, Default::default());
    let sources: Vec<_> = (0..4).map(|number| source(&vision, number, 6)).collect();
    assert!(sources.iter().all(|source| peek(&**source).is_none()));
    drop(go);
    for (index, source) in sources.iter().enumerate() {
        let why = wait(&**source).unwrap_err();
        assert_eq!(why.contains("has stopped"), index >= 2, "{why}");
    }
    assert_eq!(stopped(&vision), EngineState::Broken);
    assert!(wait(&*source(&vision, 5, 6)).is_err());
    assert_eq!(vision.stats().waiting, 0);
}

#[test]
fn drained_engines_finish_what_they_have_and_shut_down_ones_do_not() {
    for drains in [true, false] {
        let (vision, _, go) = gated(Default::default(), Default::default());
        let sources: Vec<_> = (0..3).map(|number| source(&vision, number, 6)).collect();
        assert!(sources.iter().all(|source| peek(&**source).is_none()));
        eventually("the first is begun", || vision.stats().running);
        if drains {
            vision.drain()
        } else {
            vision.shutdown()
        }
        let late = source(&vision, 4, 6);
        assert_eq!(wait(&*late).unwrap_err(), "the server is shutting down");
        drop(go);
        let answers: Vec<bool> = sources.iter().map(|source| wait(&**source).is_ok()).collect();
        assert_eq!(answers, [true, drains, drains]);
        assert_eq!(stopped(&vision), EngineState::Stopped);
    }
}

#[test]
fn the_engine_ends_with_its_last_handle_and_source() {
    let (vision, probe) = start(Default::default(), Default::default());
    let source = source(&vision, 1, 6);
    drop(vision);
    assert!(wait(&*source).is_ok());
    assert!(std::sync::Arc::strong_count(&probe) > 1);
    drop(source);
    eventually("the encoder is gone", || std::sync::Arc::strong_count(&probe) == 1);
}

#[test]
fn the_watchdog_sees_an_encoder_that_does_not_pause() {
    let fake = FakeVisionConfig { delay: Duration::from_millis(300), ..Default::default() };
    let (vision, _) = start(fake, Default::default());
    assert_eq!(vision.silence(), None);
    let source = source(&vision, 1, 6);
    assert!(peek(&*source).is_none());
    eventually("it is seen", || vision.silence().is_some_and(|silence| silence > Duration::from_millis(100)));
    wait(&*source).unwrap();
    eventually("it is over", || vision.silence().is_none());
}

#[test]
fn what_cannot_start_says_why() {
    let broken = || Err(Error::Model("no such file".into()));
    assert_eq!(VisionEngine::start(broken, Default::default()).unwrap_err().to_string(), "no such file");
    let error = VisionEngine::start(|| panic!("bang"), Default::default()).unwrap_err();
    assert_eq!(error, StartError::Panicked("bang".into()));
    let file = tempfile::NamedTempFile::new().unwrap();
    let ssd = SsdOptions { dir: file.path().into(), max_bytes: 1, quantize: false };
    let make = || Ok(Box::new(FakeVision::new(Default::default())) as Box<_>);
    let config = VisionConfig { ssd: Some(ssd), ..Default::default() };
    assert!(matches!(VisionEngine::start(make, config).unwrap_err(), StartError::Ssd(_)));
}
