//! Samples, and the tables made of them.

use std::{collections::BTreeMap, fmt, fmt::Write as _, fs, time::Duration};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{
    super::{measure::median, others::QUIET},
    ceilings::Ceilings,
    figure::Figure,
    model::{Goal, Model},
};
use crate::paths;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    Ours,
    Theirs,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "vllm-mlx",
            Self::Theirs => "llama.cpp",
        })
    }
}

/// Everything that was measured.
#[derive(Default)]
pub struct Samples {
    values: BTreeMap<(&'static str, Figure, Side), Vec<f64>>,
    /// The share of the processor that others had during each piece of work, where it is known.
    others: Vec<f64>,
    /// The same, for each figure of a model.
    beside: BTreeMap<(&'static str, Figure), Vec<f64>>,
}

impl Samples {
    pub fn add(&mut self, model: &Model, side: Side, figures: &[(Figure, f64)], others: Option<f64>) {
        for &(figure, value) in figures {
            self.values.entry((model.name, figure, side)).or_default().push(value);
            self.beside.entry((model.name, figure)).or_default().extend(others);
        }
        self.others.extend(others);
    }

    fn of(&self, model: &Model, figure: Figure, side: Side) -> &[f64] {
        self.values.get(&(model.name, figure, side)).map_or(&[], Vec::as_slice)
    }

    /// Whether others used the machine while a figure was measured: it then says nothing about a goal.
    fn is_disturbed(&self, model: &Model, figure: Figure) -> bool {
        let others = self.beside.get(&(model.name, figure)).map_or(&[][..], Vec::as_slice);
        median(others.iter().copied()) > QUIET
    }

    /// A table for each model, and under which conditions.
    pub fn report(&self, models: &[&Model], threads: usize, limits: Ceilings, took: Duration) -> String {
        let mut text = String::new();
        for model in models {
            let _ = writeln!(text, "{}\n", self.table(model, limits));
        }
        let int8 = limits.int8_gops.map_or(String::new(), |gops| format!(", {gops:.0} Gop/s of byte dot products"));
        let _ = writeln!(
            text,
            "{threads} threads, medians. Memory reads at {:.1} GB/s at best ({:.1} in the median), a core does {:.0} GFLOP/s of f32 \
             multiply-adds{int8}. {}The run took {:.0} minutes.",
            limits.read_gbs,
            limits.read_median_gbs,
            limits.f32_gflops,
            self.load(),
            took.as_secs_f64() / 60.0,
        );
        text
    }

    fn load(&self) -> String {
        if self.others.is_empty() {
            return String::new();
        }
        let disturbed = self.others.iter().filter(|&&others| others > QUIET).count();
        format!(
            "Other programs had {:.0} % of the processor in the median, and more than {:.0} % during {disturbed} of {} pieces of work. ",
            100.0 * median(self.others.iter().copied()),
            100.0 * QUIET,
            self.others.len(),
        )
    }

    fn table(&self, model: &Model, limits: Ceilings) -> String {
        let megabytes = model.bytes_per_token as f64 / 1e6;
        let mut text = format!(
            "{} ({megabytes:.1} MB a token)\n\n| | vllm-mlx | llama.cpp | ratio | goal | reached | rounds |\n|---|---|---|---|---|---|---|\n",
            model.title
        );
        for figure in Figure::ALL {
            let (ours, theirs) = (self.of(model, figure, Side::Ours), self.of(model, figure, Side::Theirs));
            if ours.is_empty() && theirs.is_empty() {
                continue;
            }
            let (a, b) = (median(ours.iter().copied()), median(theirs.iter().copied()));
            let bandwidth = |speed: f64| speed * model.bytes_per_token as f64 / 1e9;
            let share = bandwidth(a) / limits.read_gbs;
            let goal = figure.goal(model);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {:.2} | {} | {} | {} |",
                figure.name(),
                figure.number(a),
                figure.number(b),
                a / b,
                goal.map_or("".into(), |goal| goal.to_string()),
                match goal {
                    None => "",
                    // Memory is not taken away by others.
                    Some(Goal::Times(_) | Goal::OfBandwidth(_)) if self.is_disturbed(model, figure) =>
                        "machine was busy",
                    Some(goal) if goal.is_reached(a / b, share) => "yes",
                    Some(_) => "no",
                },
                ours.len().min(theirs.len()),
            );
            if figure.is_decode() {
                let shown = |speed: f64| {
                    format!("{:.1} ({:.0} %)", bandwidth(speed), 100.0 * bandwidth(speed) / limits.read_gbs)
                };
                let _ = writeln!(
                    text,
                    "| … of weights, GB/s (of what memory gives) | {} | {} | | | | |",
                    shown(a),
                    shown(b)
                );
            }
        }
        text
    }

    /// Keeps all samples where other programs can read them.
    pub fn save(&self, limits: Ceilings) -> Result<()> {
        let samples: Vec<Value> = self
            .values
            .iter()
            .map(|((model, figure, side), values)| {
                json!({ "model": model, "figure": figure.name(), "side": side.to_string(), "values": values })
            })
            .collect();
        let whole = json!({
            "f32_gflops": limits.f32_gflops,
            "int8_gops": limits.int8_gops,
            "read_gbs": limits.read_gbs,
            "read_median_gbs": limits.read_median_gbs,
            "others": self.others,
            "samples": samples,
        });
        let folder = paths::target().join("bench");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let path = folder.join("cpu.json");
        fs::write(&path, format!("{whole:#}\n")).with_context(|| format!("cannot write {}", path.display()))
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Times(ratio) => write!(f, "≥ {ratio}×"),
            Self::AtMost(ratio) => write!(f, "≤ {ratio}×"),
            Self::OfBandwidth(share) => write!(f, "≥ {:.0} % of what memory gives", 100.0 * share),
        }
    }
}

impl Goal {
    /// `ratio` is ours to theirs; `share` that of the read bandwidth.
    fn is_reached(self, ratio: f64, share: f64) -> bool {
        match self {
            Self::Times(wanted) => ratio >= wanted,
            Self::AtMost(wanted) => ratio <= wanted,
            Self::OfBandwidth(wanted) => share >= wanted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_says_what_was_reached() {
        let model = Model::named("qwen3-0.6b-q4_0").unwrap();
        let limits = Ceilings { f32_gflops: 117.0, int8_gops: None, read_gbs: 33.5, read_median_gbs: 30.0 };
        let mut samples = Samples::default();
        for (side, factor) in [(Side::Ours, 2.0), (Side::Theirs, 1.0)] {
            for speed in [10.0, 45.0, 400.0] {
                let figures = [(Figure::Decode, factor * speed), (Figure::Peak, factor * 1e8)];
                samples.add(model, side, &figures, Some(0.01));
                samples.add(model, side, &[(Figure::Prefill, 100.0)], Some(0.5));
            }
        }
        let report = samples.report(&[model], 2, limits, Duration::from_secs(120));
        let wanted = [
            "| prefill of 512, tok/s | 100.0 | 100.0 | 1.00 | ≥ 2.5× | machine was busy | 3 |",
            "| decode from an empty context, tok/s | 90.0 | 45.0 | 2.00 | ≥ 85 % of what memory gives | yes | 3 |",
            "| … of weights, GB/s (of what memory gives) | 30.2 (90 %) | 15.1 (45 %) |",
            "| peak memory, 512 + 64 tokens, MB | 200 | 100 | 2.00 | ≤ 1.1× | no | 3 |",
            "more than 5 % during 6 of 12 pieces",
        ];
        for line in wanted {
            assert!(report.contains(line), "{line} is not in\n{report}");
        }
    }
}
