//! `cargo xtask bench serve`: how soon a server answers: `/health` after its start, and the first token of a short prompt once it is ready.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Result, bail};
use clap::Args;

use super::{
    measure::median,
    server::{Server, free_port},
};
use crate::{models, setup};

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
pub fn run(args: &ServeArgs) -> Result<()> {
    if args.rounds == 0 {
        bail!("--rounds must be at least 1");
    }
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    let binary = super::release_build()?;
    let threads = super::threads(args.threads);
    let starts: Vec<_> = (0..args.rounds).map(|_| measure(&binary, &model, threads)).collect::<Result<_>>()?;
    let row = |what: &str, of: fn(&Start) -> f64| format!("| {what} | {:.0} |\n", median(starts.iter().map(of)));
    println!(
        "SmolLM2-135M Q4_1, {threads} threads, medians of {}\n\n| | ms |\n|---|---|\n{}{}{}",
        starts.len(),
        row("start to /health's first answer", |start| start.health),
        row("start to ready", |start| start.ready),
        row("first token of a 20-token prompt", |start| start.first_token),
    );
    Ok(())
}

/// What one start showed, in milliseconds.
struct Start {
    /// From the process's start to the first answer of `/health`, whatever it says.
    health: f64,
    /// From the process's start to `/health` saying that the model is ready.
    ready: f64,
    /// From sending a prompt of 20 tokens to the first token's event.
    first_token: f64,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts `vllm-mlx serve` on `model`, asks it, and stops it.
fn measure(binary: &Path, model: &Path, threads: usize) -> Result<Start> {
    let port = free_port()?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg(model)
        .args(["--port", &port.to_string(), "--threads", &threads.to_string(), "--device", "cpu"])
        .args(["--served-model-name", "model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = Server::start(&mut command, port)?;
    let health = server.wait(PATIENCE, |server| server.health().is_some())?;
    let ready = server.wait(PATIENCE, |server| server.health() == Some(200))?;
    let prompt: Vec<u32> = (1000..1020).collect();
    Ok(Start { health, ready, first_token: server.first_token("model", &prompt, 4)? })
}
