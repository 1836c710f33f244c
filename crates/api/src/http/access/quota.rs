//! A quota that fills up again: so much a minute, at any speed as long as it lasts.

use std::time::{Duration, Instant};

/// What is used of a quota. It is kept as use, not as rest, so that a new limit holds at once and a caller who isn't
/// known has used nothing.
#[derive(Debug, Clone, Copy)]
pub struct Used {
    amount: f64,
    at: Instant,
}

/// A quota as its caller may see it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quota {
    /// Of a minute.
    pub limit: u64,
    /// What is left; negative: what has to come back first.
    rest: f64,
}

impl Used {
    /// Nothing.
    pub fn nothing(now: Instant) -> Self {
        Self { amount: 0.0, at: now }
    }

    /// What a limit leaves of it.
    pub fn under(&mut self, limit: u64, now: Instant) -> Quota {
        let back = per_second(limit) * now.saturating_duration_since(self.at).as_secs_f64();
        self.amount = (self.amount - back).max(0.0);
        self.at = now;
        Quota { limit, rest: limit as f64 - self.amount }
    }

    /// Uses some more.
    pub fn add(&mut self, amount: f64) {
        self.amount += amount;
    }

    /// Whether all of it has come back.
    pub fn is_nothing(&self) -> bool {
        self.amount <= 0.0
    }
}

impl Quota {
    /// This quota after some more use.
    pub fn less(self, amount: f64) -> Self {
        Self { rest: self.rest - amount, ..self }
    }

    /// How long until `amount` is left.
    pub fn wait_for(self, amount: f64) -> Duration {
        time_for((amount - self.rest).max(0.0), self.limit)
    }

    /// Whole pieces that are left.
    pub fn remaining(self) -> u64 {
        // As the quota comes back, sums like 0.1 + 0.9 must be worth 1.
        (self.rest + 1e-6).max(0.0) as u64
    }

    /// How long until all is left.
    pub fn reset(self) -> Duration {
        self.wait_for(self.limit as f64)
    }
}

fn per_second(limit: u64) -> f64 {
    limit as f64 / 60.0
}

fn time_for(amount: f64, limit: u64) -> Duration {
    Duration::try_from_secs_f64(amount / per_second(limit)).unwrap_or(Duration::MAX)
}

/// A time as OpenAI's headers have it: `20ms`, `1.5s`, `6m0s`.
pub fn show(time: Duration) -> String {
    let ms = time.as_millis();
    match ms {
        0..1000 => format!("{ms}ms"),
        1000..60_000 => format!("{}s", ms as f64 / 1e3),
        _ => format!("{}m{}s", ms / 60_000, ms % 60_000 / 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_used_comes_back_evenly() {
        let start = Instant::now();
        let mut used = Used::nothing(start);
        used.add(60.0);
        let cases = [(0, 0, 1000, 60_000), (500, 0, 500, 59_500), (1000, 1, 0, 59_000), (30_000, 30, 0, 30_000)];
        for (ms, remaining, wait, reset) in cases {
            let quota = used.under(60, start + Duration::from_millis(ms));
            let shown = (quota.remaining(), quota.wait_for(1.0).as_millis(), quota.reset().as_millis());
            assert_eq!(shown, (remaining, wait, reset), "{ms}");
        }
        assert!(!used.is_nothing());
        assert_eq!(used.under(60, start + Duration::from_secs(60)).remaining(), 60);
        assert!(used.is_nothing());
        used.add(90.0);
        let debt = used.under(60, start + Duration::from_secs(60));
        assert_eq!((debt.remaining(), debt.wait_for(0.0)), (0, Duration::from_secs(30)));
    }

    #[test]
    fn times_as_openai_shows_them() {
        let cases = [(0, "0ms"), (999, "999ms"), (1500, "1.5s"), (2000, "2s"), (60_000, "1m0s"), (361_000, "6m1s")];
        for (ms, wanted) in cases {
            assert_eq!(show(Duration::from_millis(ms)), wanted);
        }
    }
}
