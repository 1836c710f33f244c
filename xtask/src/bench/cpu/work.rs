//! Pieces of work that both programs do alike, and the figures each yields.
//!
//! | work | `vllm-mlx` | llama.cpp |
//! |---|---|---|
//! | a prompt and what follows | `bench`, second of two runs | `llama-bench -p`, and `-n -d` in another process; both warm up |
//! | from nothing | `bench` with a prompt of one token, second of two runs | `llama-bench -n` |
//! | a long prompt | `bench`, one run | `llama-bench -p --no-warmup` |
//! | many at once | `bench --concurrency`, second of two runs | `llama-batched-bench` |
//! | served | `serve` | `llama-server`; load on both by `vllm-mlx bench-serve` |

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    super::{
        engine::{
            self, contender,
            load::{Load, Options},
            peers,
        },
        llama_cpp::Programs,
        measure::with_peak_memory,
    },
    figure::Figure,
    model::Model,
    report::Side,
};

pub const PROMPT: usize = 512;
pub const LONG: usize = 4096;
pub const GENERATE: usize = 64;
pub const STREAMS: usize = 16;
/// Tokens of each prompt of many: as good as none.
const STUB: usize = 2;
/// Tokens of a prompt sent to a server, of the answer, and room for both where the vocabulary has no words.
const ASKED: usize = 32;
const ANSWERED: usize = 128;
const SERVED_CONTEXT: usize = 512;

/// Both programs, and how they are run.
pub struct Contest {
    pub ours: PathBuf,
    pub ours_flags: Vec<String>,
    pub llama: Programs,
    pub threads: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    Prompt,
    FromNothing,
    LongPrompt,
    Together,
    Served,
}

type Figures = Vec<(Figure, f64)>;

impl Work {
    /// What to do of a model.
    pub fn of(model: &Model, quick: bool, serve_all: bool) -> Vec<Self> {
        let mut all = vec![Self::Prompt, Self::FromNothing];
        if !quick {
            all.extend([Self::LongPrompt, Self::Together]);
            all.extend((model.has_words || serve_all).then_some(Self::Served));
        }
        all
    }

    pub fn is_long(self) -> bool {
        matches!(self, Self::LongPrompt | Self::Together | Self::Served)
    }

    pub fn run(self, side: Side, contest: &Contest, model: &Path, round: usize) -> Result<Figures> {
        match (self, side) {
            (Self::Served, _) => served(side, contest, model, round),
            (_, Side::Ours) => self.ours(contest, model),
            (_, Side::Theirs) => self.theirs(contest, model),
        }
    }

    fn ours(self, contest: &Contest, model: &Path) -> Result<Figures> {
        let bench = |prompt: usize, generate: usize, repeat: usize, more: &[&str]| -> Result<(Value, f64)> {
            let mut command = Command::new(&contest.ours);
            command.arg("bench").arg(model).args(["--json", "--device", "cpu", "--disable-prefix-cache"]);
            for (flag, number) in [
                ("--prompt-tokens", prompt),
                ("--generate", generate),
                ("--repeat", repeat),
                ("--threads", contest.threads),
            ] {
                command.arg(flag).arg(number.to_string());
            }
            let (stdout, peak) = with_peak_memory(command.args(more).args(&contest.ours_flags))?;
            Ok((last_object(&stdout)?, peak))
        };
        Ok(match self {
            Self::Prompt => {
                let (figures, peak) = bench(PROMPT, GENERATE, 2, &[])?;
                let (prefill, decode) = (number(&figures, "prefill_tps")?, number(&figures, "decode_tps")?);
                vec![(Figure::Prefill, prefill), (Figure::DecodeAfter, decode), (Figure::Peak, peak)]
            }
            Self::FromNothing => {
                let (figures, _) = bench(1, GENERATE, 2, &[])?;
                vec![(Figure::Decode, number(&figures, "decode_tps")?)]
            }
            Self::LongPrompt => {
                let (figures, peak) = bench(LONG, 1, 1, &[])?;
                vec![(Figure::LongPrefill, number(&figures, "prefill_tps")?), (Figure::LongPeak, peak)]
            }
            Self::Together => {
                let streams = STREAMS.to_string();
                let (figures, _) = bench(STUB, GENERATE, 2, &["--concurrency", &streams, "--num-prompts", &streams])?;
                vec![(Figure::Together, number(&figures, "generation_tps")?)]
            }
            Self::Served => bail!("a server is no bench"),
        })
    }

    fn theirs(self, contest: &Contest, model: &Path) -> Result<Figures> {
        let bench = |prompt: usize, generate: usize, more: &[&str]| -> Result<(f64, f64)> {
            let mut command = Command::new(&contest.llama.bench);
            command.arg("-m").arg(model).args(["-r", "1", "-o", "json"]);
            for (flag, number) in [("-p", prompt), ("-n", generate), ("-t", contest.threads)] {
                command.arg(flag).arg(number.to_string());
            }
            let (stdout, peak) = with_peak_memory(command.args(more))?;
            let tests: Value = serde_json::from_str(&stdout).context("llama-bench wrote something that is not JSON")?;
            Ok((number(&tests[0], "avg_ts")?, peak))
        };
        Ok(match self {
            Self::Prompt => {
                let (prefill, _) = bench(PROMPT, 0, &[])?;
                // It computes a prompt of that depth first, so the peak is that of both.
                let (decode, peak) = bench(0, GENERATE, &["-d", &PROMPT.to_string()])?;
                vec![(Figure::Prefill, prefill), (Figure::DecodeAfter, decode), (Figure::Peak, peak)]
            }
            Self::FromNothing => vec![(Figure::Decode, bench(0, GENERATE, &[])?.0)],
            Self::LongPrompt => {
                let (prefill, peak) = bench(LONG, 0, &["--no-warmup"])?;
                vec![(Figure::LongPrefill, prefill), (Figure::LongPeak, peak)]
            }
            Self::Together => {
                let mut command = Command::new(&contest.llama.batched_bench);
                command.arg("-m").arg(model).args(["--output-format", "jsonl"]);
                let context = STREAMS * (STUB + GENERATE).next_power_of_two();
                for (flag, number) in [
                    ("-c", context),
                    ("-npp", STUB),
                    ("-ntg", GENERATE),
                    ("-npl", STREAMS),
                    ("-t", contest.threads),
                    ("-tb", contest.threads),
                ] {
                    command.arg(flag).arg(number.to_string());
                }
                let figures = last_object(&with_peak_memory(&command)?.0)?;
                // As ours: the time of the prompts counts, their tokens don't.
                vec![(Figure::Together, (STREAMS * GENERATE) as f64 / number(&figures, "t")?)]
            }
            Self::Served => bail!("a server is no bench"),
        })
    }
}

/// Two waves of requests on a server that was just started.
fn served(side: Side, contest: &Contest, model: &Path, round: usize) -> Result<Figures> {
    let server = match side {
        Side::Ours => {
            let mut server = contender::ours(&contest.ours, model, contest.threads, STREAMS)?;
            server.args.extend(contest.ours_flags.iter().map(Into::into));
            server
        }
        Side::Theirs => peers::llama(&contest.llama.server, model, contest.threads, STREAMS, SERVED_CONTEXT),
    };
    let running = engine::start(&server, &[])?;
    let load = Load { binary: contest.ours.clone(), patience: 600.0 };
    let options = Options { prompt: ASKED, generate: ANSWERED, streams: STREAMS, requests: 2 * STREAMS, seed: round };
    let measured = load.run(&running, &server, &options)?;
    Ok(measured.map(|measured| (Figure::Served, measured.output_tps)).into_iter().collect())
}

/// The last line that is an object.
fn last_object(stdout: &str) -> Result<Value> {
    let line = stdout.lines().rev().find(|line| line.starts_with('{')).context("a benchmark wrote no JSON")?;
    serde_json::from_str(line).context("a benchmark wrote something that is not JSON")
}

fn number(figures: &Value, name: &str) -> Result<f64> {
    figures[name].as_f64().with_context(|| format!("a benchmark wrote no {name}, but {figures}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_the_programs_is_understood() {
        let ours = "loading\n{\"decode_tps\": 1.0}\n{\"decode_tps\": 150.25}\n";
        assert_eq!(number(&last_object(ours).unwrap(), "decode_tps").unwrap(), 150.25);
        assert!(number(&last_object(ours).unwrap(), "prefill_tps").unwrap_err().to_string().contains("prefill_tps"));
        assert!(last_object("no model").is_err());
    }
}
