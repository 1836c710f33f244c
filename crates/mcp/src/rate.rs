//! How often a tool may be called.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

const WINDOW: Duration = Duration::from_secs(60);

/// Calls of the last minute, tool by tool.
#[derive(Debug)]
pub struct RateLimit {
    calls: HashMap<String, VecDeque<Instant>>,
    most: usize,
}

impl RateLimit {
    /// At most so many calls of a tool in any minute.
    pub fn new(most: usize) -> Self {
        Self { calls: HashMap::new(), most }
    }

    /// Counts a call at this time.
    ///
    /// # Errors
    /// How long to wait: there were too many, and this one doesn't count.
    pub fn take(&mut self, tool: &str, now: Instant) -> Result<(), Duration> {
        // Tools that nobody calls any more leave nothing behind.
        self.calls.retain(|_, calls| {
            while calls.front().is_some_and(|&call| now.duration_since(call) >= WINDOW) {
                calls.pop_front();
            }
            !calls.is_empty()
        });
        let calls = self.calls.entry(tool.to_owned()).or_default();
        if calls.len() >= self.most {
            return Err(calls.front().map_or(WINDOW, |&oldest| WINDOW.saturating_sub(now.duration_since(oldest))));
        }
        calls.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_holds_so_many_calls_of_each_tool() {
        let mut rate = RateLimit::new(2);
        let start = Instant::now();
        let cases = [
            (0, "a", Ok(())),
            (10, "a", Ok(())),
            (20, "a", Err(40)),
            (20, "b", Ok(())),
            (59, "a", Err(1)),
            (60, "a", Ok(())),
            (61, "a", Err(9)),
            (200, "a", Ok(())),
        ];
        for (second, tool, wanted) in cases {
            let taken = rate.take(tool, start + Duration::from_secs(second)).map_err(|wait| wait.as_secs());
            assert_eq!(taken, wanted, "{tool} at {second}");
        }
        assert_eq!(rate.calls.len(), 1, "what is over is forgotten");
    }
}
