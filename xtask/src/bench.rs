//! Measurements against peers, alternating in one run, so that both see the same machine.

mod bandwidth;
pub mod engine;
mod llama_cpp;
mod measure;
mod serve;
mod server;
pub mod soak;

use anyhow::{Result, bail};
use clap::Args;

use crate::{command, demo, models, setup};
use measure::{Run, median};

#[derive(Args)]
pub struct CpuArgs {
    /// Rounds, each of both programs
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, default_value_t = 64)]
    generate: usize,
    /// Threads of both programs [default: the machine's cores]
    #[arg(long)]
    threads: Option<usize>,
}

/// SmolLM2 4-bit: ours and llama.cpp's prefill, decode and memory, and what the memory's speed allows.
pub fn cpu(args: &CpuArgs) -> Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    let llama_bench = llama_cpp::ready()?.bench;
    command::run(command::cargo().args(["build", "--release", "--package", "vllm-api", "--bin", "vllm-mlx"]))?;
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));

    let read = bandwidth::read(threads);
    let (mut ours, mut theirs) = (vec![], vec![]);
    for round in 1..=args.rounds {
        eprintln!("round {round} of {}", args.rounds);
        // Who goes first changes, so that neither always finds the warmer or the cooler machine.
        for who in [round % 2, (round + 1) % 2] {
            if who == 1 {
                ours.push(measure::ours(&demo::release_binary(), &model, args.prompt_tokens, args.generate, threads)?);
            } else {
                theirs.push(llama_cpp::measure(&llama_bench, &model, args.prompt_tokens, args.generate, threads)?);
            }
        }
    }
    let bytes = model.metadata()?.len();
    println!("{}", table(args, threads, &ours, &theirs, read, bytes));
    Ok(())
}

#[derive(Args)]
pub struct ServeArgs {
    /// Starts to measure
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Threads of the server [default: the machine's cores]
    #[arg(long)]
    threads: Option<usize>,
}

/// SmolLM2 4-bit: how soon a server answers.
pub fn serve(args: &ServeArgs) -> Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    command::run(command::cargo().args(["build", "--release", "--package", "vllm-api", "--bin", "vllm-mlx"]))?;
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let starts: Vec<_> =
        (0..args.rounds).map(|_| serve::measure(&demo::release_binary(), &model, threads)).collect::<Result<_>>()?;
    let row = |what: &str, of: fn(&serve::Start) -> f64| format!("| {what} | {:.0} |\n", median(starts.iter().map(of)));
    println!(
        "SmolLM2-135M Q4_1, {threads} threads, medians of {}\n\n| | ms |\n|---|---|\n{}{}{}",
        starts.len(),
        row("start to /health's first answer", |start| start.health),
        row("start to ready", |start| start.ready),
        row("first token of a 20-token prompt", |start| start.first_token),
    );
    Ok(())
}

fn table(args: &CpuArgs, threads: usize, ours: &[Run], theirs: &[Run], read: f64, model_bytes: u64) -> String {
    let row = |what: &str, of: fn(&Run) -> f64, digits: usize| {
        let (a, b) = (median(ours.iter().map(of)), median(theirs.iter().map(of)));
        format!("| {what} | {a:.digits$} | {b:.digits$} | {:.2} |\n", a / b)
    };
    // Each generated token reads every weight once.
    let limit = read / model_bytes as f64;
    let decode = median(ours.iter().map(|run| run.decode));
    format!(
        "SmolLM2-135M Q4_1, prompt {}, generate {}, {threads} threads, medians of {}\n\n\
         | | vllm-mlx | llama.cpp | ratio |\n|---|---|---|---|\n{}{}{}\n\
         Memory reads at {:.1} GB/s: at most {limit:.0} tok/s of decode by its {:.1} MB of weights; vllm-mlx reaches {:.0} %.\n",
        args.prompt_tokens,
        args.generate,
        ours.len(),
        row("prefill, tok/s", |run| run.prefill, 1),
        row("decode, tok/s", |run| run.decode, 1),
        row("peak memory, MB", |run| run.peak_bytes / 1e6, 0),
        read / 1e9,
        model_bytes as f64 / 1e6,
        100.0 * decode / limit,
    )
}
