//! When requests are sent.

use std::{fmt, str::FromStr, time::Duration};

use super::rng::Rng;

/// What decides when the next request is sent: one level of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Level {
    /// Closed loop: so many clients, each sending when it has been answered.
    Concurrency(usize),
    /// Open loop: clients come as they please, however slow the server is.
    Rate(Rate),
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Concurrency(n) => write!(f, "concurrency {n}"),
            Self::Rate(Rate::Infinite) => f.write_str("all at once"),
            Self::Rate(Rate::PerSecond(rate)) => write!(f, "{rate} requests/s"),
        }
    }
}

/// How many requests arrive a second, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rate {
    /// As a Poisson process of this rate.
    PerSecond(f64),
    /// All at once.
    Infinite,
}

impl FromStr for Rate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse::<f64>() {
            Ok(rate) if rate == f64::INFINITY => Ok(Self::Infinite),
            Ok(rate) if rate > 0.0 => Ok(Self::PerSecond(rate)),
            _ => Err("must be a number of requests a second above 0, or inf".into()),
        }
    }
}

/// The sequence of random numbers that arrivals are made from; prompts have those from 0 on.
const ARRIVALS: u64 = u64::MAX - 1;

/// When each of `count` requests is sent, from the level's start. The same for the same seed.
pub fn times(rate: Rate, count: usize, seed: u64) -> Vec<Duration> {
    let Rate::PerSecond(rate) = rate else { return vec![Duration::ZERO; count] };
    let mut rng = Rng::new(seed, ARRIVALS);
    let mut at = 0.0;
    let gaps = (0..count).map(|_| rng.exponential() / rate);
    // Counted from the first arrival: waiting for it would only lengthen the run.
    gaps.enumerate()
        .map(|(index, gap)| {
            at += if index == 0 { 0.0 } else { gap };
            Duration::try_from_secs_f64(at).unwrap_or(Duration::MAX)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_positive_or_infinite() {
        let cases = [
            ("2.5", Some(Rate::PerSecond(2.5))),
            ("inf", Some(Rate::Infinite)),
            ("0", None),
            ("-1", None),
            ("nan", None),
            ("-inf", None),
            ("fast", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<Rate>().ok(), wanted, "{text}");
        }
    }

    #[test]
    fn arrivals_keep_their_rate_and_repeat_with_their_seed() {
        let times_of = |seed| times(Rate::PerSecond(50.0), 10_001, seed);
        let times = times_of(1);
        assert_eq!(times[0], Duration::ZERO);
        assert!(times.is_sorted());
        let rate = 10_000.0 / times[10_000].as_secs_f64();
        assert!((48.0..52.0).contains(&rate), "{rate}");
        assert_eq!(times, times_of(1));
        assert_ne!(times, times_of(2));
    }

    #[test]
    fn all_at_once_is_all_at_once() {
        assert_eq!(times(Rate::Infinite, 3, 0), [Duration::ZERO; 3]);
    }

    #[test]
    fn a_rate_close_to_nothing_does_not_overflow() {
        assert_eq!(times(Rate::PerSecond(1e-300), 2, 0)[1], Duration::MAX);
    }
}
