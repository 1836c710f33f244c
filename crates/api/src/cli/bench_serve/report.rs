//! The figures of a level: as a table, JSON or CSV.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use serde_json::{Map, Value, json};

use super::{
    answer::Answer,
    arrivals::{Level, Rate},
    client::Kind,
    load::Outcome,
    stats::Summary,
};

/// How to write the figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// One object
    Json,
    /// One line a level
    Csv,
}

/// What a level came to, its repetitions taken together.
#[derive(Debug)]
pub struct LevelReport {
    level: Level,
    requests: usize,
    completed: usize,
    /// How many of each kind, and what the first of them said.
    errors: BTreeMap<Kind, (usize, String)>,
    duration: Duration,
    prompt_tokens: u64,
    completion_tokens: u64,
    /// `None` if no answer said.
    cached_tokens: Option<u64>,
    /// Answers whose tokens the server did not count.
    uncounted: usize,
    /// Milliseconds.
    times: [(&'static str, Option<Summary>); 4],
    /// Output tokens a second of each repetition.
    repetitions: Vec<f64>,
}

impl LevelReport {
    /// From the outcomes of the repetitions.
    pub fn new(level: Level, outcomes: &[Outcome]) -> Self {
        let results = || outcomes.iter().flat_map(|outcome| &outcome.results);
        let answers: Vec<&Answer> = results().filter_map(|result| result.as_ref().ok()).collect();
        let mut errors: BTreeMap<Kind, (usize, String)> = BTreeMap::new();
        for failure in results().filter_map(|result| result.as_ref().err()) {
            errors.entry(failure.kind).or_insert_with(|| (0, failure.message.clone())).0 += 1;
        }
        let usages = || answers.iter().filter_map(|answer| answer.usage);
        let cached: Vec<u64> = usages().filter_map(|usage| usage.cached).collect();
        let times = |of: &dyn Fn(&Answer) -> Option<Duration>| {
            Summary::of(answers.iter().filter_map(|answer| of(answer)).map(milliseconds).collect())
        };
        let itl = Summary::of(answers.iter().flat_map(|answer| &answer.gaps).copied().map(milliseconds).collect());
        Self {
            level,
            requests: results().count(),
            completed: answers.len(),
            errors,
            duration: outcomes.iter().map(|outcome| outcome.duration).sum(),
            prompt_tokens: usages().map(|usage| usage.prompt).sum(),
            completion_tokens: answers.iter().map(|answer| answer.tokens()).sum(),
            cached_tokens: (!cached.is_empty()).then(|| cached.iter().sum()),
            uncounted: answers.iter().filter(|answer| answer.usage.is_none()).count(),
            times: [
                ("ttft", times(&|answer| answer.ttft)),
                ("itl", itl),
                ("tpot", times(&Answer::tpot)),
                ("e2e", times(&|answer| Some(answer.e2e))),
            ],
            repetitions: outcomes.iter().map(output_speed).collect(),
        }
    }

    /// Whether not one request was answered.
    pub fn all_failed(&self) -> bool {
        self.completed == 0
    }

    /// `3 × http 503 (the queue is full), …`; empty if none failed.
    pub fn errors(&self) -> String {
        let kinds = self.errors.iter().map(|(kind, (count, message))| format!("{count} × {kind} ({message})"));
        kinds.collect::<Vec<_>>().join(", ")
    }

    fn per_second(&self, count: u64) -> f64 {
        count as f64 / self.duration.as_secs_f64().max(1e-9)
    }

    fn cached_share(&self) -> Option<f64> {
        let cached = self.cached_tokens?;
        (self.prompt_tokens > 0).then(|| cached as f64 / self.prompt_tokens as f64)
    }

    /// `usage` as the server counted, `pieces` if it didn't, `mixed` if not always.
    fn counted_by(&self) -> &'static str {
        match self.uncounted {
            0 => "usage",
            uncounted if uncounted == self.completed => "pieces",
            _ => "mixed",
        }
    }

    /// For people.
    pub fn table(&self) -> String {
        let mut text = format!("{}: {} requests in {:.2} s", self.level, self.requests, self.duration.as_secs_f64());
        if !self.errors.is_empty() {
            let _ = write!(text, ", {} failed: {}", self.requests - self.completed, self.errors());
        }
        let cached = self.cached_share().map_or("–".into(), |share| format!("{:.1} %", 100.0 * share));
        let _ = write!(
            text,
            "\n  {:.2} requests/s, {:.1} output tok/s, {:.1} total tok/s; {} prompt tokens, of these cached {cached}; {} output tokens",
            self.per_second(self.completed as u64),
            self.per_second(self.completion_tokens),
            self.per_second(self.prompt_tokens + self.completion_tokens),
            self.prompt_tokens,
            self.completion_tokens,
        );
        if self.uncounted > 0 {
            let _ = write!(
                text,
                "\n  {} answers came without usage: their pieces are counted as tokens, their prompts not at all",
                self.uncounted
            );
        }
        let _ = write!(text, "\n  {:>8}", "ms");
        for name in Summary::NAMES {
            let _ = write!(text, "{name:>11}");
        }
        for (name, summary) in &self.times {
            let _ = write!(text, "\n  {:>8}", name.to_uppercase());
            for index in 0..Summary::NAMES.len() {
                let cell = summary.map_or("–".into(), |summary| format!("{:.2}", summary.figures()[index]));
                let _ = write!(text, "{cell:>11}");
            }
        }
        text.push('\n');
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let (concurrency, rate) = level_json(self.level);
        let errors: Map<String, Value> = self
            .errors
            .iter()
            .map(|(kind, (count, message))| (kind.to_string(), json!({ "count": count, "first": message })))
            .collect();
        let mut object = json!({
            "concurrency": concurrency,
            "request_rate": rate,
            "requests": self.requests,
            "completed": self.completed,
            "failed": self.requests - self.completed,
            "errors": errors,
            "duration_s": self.duration.as_secs_f64(),
            "requests_per_s": self.per_second(self.completed as u64),
            "output_tok_s": self.per_second(self.completion_tokens),
            "total_tok_s": self.per_second(self.prompt_tokens + self.completion_tokens),
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "cached_tokens": self.cached_tokens,
            "cached_share": self.cached_share(),
            "tokens_counted_by": self.counted_by(),
            "repetitions_output_tok_s": self.repetitions,
        });
        for (name, summary) in &self.times {
            object[format!("{name}_ms")] = summary.as_ref().map(Summary::json).into();
        }
        object
    }

    /// The names of the columns of [`csv`](Self::csv).
    pub fn csv_header() -> String {
        let mut header =
            "concurrency,request_rate,requests,completed,failed,duration_s,requests_per_s,output_tok_s,total_tok_s,\
                          prompt_tokens,completion_tokens,cached_tokens,tokens_counted_by"
                .to_owned();
        for time in ["ttft", "itl", "tpot", "e2e"] {
            for name in Summary::NAMES {
                let _ = write!(header, ",{time}_ms_{name}");
            }
        }
        header
    }

    /// One line; what isn't known is empty.
    pub fn csv(&self) -> String {
        let json = self.json();
        let header = Self::csv_header();
        let cells = header.split(',').map(|name| match name.rsplit_once("_ms_") {
            Some((time, figure)) => &json[format!("{time}_ms")][figure],
            None => &json[name],
        });
        let cells = cells.map(|cell| match cell {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        cells.collect::<Vec<_>>().join(",")
    }
}

fn level_json(level: Level) -> (Value, Value) {
    match level {
        Level::Concurrency(clients) => (clients.into(), Value::Null),
        Level::Rate(Rate::PerSecond(rate)) => (Value::Null, rate.into()),
        Level::Rate(Rate::Infinite) => (Value::Null, "inf".into()),
    }
}

fn output_speed(outcome: &Outcome) -> f64 {
    let tokens: u64 = outcome.results.iter().flatten().map(Answer::tokens).sum();
    tokens as f64 / outcome.duration.as_secs_f64().max(1e-9)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::{
        super::{answer::Usage, client::Failure},
        *,
    };

    fn answer(ttft_ms: u64, usage: Option<Usage>) -> Result<Answer, Failure> {
        Ok(Answer {
            ttft: Some(Duration::from_millis(ttft_ms)),
            gaps: vec![Duration::from_millis(10); 3],
            e2e: Duration::from_millis(ttft_ms + 30),
            usage,
            pieces: 4,
            text: String::new(),
        })
    }

    fn report() -> LevelReport {
        let usage = Usage { prompt: 100, completion: 4, cached: Some(25) };
        let full = || Err(Failure::new(Kind::Status(503), "full"));
        let outcome = Outcome {
            duration: Duration::from_secs(2),
            results: vec![answer(10, Some(usage)), answer(30, Some(usage)), full(), full()],
        };
        LevelReport::new(Level::Concurrency(2), &[outcome])
    }

    #[test]
    fn a_level_adds_up() {
        let json = report().json();
        let wanted = [
            ("concurrency", json!(2)),
            ("request_rate", Value::Null),
            ("requests", json!(4)),
            ("completed", json!(2)),
            ("failed", json!(2)),
            ("errors", json!({ "http 503": { "count": 2, "first": "full" } })),
            ("requests_per_s", json!(1.0)),
            ("output_tok_s", json!(4.0)),
            ("total_tok_s", json!(104.0)),
            ("cached_share", json!(0.25)),
            ("tokens_counted_by", json!("usage")),
            ("repetitions_output_tok_s", json!([4.0])),
        ];
        for (name, value) in wanted {
            assert_eq!(json[name], value, "{name}");
        }
        assert_eq!(json["ttft_ms"]["mean"], 20.0);
        assert_eq!(json["itl_ms"]["p99"], 10.0);
        assert_eq!(json["tpot_ms"]["p50"], 10.0);
        assert_eq!(json["e2e_ms"]["p50"], 50.0);
    }

    #[test]
    fn a_table_says_what_failed_and_what_is_not_known() {
        let table = report().table();
        assert!(table.contains("2 failed: 2 × http 503 (full)"), "{table}");
        assert!(table.contains("cached 25.0 %"), "{table}");
        let failed =
            Outcome { duration: Duration::from_secs(1), results: vec![Err(Failure::new(Kind::Connect, "no"))] };
        let nothing = LevelReport::new(Level::Rate(Rate::Infinite), &[failed]);
        assert!(nothing.all_failed());
        assert!(nothing.table().contains("TTFT          –"), "{}", nothing.table());
    }

    #[test]
    fn answers_without_usage_are_counted_by_their_pieces() {
        let outcome = Outcome { duration: Duration::from_secs(1), results: vec![answer(1, None)] };
        let report = LevelReport::new(Level::Rate(Rate::PerSecond(2.0)), &[outcome]);
        assert_eq!(report.json()["tokens_counted_by"], "pieces");
        assert_eq!(report.json()["completion_tokens"], 4);
        assert_eq!(report.json()["cached_tokens"], Value::Null);
        assert!(report.table().contains("without usage"));
    }

    #[test]
    fn csv_has_a_cell_for_every_column() {
        let (header, line) = (LevelReport::csv_header(), report().csv());
        let cells: BTreeMap<&str, &str> = header.split(',').zip(line.split(',')).collect();
        assert_eq!(header.split(',').count(), line.split(',').count());
        assert_eq!((cells["concurrency"], cells["request_rate"], cells["failed"]), ("2", "", "2"));
        assert_eq!(cells["ttft_ms_p50"], "20.0");
        assert!(cells.iter().all(|(name, cell)| !cell.is_empty() || *name == "request_rate"));
    }
}
