//! What other programs use of the processor while something is measured. Linux only: elsewhere nothing is known, and nothing is said.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use anyhow::Result;

/// Others that use less of the processor than this leave it alone.
pub const QUIET: f64 = 0.05;

/// Ticks of all processors since the machine's start: not idle, idle or not, and what we and the children we waited for had of them.
#[derive(Debug, Clone, Copy)]
struct Ticks {
    busy: u64,
    all: u64,
    own: u64,
}

impl Ticks {
    fn now() -> Option<Self> {
        let (busy, all) = machine(&fs::read_to_string("/proc/stat").ok()?)?;
        let own = process(&fs::read_to_string("/proc/self/stat").ok()?)?;
        Some(Self { busy, all, own })
    }

    /// The share of the processor, all cores of it, that others had since `start`.
    fn others_since(self, start: Self) -> Option<f64> {
        let others = (self.busy - start.busy).saturating_sub(self.own - start.own);
        (self.all > start.all).then(|| others as f64 / (self.all - start.all) as f64)
    }
}

/// Busy and all ticks, of the line that sums up the processors: user, nice, system, idle, iowait, irq, softirq, steal.
fn machine(stat: &str) -> Option<(u64, u64)> {
    let numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let ticks: Vec<u64> = numbers.map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let all = ticks.iter().sum();
    Some((all - ticks.get(3)? - ticks.get(4)?, all))
}

/// User and system ticks of a process and of the children it waited for: fields 14 to 17.
fn process(stat: &str) -> Option<u64> {
    // The second field, a name in brackets, may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    fields.split_whitespace().skip(11).take(4).map(|number| number.parse::<u64>().ok()).sum()
}

/// Does `work`, which waits for the programs that it starts. Returns the share of the processor that others had meanwhile, too.
pub fn beside<T>(work: impl FnOnce() -> Result<T>) -> Result<(T, Option<f64>)> {
    let start = Ticks::now();
    let done = work()?;
    let others = start.zip(Ticks::now()).and_then(|(start, end)| end.others_since(start));
    Ok((done, others))
}

/// Waits until others leave the processor alone for half a second, for `most` at most.
pub fn wait_for_quiet(most: Duration) {
    let start = Instant::now();
    while start.elapsed() < most {
        let looked = beside(|| {
            thread::sleep(Duration::from_millis(500));
            Ok(())
        });
        if !looked.is_ok_and(|((), others)| others.is_some_and(|others| others > QUIET)) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_read() {
        let stat = "cpu  10 1 5 100 20 2 3 4 7 7\ncpu0 5 0 0 50 0 0 0 0 0 0\n";
        assert_eq!(machine(stat), Some((25, 145)));
        assert_eq!(machine("intr 1 2 3"), None);
        let own = "42 (a ) b) S 1 42 42 0 -1 4194304 9 9 9 9 1 2 30 40 20 0 8 0 100 9 9";
        assert_eq!(process(own), Some(73));
        assert_eq!(process("42"), None);
        let (start, end) = (Ticks { busy: 100, all: 1000, own: 10 }, Ticks { busy: 200, all: 1200, own: 90 });
        assert_eq!(end.others_since(start), Some(0.1));
        assert_eq!(start.others_since(start), None);
    }
}
