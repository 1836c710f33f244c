//! Counts of values in fixed buckets, as Prometheus has them.

/// How many values fell into which bucket.
///
/// ```
/// use vllm_scheduler::Histogram;
///
/// let mut histogram = Histogram::new(&[1.0, 10.0]);
/// for value in [0.5, 1.0, 3.0, 99.0] {
///     histogram.record(value);
/// }
/// assert_eq!(histogram.cumulative().collect::<Vec<_>>(), [(1.0, 2), (10.0, 3), (f64::INFINITY, 4)]);
/// assert_eq!((histogram.count(), histogram.sum()), (4, 103.5));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper ends of the buckets, ascending; one more bucket takes what is above.
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Histogram {
    /// An empty one.
    #[must_use]
    pub fn new(bounds: &'static [f64]) -> Self {
        Self { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts a value.
    pub fn record(&mut self, value: f64) {
        let bucket = self.bounds.partition_point(|&bound| bound < value);
        self.counts[bucket] += 1;
        self.sum += value;
    }

    /// Values so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    #[must_use]
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// For each upper end, and infinity last, the values up to it.
    pub fn cumulative(&self) -> impl Iterator<Item = (f64, u64)> {
        let ends = self.bounds.iter().copied().chain([f64::INFINITY]);
        ends.zip(&self.counts).scan(0, |total, (end, count)| {
            *total += count;
            Some((end, *total))
        })
    }
}
