//! `vllm-mlx bench-serve`, for its figures.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};
use serde_json::Value;

use super::{Server, contender::Contender};
use crate::command;

/// The program that makes the load.
pub struct Load {
    pub binary: PathBuf,
    /// Seconds after which a request is given up.
    pub patience: f64,
}

/// What to ask.
pub struct Options {
    /// Tokens of each prompt, about.
    pub prompt: usize,
    /// Tokens of each answer.
    pub generate: usize,
    pub streams: usize,
    pub requests: usize,
    pub seed: usize,
}

/// What it came to.
#[derive(Debug, PartialEq)]
pub struct Measured {
    pub output_tps: f64,
    /// The median.
    pub ttft_ms: f64,
}

impl Load {
    /// Runs it. `None` if a request failed: the server is too slow, or something is wrong with it; which is said on stderr.
    pub fn run(&self, server: &Server, contender: &Contender, options: &Options) -> Result<Option<Measured>> {
        let mut command = Command::new(&self.binary);
        command.args(["bench-serve", "--format", "json", "--endpoint", "completions", "--ignore-eos", "--warmup", "1"]);
        command.args(["--url", &format!("http://127.0.0.1:{}", server.port), "--model", &contender.model]);
        let numbers = [
            ("--prompt-tokens", options.prompt),
            ("--max-tokens", options.generate),
            ("--concurrency", options.streams),
            ("--num-requests", options.requests),
            ("--seed", options.seed),
        ];
        for (flag, number) in numbers {
            command.arg(flag).arg(number.to_string());
        }
        command.args(["--request-timeout", &self.patience.to_string()]);
        match command::output(&mut command) {
            Ok(json) => {
                let measured = figures(&json)?;
                if let Err(why) = &measured {
                    eprintln!("{}: {why}", contender.name);
                }
                Ok(measured.ok())
            }
            Err(error) => {
                eprintln!("{}: {error:#}", contender.name);
                Ok(None)
            }
        }
    }
}

/// The figures of the one level of a report; inside, why there are none.
fn figures(report: &str) -> Result<Result<Measured, String>> {
    let report: Value = serde_json::from_str(report).context("bench-serve wrote something that is not JSON")?;
    let level = &report["levels"][0];
    if level["failed"].as_u64() != Some(0) {
        return Ok(Err(format!("requests failed: {}", level["errors"])));
    }
    let output_tps = level["output_tok_s"].as_f64().context("bench-serve wrote no output_tok_s")?;
    let ttft_ms = level["ttft_ms"]["p50"].as_f64().context("bench-serve wrote no ttft_ms")?;
    Ok(Ok(Measured { output_tps, ttft_ms }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_figures_or_says_what_failed() {
        let whole = r#"{"levels":[{"failed":0,"errors":{},"output_tok_s":120.5,"ttft_ms":{"p50":12.0}}]}"#;
        assert_eq!(figures(whole).unwrap(), Ok(Measured { output_tps: 120.5, ttft_ms: 12.0 }));
        let failed = r#"{"levels":[{"failed":1,"errors":{"timeout":{"count":1}},"output_tok_s":1.0}]}"#;
        assert!(figures(failed).unwrap().unwrap_err().contains("timeout"));
        assert!(figures(r#"{"levels":[{"failed":0}]}"#).is_err());
        assert!(figures("no").is_err());
    }
}
