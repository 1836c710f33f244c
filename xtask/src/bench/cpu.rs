//! `cargo xtask bench cpu`: prefill, decode, sixteen sequences at once and memory, alternating with llama.cpp on the same files.
//!
//! Ours and theirs take turns at every piece of work, so that both see the same machine, and the machine's limits are measured in the
//! same run. What other programs used of the processor meanwhile is counted: figures of a busy machine say so.

mod ceilings;
mod figure;
mod model;
mod report;
mod work;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use clap::Args;

use super::{llama_cpp, others};
use crate::{models, setup};
use ceilings::Ceilings;
use model::Model;
use report::{Samples, Side};
use work::{Contest, Work};

#[derive(Args)]
pub struct CpuArgs {
    /// Which models
    #[arg(long, value_delimiter = ',', default_value = "smollm2,qwen3-0.6b-q4_0,qwen3-0.6b-q4_1,qwen3-0.6b-q8_0")]
    models: Vec<String>,
    /// Rounds, each of both programs
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Rounds of what takes long: 4,096 tokens, sixteen at once
    #[arg(long, default_value_t = 3)]
    long_rounds: usize,
    /// One round, and nothing that takes long: whether it runs, not how fast
    #[arg(long)]
    quick: bool,
    /// Servers over HTTP for the models of random weights, too
    #[arg(long)]
    serve_all: bool,
    /// Threads of both programs [default: the machine's cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Measure this vllm-mlx, in place of one built from here
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// More flags of `vllm-mlx bench` and `serve`, separated by spaces
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    ours_flags: String,
    /// Before each run, wait until the other programs leave the processor alone, but no longer than this
    #[arg(long, value_name = "SECONDS", default_value_t = 0)]
    wait: u64,
}

/// Measures and prints a table for each model. All samples are kept in `target/bench/cpu.json`.
pub fn run(args: &CpuArgs) -> Result<()> {
    if args.rounds == 0 || args.long_rounds == 0 {
        bail!("--rounds and --long-rounds must be at least 1");
    }
    let chosen: Vec<&Model> = args.models.iter().map(|name| Model::named(name)).collect::<Result<_>>()?;
    setup::run(None)?;
    let contest = Contest {
        ours: args.ours.clone().map_or_else(super::release_build, Ok)?,
        ours_flags: args.ours_flags.split_whitespace().map(str::to_owned).collect(),
        llama: llama_cpp::ready()?,
        threads: super::threads(args.threads),
    };
    let paths: Vec<PathBuf> = chosen.iter().map(|model| models::fetch(model.name, None)).collect::<Result<_>>()?;

    let started = Instant::now();
    let mut samples = Samples::default();
    let mut limits: Option<Ceilings> = None;
    for (model, path) in chosen.iter().zip(&paths) {
        others::wait_for_quiet(Duration::from_secs(args.wait));
        let again = Ceilings::measure(contest.threads)?;
        limits = Some(limits.map_or(again, |limits| limits.best(again)));
        for round in 0..args.rounds.max(args.long_rounds) {
            for work in Work::of(model, args.quick, args.serve_all) {
                let rounds = if args.quick {
                    1
                } else if work.is_long() {
                    args.long_rounds
                } else {
                    args.rounds
                };
                if round >= rounds {
                    continue;
                }
                // Who goes first changes, so that neither always finds the warmer or the cooler machine.
                let sides = if round % 2 == 0 { [Side::Ours, Side::Theirs] } else { [Side::Theirs, Side::Ours] };
                for side in sides {
                    others::wait_for_quiet(Duration::from_secs(args.wait));
                    let (figures, taken) = others::beside(|| work.run(side, &contest, path, round))?;
                    eprintln!(
                        "{}, round {} of {rounds}, {side}: {}{}",
                        model.name,
                        round + 1,
                        figures.iter().map(|(figure, value)| figure.shown(*value)).collect::<Vec<_>>().join(", "),
                        taken.map_or(String::new(), |taken| format!(" (others {:.0} %)", 100.0 * taken)),
                    );
                    samples.add(model, side, &figures, taken);
                }
            }
        }
    }
    let Some(limits) = limits else { bail!("--models names none") };
    println!("{}", samples.report(&chosen, contest.threads, limits, started.elapsed()));
    samples.save(limits)
}
