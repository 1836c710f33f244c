//! What an engine says of its load, and when it lets its cache be flushed.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use tokio::runtime::{Builder, Runtime};
use vllm_platform::testing::{FakeConfig, FakeRunner};
use vllm_scheduler::{Engine, EngineConfig, EngineHandle, Event, EventStream, FlushError, Load, Request};

/// 64 blocks of 4 tokens.
fn start(step: Duration, config: EngineConfig) -> EngineHandle {
    let fake = FakeConfig { step_delay: step, num_blocks: 64, ..FakeConfig::default() };
    Engine::start(move || Ok(Box::new(FakeRunner::new(fake)) as Box<_>), config).unwrap()
}

fn ask(engine: &EngineHandle, prompt: Range<u32>, max_tokens: usize) -> EventStream {
    let request = Request { prompt: prompt.collect(), max_tokens, ..Request::new("a") };
    engine.submit(request).unwrap()
}

fn end(mut events: EventStream) {
    while let Some(event) = events.blocking_next() {
        assert!(!matches!(event, Event::Failed(_)), "{event:?}");
    }
}

/// The first load that is as wanted.
fn eventually(engine: &EngineHandle, what: &str, holds: impl Fn(&Load) -> bool) -> Load {
    let start = Instant::now();
    loop {
        let load = engine.load();
        if holds(&load) {
            return load;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "never happened: {what}; {load:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().unwrap()
}

#[test]
fn an_idle_engine_has_no_load_but_what_it_keeps() {
    let engine = start(Duration::ZERO, EngineConfig { max_num_seqs: 7, ..Default::default() });
    let fresh = engine.load();
    let wanted = Load { max_tokens: 256, max_running: 7, sample: fresh.sample, ..Load::default() };
    assert_eq!(fresh, wanted);
    end(ask(&engine, 0..10, 3));
    let load = eventually(&engine, "it is idle again", |load| load.running == 0);
    // 12 tokens are computed: the last one generated is not.
    assert_eq!((load.used_tokens, load.kv_usage, load.active_kv_usage), (12, 3.0 / 64.0, 0.0));
    assert_eq!((load.cache_hit_rate, load.silence), (Some(0.0), None));
    assert!(load.generation_throughput > 0.0 && load.sample > fresh.sample);
    end(ask(&engine, 0..10, 3));
    let load = eventually(&engine, "it is idle again", |load| load.running == 0 && load.cache_hit_rate > Some(0.0));
    assert_eq!(load.cache_hit_rate, Some(9.0 / 20.0));
}

#[test]
fn what_waits_counts_as_far_as_it_is_not_cached() {
    let engine = start(Duration::from_millis(5), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let first = ask(&engine, 0..8, 100);
    let second = ask(&engine, 0..12, 5);
    let third = ask(&engine, 40..60, 5);
    let now = engine.load();
    assert!(now.waiting >= 2 && now.prefill_pending_tokens >= now.waiting_uncached_tokens, "{now:?}");
    assert!(now.waiting_uncached_tokens >= 4 + 20, "{now:?}");
    // The first one's prompt is two blocks, with which the second's begins, too.
    let load = eventually(&engine, "the prompt is computed and was looked up", |load| {
        load.running == 1 && load.waiting_uncached_tokens == 4 + 20
    });
    assert_eq!((load.waiting, load.max_running), (2, 1));
    assert_eq!(load.prefill_pending_tokens, 24, "the first one's is done");
    assert!(load.active_kv_usage > 0.0 && load.active_kv_usage == load.kv_usage, "{load:?}");
    assert!(load.silence.is_some());
    drop((first, second, third));
    let load = eventually(&engine, "all is cancelled", |load| load.running + load.waiting == 0);
    assert_eq!((load.waiting_uncached_tokens, load.prefill_pending_tokens), (0, 0));
}

#[test]
fn what_is_left_of_a_prompt_counts() {
    let config = EngineConfig { max_num_batched_tokens: 10, max_num_seqs: 2, ..Default::default() };
    let engine = start(Duration::from_millis(20), config);
    let events = ask(&engine, 0..60, 2);
    let half =
        eventually(&engine, "some of the prompt is computed", |load| (1..60).contains(&load.prefill_pending_tokens));
    assert_eq!((half.prefill_pending_tokens % 10, half.waiting_uncached_tokens), (0, 0), "{half:?}");
    end(events);
    eventually(&engine, "nothing is left", |load| load.prefill_pending_tokens == 0);
}

#[test]
fn changes_are_announced_and_so_is_the_end() {
    let engine = start(Duration::ZERO, EngineConfig::default());
    let mut changes = engine.load_changed();
    let before = engine.load().sample;
    let events = ask(&engine, 0..10, 3);
    let runtime = runtime();
    assert!(runtime.block_on(changes.changed()));
    assert!(engine.load().sample > before);
    end(events);
    let last = eventually(&engine, "it is idle again", |load| load.running == 0);
    // However many there were, whoever looks after the last knows all.
    while engine.load().sample > last.sample
        || runtime.block_on(async { tokio::time::timeout(Duration::from_millis(50), changes.changed()).await.is_ok() })
    {
    }
    engine.shutdown();
    assert!(!runtime.block_on(async {
        while changes.changed().await {}
        false
    }));
}

#[test]
fn a_cache_is_flushed_when_nobody_is_there() {
    let engine = start(Duration::from_millis(2), EngineConfig { max_num_seqs: 1, ..Default::default() });
    let runtime = runtime();
    let flush = |wait| runtime.block_on(engine.flush_cache(wait));
    assert_eq!(flush(Duration::ZERO), Ok(0));
    end(ask(&engine, 0..9, 1));
    assert_eq!(flush(Duration::ZERO), Ok(3), "with the unfilled one");
    assert_eq!(engine.load().used_tokens, 0);

    let (first, second) = (ask(&engine, 0..9, 60), ask(&engine, 20..29, 60));
    eventually(&engine, "the first one runs", |load| load.running == 1);
    let refused = Err(FlushError::InFlight { running: 1, waiting: 1 });
    assert_eq!(flush(Duration::ZERO), refused);
    assert_eq!(flush(Duration::from_millis(10)), refused);
    let waiting = async {
        let (short, long) = (engine.flush_cache(Duration::from_millis(1)), engine.flush_cache(Duration::MAX));
        let mut long = std::pin::pin!(long);
        // Asked for first, and answered last.
        assert!(tokio::time::timeout(Duration::ZERO, &mut long).await.is_err());
        (short.await, long.await)
    };
    let (short, long) = runtime.block_on(waiting);
    assert!(matches!(short, Err(FlushError::InFlight { .. })));
    assert!(long.unwrap() > 2, "both left something");
    for mut events in [first, second] {
        let mut last = None;
        while let Some(event) = events.blocking_next() {
            last = Some(event);
        }
        assert!(matches!(last, Some(Event::Finished(_))), "flushing waits, it doesn't cancel");
    }
    assert_eq!((engine.load().used_tokens, engine.load().kv_usage), (0, 0.0));
    engine.shutdown();
    engine.join();
    assert_eq!(flush(Duration::ZERO), Err(FlushError::Stopped));
}
