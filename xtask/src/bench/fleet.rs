//! `cargo xtask bench fleet`: what a worker adds to its engine, and what a second worker behind SMG adds to the first.
//!
//! Workers are `crates/api/examples/fake_worker.rs`: the whole server over the fake runner, whose steps sleep as long as a model
//! would compute, so that cores are free for what is measured.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, ValueEnum};
use serde_json::Value;

use super::{
    measure::median,
    server::{Server, free_port},
};
use crate::{command, paths, setup, test};

#[derive(Args)]
pub struct FleetArgs {
    /// Rounds of each measurement; everything takes its turn in each
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Milliseconds of a worker's step
    #[arg(long, default_value_t = 10.0)]
    step_ms: f64,
    /// Requests that a worker computes at once; four times as many clients ask
    #[arg(long, default_value_t = 16)]
    streams: usize,
    /// Requests of a round
    #[arg(long, default_value_t = 384)]
    requests: usize,
    /// How SMG speaks with its workers
    #[arg(long, default_value = "grpc")]
    wire: Wire,
    /// SMG's policy
    #[arg(long, default_value = "cache_aware")]
    policy: String,
    /// Cargo's profile
    #[arg(long, default_value = "release")]
    profile: String,
    /// Only `overhead` or `throughput`
    #[arg(long)]
    only: Option<Part>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Wire {
    Http,
    Grpc,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Part {
    Overhead,
    Throughput,
}

/// Tokens of an answer.
const TOKENS: usize = 64;
const PATIENCE: Duration = Duration::from_secs(60);

/// Measures and prints tables in Markdown.
pub fn run(args: &FleetArgs) -> Result<()> {
    ensure!(
        args.rounds > 0 && args.streams > 0 && args.requests > 0,
        "--rounds, --streams and --requests must be at least 1"
    );
    setup::run(None)?;
    let smg = test::python()?.with_file_name("smg");
    let built = Built::make(&args.profile)?;
    if args.only != Some(Part::Throughput) {
        println!("{}", overhead(&built, args)?);
    }
    if args.only != Some(Part::Overhead) {
        println!("{}", throughput(&built, &smg, args)?);
    }
    Ok(())
}

/// The programs that take part.
struct Built {
    vllm_mlx: PathBuf,
    worker: PathBuf,
    overhead: PathBuf,
}

impl Built {
    fn make(profile: &str) -> Result<Self> {
        let mut build = command::cargo();
        build.args(["build", "--profile", profile, "--package", "vllm-api", "--bin", "vllm-mlx"]);
        command::run(build.args(["--example", "fake_worker", "--example", "overhead"]))?;
        let folder = paths::cargo_target().join(if profile == "dev" { "debug" } else { profile });
        let example = |name: &str| folder.join("examples").join(name);
        Ok(Self { vllm_mlx: folder.join("vllm-mlx"), worker: example("fake_worker"), overhead: example("overhead") })
    }
}

/// Microseconds of CPU that a token costs, by the way that it is asked for.
fn overhead(built: &Built, args: &FleetArgs) -> Result<String> {
    let mut program = Command::new(&built.overhead);
    program.args(["16", "500"]).arg(args.rounds.to_string());
    let told = command::output(&mut program)?;
    let of = |way: &str| median(costs(&told, way).into_iter());
    let (engine, http, grpc) = (of("engine"), of("http"), of("grpc"));
    ensure!(engine.is_finite() && http.is_finite() && grpc.is_finite(), "no figures in:\n{told}");
    Ok(format!(
        "CPU time a token without the runner's own, 16 streams of 500 tokens, medians of {}\n\n\
         | asked through | µs | beyond the engine's |\n|---|---|---|\n\
         | the engine itself | {engine:.1} | |\n\
         | HTTP, server-sent events | {http:.1} | {:.1} |\n\
         | gRPC, `vllm.Inference` | {grpc:.1} | {:.1} |\n",
        args.rounds,
        http - engine,
        grpc - engine,
    ))
}

/// The figures of one way among the lines of the example.
fn costs(told: &str, way: &str) -> Vec<f64> {
    let lines = told.lines().filter_map(|line| line.strip_prefix(way)?.strip_prefix(": "));
    lines.filter_map(|line| line.split(' ').next()?.parse().ok()).collect()
}

/// Tokens a second of one worker asked directly, of one behind SMG, and of two.
fn throughput(built: &Built, smg: &Path, args: &FleetArgs) -> Result<String> {
    let workers = [Worker::start(built, args)?, Worker::start(built, args)?];
    let urls = workers.each_ref().map(|worker| match args.wire {
        Wire::Http => format!("http://127.0.0.1:{}", worker.server.port),
        Wire::Grpc => format!("grpc://127.0.0.1:{}", worker.grpc),
    });
    let one = gateway(smg, &urls[..1], &args.policy)?;
    let two = gateway(smg, &urls, &args.policy)?;
    let asked =
        [("one worker, asked directly", &workers[0].server), ("one behind SMG", &one), ("two behind SMG", &two)];
    let mut speeds = vec![Vec::new(); asked.len()];
    // The first round is for warmth.
    for round in 0..=args.rounds {
        for turn in 0..asked.len() {
            let which = (round + turn) % asked.len();
            let speed = load(built, asked[which].1, round * asked.len() + turn, args)
                .with_context(|| asked[which].0.to_owned())?;
            if round > 0 {
                eprintln!("round {round}: {}: {speed:.0} tokens/s", asked[which].0);
                speeds[which].push(speed);
            }
        }
    }
    let medians: Vec<f64> = speeds.iter().map(|speeds| median(speeds.iter().copied())).collect();
    let wire = match args.wire {
        Wire::Http => "HTTP",
        Wire::Grpc => "gRPC",
    };
    let mut table = format!(
        "Tokens a second, steps of {} ms with at most {} requests, {} clients, SMG over {wire} with `{}`, medians of {}\n\n\
         | | tokens/s | of one behind SMG |\n|---|---|---|\n",
        args.step_ms,
        args.streams,
        4 * args.streams,
        args.policy,
        args.rounds,
    );
    for ((name, _), speed) in asked.iter().zip(&medians) {
        table.push_str(&format!("| {name} | {speed:.0} | {:.2}× |\n", speed / medians[1]));
    }
    Ok(table)
}

/// A running fake.
struct Worker {
    server: Server,
    /// Its gRPC port.
    grpc: u16,
}

impl Worker {
    fn start(built: &Built, args: &FleetArgs) -> Result<Self> {
        let (http, grpc) = (free_port()?, free_port()?);
        let mut command = Command::new(&built.worker);
        command.args([http.to_string(), grpc.to_string(), args.step_ms.to_string(), args.streams.to_string()]);
        command.arg("4096").stdout(Stdio::null());
        let mut server = Server::start(&mut command, http)?;
        server.wait(PATIENCE, |server| server.health() == Some(200))?;
        Ok(Self { server, grpc })
    }
}

/// SMG in front of these workers, once it knows all of them.
fn gateway(smg: &Path, workers: &[String], policy: &str) -> Result<Server> {
    let (port, metrics) = (free_port()?, free_port()?);
    let mut command = Command::new(smg);
    command.args(["launch", "--host", "127.0.0.1", "--port", &port.to_string(), "--log-level", "warn"]);
    command.args(["--prometheus-host", "127.0.0.1", "--prometheus-port", &metrics.to_string()]);
    command.args(["--policy", policy, "--worker-startup-check-interval", "1", "--worker-urls"]).args(workers);
    command.stdout(Stdio::null());
    let mut server = Server::start(&mut command, port)?;
    server.wait(PATIENCE, |server| known(server) == Some(workers.len()))?;
    Ok(server)
}

/// How many healthy workers a gateway lists.
fn known(gateway: &Server) -> Option<usize> {
    let (_, body) = gateway.get("/workers")?;
    let body: Value = serde_json::from_str(&body).ok()?;
    Some(body["workers"].as_array()?.iter().filter(|worker| worker["is_healthy"] == true).count())
}

/// Tokens a second that the clients get, each waiting for its answer before it asks again.
fn load(built: &Built, server: &Server, seed: usize, args: &FleetArgs) -> Result<f64> {
    let mut command = Command::new(&built.vllm_mlx);
    command.args(["bench-serve", "--format", "json", "--endpoint", "chat", "--ignore-eos", "--warmup", "4"]);
    command.args(["--url", &format!("http://127.0.0.1:{}", server.port), "--model", "tiny", "--prompt-tokens", "16"]);
    let numbers = [
        ("--max-tokens", TOKENS),
        ("--concurrency", 4 * args.streams),
        ("--num-requests", args.requests),
        ("--seed", seed),
    ];
    for (flag, number) in numbers {
        command.arg(flag).arg(number.to_string());
    }
    speed(&command::output(&mut command)?)
}

/// The figure in a report of `bench-serve`.
fn speed(report: &str) -> Result<f64> {
    let report: Value = serde_json::from_str(report).context("bench-serve wrote something that is not JSON")?;
    let level = &report["levels"][0];
    if level["failed"].as_u64() != Some(0) {
        bail!("requests failed: {}", level["errors"]);
    }
    level["output_tok_s"].as_f64().context("bench-serve wrote no output_tok_s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_are_those_of_their_way() {
        let told = "engine: 3.25 µs of CPU a token (…)\nhttp: 12.50 µs …\nengine: 4.75 µs …\nhttp2: 9 µs\n";
        let cases = [("engine", vec![3.25, 4.75]), ("http", vec![12.5]), ("grpc", vec![])];
        for (way, wanted) in cases {
            assert_eq!(costs(told, way), wanted, "{way}");
        }
    }

    #[test]
    fn a_report_has_a_speed_or_says_what_failed() {
        assert_eq!(speed(r#"{"levels":[{"failed":0,"output_tok_s":120.5}]}"#).unwrap(), 120.5);
        let failed = r#"{"levels":[{"failed":1,"errors":{"timeout":{"count":1}},"output_tok_s":1.0}]}"#;
        assert!(speed(failed).unwrap_err().to_string().contains("timeout"));
        assert!(speed(r#"{"levels":[{"failed":0}]}"#).is_err());
    }
}
