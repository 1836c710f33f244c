//! Percentiles.

use serde_json::{Value, json};

/// What a list of figures comes to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Summary {
    pub mean: f64,
    pub p50: f64,
    pub p90: f64,
    pub p95: f64,
    pub p99: f64,
}

impl Summary {
    /// The names of its figures, in the order of [`figures`](Self::figures).
    pub const NAMES: [&'static str; 5] = ["mean", "p50", "p90", "p95", "p99"];

    /// Of any number of values, in any order. `None` of none.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        values.sort_by(f64::total_cmp);
        let at = |percent| percentile(&values, percent);
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        Some(Self { mean, p50: at(50.0), p90: at(90.0), p95: at(95.0), p99: at(99.0) })
    }

    /// In the order of [`NAMES`](Self::NAMES).
    pub fn figures(&self) -> [f64; 5] {
        [self.mean, self.p50, self.p90, self.p95, self.p99]
    }

    /// `{"mean": …, "p50": …, …}`.
    pub fn json(&self) -> Value {
        json!({ "mean": self.mean, "p50": self.p50, "p90": self.p90, "p95": self.p95, "p99": self.p99 })
    }
}

/// Of sorted values, at least one; between two of them, linearly (as numpy does unasked).
pub fn percentile(sorted: &[f64], percent: f64) -> f64 {
    let place = percent / 100.0 * (sorted.len() - 1) as f64;
    let below = place.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * place.fract()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_numpy() {
        let cases: [(&[f64], f64, f64); 6] = [
            (&[7.0], 99.0, 7.0),
            (&[1.0, 2.0], 50.0, 1.5),
            (&[1.0, 2.0, 3.0], 50.0, 2.0),
            (&[1.0, 2.0, 3.0, 4.0, 5.0], 90.0, 4.6),
            (&[1.0, 2.0, 3.0, 4.0, 5.0], 0.0, 1.0),
            (&[1.0, 2.0, 3.0, 4.0, 5.0], 100.0, 5.0),
        ];
        for (sorted, percent, wanted) in cases {
            assert!((percentile(sorted, percent) - wanted).abs() < 1e-12, "{sorted:?} at {percent}");
        }
    }

    #[test]
    fn summaries_take_values_in_any_order() {
        let summary = Summary::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((summary.mean, summary.p50), (2.0, 2.0));
        assert_eq!(Summary::of(Vec::new()), None);
        assert_eq!(summary.json()["p50"], 2.0);
        assert_eq!(Summary::NAMES.len(), summary.figures().len());
    }
}
