//! What a step was spent on.

use std::{fmt::Write as _, time::Duration};

use vllm_platform::WorkTime;
use vllm_scheduler::Profile;

/// A line for each kind of work, the longest first, with what lies between them; all per step.
pub fn table(profile: &Profile) -> String {
    let steps = profile.steps.max(1) as f64;
    let micros = |time: Duration| time.as_secs_f64() * 1e6 / steps;
    let wall = micros(profile.wall);
    let mut work: Vec<&WorkTime> = profile.work.iter().collect();
    work.sort_by_key(|work| std::cmp::Reverse(work.time));
    let counted: Duration = work.iter().map(|work| work.time).sum();
    let mut table = format!(
        "{} steps of {wall:.0} µs\n{:<24} {:>9} {:>10} {:>7}\n",
        profile.steps, "work", "calls", "µs a step", "share"
    );
    let mut line = |name: &str, calls: Option<f64>, time: f64| {
        let calls = calls.map_or_else(String::new, |calls| format!("{calls:.0}"));
        // Writing to a string can't fail.
        let _ = writeln!(table, "{name:<24} {calls:>9} {time:>10.1} {:>6.1}%", 100.0 * time / wall.max(1e-9));
    };
    for WorkTime { name, calls, time } in work {
        line(name, Some(*calls as f64 / steps), micros(*time));
    }
    line("the rest of the runner", None, micros(profile.in_steps.saturating_sub(counted)));
    line("scheduler and clients", None, micros(profile.wall.saturating_sub(profile.in_steps)));
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_a_step_and_nothing_is_left_out() {
        let work =
            |name: &str, calls, micros| WorkTime { name: name.into(), calls, time: Duration::from_micros(micros) };
        let profile = Profile {
            steps: 10,
            wall: Duration::from_micros(1000),
            in_steps: Duration::from_micros(900),
            work: vec![work("norm", 20, 50), work("linear", 40, 800)],
        };
        let table = table(&profile);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["10", "steps", "of", "100", "µs"]);
        assert_eq!(lines[2], ["linear", "4", "80.0", "80.0%"]);
        assert_eq!(lines[3], ["norm", "2", "5.0", "5.0%"]);
        assert_eq!(lines[4][5..], ["5.0", "5.0%"]);
        assert_eq!(lines[5][3..], ["10.0", "10.0%"]);
    }
}
