//! How much there is to do, as gateways hear of it: polled with `GetLoads`, and beside the KV events.

use std::time::{Duration, Instant, SystemTime};

use vllm_grpc_proto::smg::{
    common::EngineLoad,
    vllm::{GetLoadsResponse, SchedulerLoad},
};
use vllm_scheduler::Load;

use super::Worker;

/// How often a stream looks whether its reader should hear of the load.
pub(super) const LOOK: Duration = Duration::from_millis(100);
/// Longest time without a record while there is something to do, or was lately.
const HEARTBEAT: Duration = Duration::from_secs(1);
/// The same once nothing has changed for two of these.
const IDLE_HEARTBEAT: Duration = Duration::from_secs(5);

impl Worker {
    /// The load of the model that is spoken of: nothing to do while that isn't loaded.
    pub fn load(&self) -> Load {
        self.loaded().map(|model| model.engine.load()).unwrap_or_default()
    }

    pub fn loads(&self) -> GetLoadsResponse {
        let mut load = scheduler_load(&self.load());
        // Texts to be encoded wait as well, in a queue of their own.
        load.num_waiting_reqs += count(self.app.encoders().iter().map(|encoder| encoder.engine.stats().waiting).sum());
        load.num_total_reqs = load.num_running_reqs.saturating_add(load.num_waiting_reqs);
        GetLoadsResponse {
            timestamp: iso8601(SystemTime::now()),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            dp_rank_count: 1,
            loads: vec![load],
        }
    }
}

/// `2026-11-22T07:05:09Z`.
fn iso8601(time: SystemTime) -> String {
    let seconds = time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    // Days of four hundred years from a 1 March, so that a leap day is the last of its year.
    let days = seconds / 86_400 + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn scheduler_load(load: &Load) -> SchedulerLoad {
    SchedulerLoad {
        dp_rank: 0,
        num_running_reqs: count(load.running),
        num_waiting_reqs: count(load.waiting),
        num_total_reqs: count(load.running + load.waiting),
        num_used_tokens: count(load.used_tokens),
        max_total_num_tokens: count(load.max_tokens),
        token_usage: load.kv_usage,
        gen_throughput: load.generation_throughput,
        cache_hit_rate: load.cache_hit_rate.unwrap_or(0.0),
        utilization: load.kv_usage,
        max_running_requests: count(load.max_running),
        num_waiting_uncached_tokens: count(load.waiting_uncached_tokens),
    }
}

/// The core of a record, which is in every one.
fn core(load: &Load) -> EngineLoad {
    EngineLoad {
        running_requests: whole(load.running),
        waiting_requests: whole(load.waiting),
        waiting_uncached_tokens: Some(whole(load.waiting_uncached_tokens)),
        token_usage: load.kv_usage,
        active_token_usage: Some(load.active_kv_usage),
        gen_throughput: load.generation_throughput,
        max_running_requests: whole(load.max_running),
        // The figures are the engine's own, as of now.
        age_ms: 0,
        engine_silence_ms: load.silence.map(|silence| u32::try_from(silence.as_millis()).unwrap_or(u32::MAX)),
        engine_reports_steps: Some(true),
        prefill_pending_tokens: Some(whole(load.prefill_pending_tokens)),
        ..EngineLoad::default()
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn whole(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Numbers and paces the records of one stream.
#[derive(Debug, Default)]
pub(super) struct Records {
    sent: u64,
    /// The last record, and when it went out.
    last: Option<(Load, Instant)>,
    /// Heartbeats in a row that had nothing new to say.
    unchanged: u32,
}

impl Records {
    /// The record that goes with a batch of events.
    pub fn beside_events(&mut self, load: Load, now: Instant) -> EngineLoad {
        self.unchanged = 0;
        let all = self.sent == 0;
        self.record(load, now, all)
    }

    /// A record by itself, if it is time for one: when something has changed that work is shared out by, and every now and then.
    pub fn by_itself(&mut self, load: Load, now: Instant) -> Option<EngineLoad> {
        if let Some((last, at)) = &self.last {
            let changed = has_changed(last, &load);
            // Who waits for an engine that says nothing wants to know for how long.
            let idle = self.unchanged >= 2 && load.silence.is_none();
            let due = if idle { IDLE_HEARTBEAT } else { HEARTBEAT };
            if !changed && now.saturating_duration_since(*at) < due {
                return None;
            }
            self.unchanged = if changed { 0 } else { self.unchanged + 1 };
        }
        Some(EngineLoad { load_only: true, ..self.record(load, now, true) })
    }

    /// With `all`, what nobody shares work out by is in it, too.
    fn record(&mut self, load: Load, now: Instant, all: bool) -> EngineLoad {
        self.sent += 1;
        self.last = Some((load, now));
        let record = EngineLoad { sample: self.sent, ..core(&load) };
        if !all {
            return record;
        }
        EngineLoad {
            cache_hit_rate: load.cache_hit_rate,
            num_used_tokens: Some(count(load.used_tokens)),
            max_total_num_tokens: Some(count(load.max_tokens)),
            ..record
        }
    }
}

/// Whether two loads differ by more than usually changes from step to step.
fn has_changed(old: &Load, new: &Load) -> bool {
    let counts = |load: &Load| (load.running, load.waiting, load.waiting_uncached_tokens, load.max_running);
    let usage = |of: fn(&Load) -> f64| (of(old) - of(new)).abs() > 0.005;
    let speed = (old.generation_throughput - new.generation_throughput).abs();
    counts(old) != counts(new)
        || usage(|load| load.kv_usage)
        || usage(|load| load.active_kv_usage)
        || speed > 50.0_f64.max(0.05 * old.generation_throughput)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_dates() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_330_830, "2026-11-22T07:00:30Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in cases {
            assert_eq!(iso8601(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
    }

    #[test]
    fn records_come_with_change_and_with_time() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let idle = Load { max_running: 4, max_tokens: 100, ..Load::default() };
        let busy = Load { running: 1, ..idle };
        let stuck = Load { silence: Some(Duration::from_millis(1500)), ..busy };
        let mut records = Records::default();
        let cases = [
            ("the first at once", 0.0, idle, true),
            ("nothing new", 0.1, idle, false),
            ("a request", 0.2, busy, true),
            ("a word now and then", 1.1, busy, false),
            ("which is a second", 1.25, busy, true),
            ("and another", 2.3, busy, true),
            ("then seldom", 3.5, busy, false),
            ("but silence is told of", 3.6, stuck, true),
            ("every second", 4.7, stuck, true),
            ("seldom again", 5.8, busy, false),
            ("seldom is five seconds", 9.8, busy, true),
            ("the end of the request", 9.9, idle, true),
        ];
        let mut sample = 0;
        for (name, seconds, load, wanted) in cases {
            let record = records.by_itself(load, at(seconds));
            assert_eq!(record.is_some(), wanted, "{name}");
            if let Some(record) = record {
                sample += 1;
                assert_eq!((record.sample, record.load_only), (sample, true), "{name}");
                assert_eq!(record.running_requests, u32::try_from(load.running).unwrap(), "{name}");
                assert_eq!(record.engine_silence_ms, load.silence.map(|_| 1500), "{name}");
                assert_eq!(record.max_total_num_tokens, Some(100), "{name}");
            }
        }
        let beside = records.beside_events(busy, at(10.0));
        assert_eq!((beside.sample, beside.load_only, beside.max_total_num_tokens), (sample + 1, false, None));
        assert!(records.by_itself(busy, at(10.5)).is_none(), "events count as records");
    }
}
