//! Prometheus's text format, version 0.0.4.

use std::fmt::Write as _;

use vllm_scheduler::Histogram;

/// Names and values of a sample's labels.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// Metrics as text.
#[derive(Debug, Default)]
pub struct Exposition {
    /// Families in the order of their first samples: all of a family's must stand together.
    families: Vec<(String, String)>,
    /// Where the samples of the family in hand go.
    current: usize,
}

impl Exposition {
    /// A value that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.family(name, "gauge", help);
        self.sample(name, labels, None, value);
    }

    /// A value that only grows. Its name ends in `_total`.
    pub fn counter(&mut self, name: &str, help: &str, labels: Labels<'_>, value: u64) {
        self.family(name, "counter", help);
        self.sample(name, labels, None, value as f64);
    }

    /// A time that only grows. Its name ends in `_seconds_total`.
    pub fn seconds(&mut self, name: &str, help: &str, labels: Labels<'_>, value: f64) {
        self.family(name, "counter", help);
        self.sample(name, labels, None, value);
    }

    /// A distribution.
    pub fn histogram(&mut self, name: &str, help: &str, labels: Labels<'_>, histogram: &Histogram) {
        self.family(name, "histogram", help);
        let bucket = format!("{name}_bucket");
        for (end, count) in histogram.cumulative() {
            self.sample(&bucket, labels, Some(end), count as f64);
        }
        self.sample(&format!("{name}_sum"), labels, None, histogram.sum());
        self.sample(&format!("{name}_count"), labels, None, histogram.count() as f64);
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.families.into_iter().map(|(_, text)| text).collect()
    }

    /// Turns to a family, with its head if it is new.
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        self.current = self.families.iter().position(|(known, _)| known == name).unwrap_or_else(|| {
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            self.families.push((name.to_owned(), format!("# HELP {name} {help}\n# TYPE {name} {kind}\n")));
            self.families.len() - 1
        });
    }

    fn sample(&mut self, name: &str, labels: Labels<'_>, end: Option<f64>, value: f64) {
        let Some((_, text)) = self.families.get_mut(self.current) else { return };
        text.push_str(name);
        let mut separator = '{';
        let le = end.map(number);
        for (label, value) in labels.iter().copied().chain(le.as_deref().map(|end| ("le", end))) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            // Writing to a string cannot fail; so too below.
            let _ = write!(text, "{separator}{label}=\"{value}\"");
            separator = ',';
        }
        if separator == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {}", number(value));
    }
}

fn number(value: f64) -> String {
    if value == f64::INFINITY { "+Inf".into() } else { format!("{value}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_samples_and_escapes() {
        let mut out = Exposition::default();
        out.counter("a_total", "Two\nlines.", &[("m", "x\"y\\z\n")], 3);
        out.counter("a_total", "Two\nlines.", &[("m", "b")], 4);
        out.gauge("g", "One.", &[], 0.5);
        let mut histogram = Histogram::new(&[0.5, 2.0]);
        [0.25, 1.0, 9.0].iter().for_each(|&value| histogram.record(value));
        out.histogram("h", "Some.", &[("m", "b")], &histogram);
        let wanted = r#"# HELP a_total Two\nlines.
# TYPE a_total counter
a_total{m="x\"y\\z\n"} 3
a_total{m="b"} 4
# HELP g One.
# TYPE g gauge
g 0.5
# HELP h Some.
# TYPE h histogram
h_bucket{m="b",le="0.5"} 1
h_bucket{m="b",le="2"} 2
h_bucket{m="b",le="+Inf"} 3
h_sum{m="b"} 10.25
h_count{m="b"} 3
"#;
        assert_eq!(out.finish(), wanted);
    }
}
