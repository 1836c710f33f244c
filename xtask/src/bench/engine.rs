//! `cargo xtask bench engine`: many requests at once, repeated prompts, short prompts behind long ones; ours beside its peers.
//!
//! One server at a time on the same cores, all in each round, so that all see the same machine. The load is that of
//! `vllm-mlx bench-serve`, which runs on those cores, too.

pub mod contender;
pub mod load;
pub mod peers;
mod table;

use std::{fs, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use super::server::{Server, free_port};
use crate::{disk, models, paths, setup};
use contender::Contender;
use load::Load;
use table::Figures;

#[derive(Args)]
pub struct EngineArgs {
    /// Rounds, each of all servers
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Threads of every server [default: the machine's cores]
    #[arg(long)]
    threads: Option<usize>,
    /// What to measure
    #[arg(long, value_enum, value_delimiter = ',', default_value = "decode,repeated,behind")]
    figures: Vec<Figure>,
    /// Beside what: llama.cpp's server, mlx-lm's, vllm-mlx 0.6.0's; the latter two as installed and with OpenBLAS. Prepared under
    /// target/peers if need be
    #[arg(long, value_enum, value_delimiter = ',', default_value = "llama")]
    peers: Vec<peers::Peer>,
    /// Measure no peers
    #[arg(long, conflicts_with = "peers")]
    alone: bool,
    /// Streams at once
    #[arg(long, value_delimiter = ',', default_value = "1,4,8,16")]
    streams: Vec<usize>,
    /// Tokens of each stream
    #[arg(long, default_value_t = 128)]
    generate: usize,
    /// Tokens of each stream of the servers on MLX's own CPU kernels, which are slow
    #[arg(long, default_value_t = 16)]
    slow_generate: usize,
    /// Tokens of the prompt that is repeated
    #[arg(long, default_value_t = 1000)]
    repeated_tokens: usize,
    /// Seconds after which a request is given up
    #[arg(long, default_value_t = 300.0)]
    patience: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Figure {
    /// Output tokens a second of 1, 4, 8, 16 streams
    Decode,
    /// Time to the first token of a prompt: first time, again, after a restart
    Repeated,
    /// Time to the first token of a short prompt behind a long one
    Behind,
}

/// Until a server has loaded a model. Python takes long on a busy machine.
const START: Duration = Duration::from_secs(180);
/// Until a server has written down what it wants to keep.
const STOP: Duration = Duration::from_secs(30);
/// Tokens of a prompt that is there only to be answered.
const SHORT: usize = 32;
/// Tokens of a prompt that others have to wait behind.
const LONG: usize = 4000;
/// Milliseconds that they come later.
const BEHIND: Duration = Duration::from_millis(100);
/// Requests of each kind a round, of the servers that are fast enough.
const SAMPLES: usize = 3;

/// Measures and prints tables.
pub fn run(args: &EngineArgs) -> Result<()> {
    if args.rounds == 0 || args.streams.contains(&0) {
        bail!("--rounds and --streams must be at least 1");
    }
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    let binary = super::release_build()?;
    let threads = super::threads(args.threads);
    let most = args.streams.iter().copied().max().unwrap_or(1);
    let ours = contender::ours(&binary, &model, threads, most)?;
    let mut all = vec![ours.clone()];
    if !args.alone {
        all.extend(peers::ready(&args.peers, &model, threads, most)?);
    }
    let load = Load { binary, patience: args.patience };
    let names: Vec<String> = all.iter().map(|contender| contender.name.clone()).collect();
    let (mut decode, mut repeated) = (Figures::new(names.clone()), Figures::new(names));
    let mut behind = Figures::new(vec!["chunked".into(), "in one step".into()]);

    for round in 0..args.rounds {
        // Who goes first changes, so that nobody always finds the warmer or the cooler machine.
        for index in (0..all.len()).map(|place| (place + round) % all.len()) {
            let contender = &all[index];
            eprintln!("round {} of {}: {}", round + 1, args.rounds, contender.name);
            if args.figures.contains(&Figure::Decode) {
                let measured =
                    measure_decode(args, &load, contender, round, |row, value| decode.add(index, row, value));
                tolerate(index > 0, measured)?;
            }
            if args.figures.contains(&Figure::Repeated) {
                let measured =
                    measure_repeated(args, &load, contender, round, |row, value| repeated.add(index, row, value));
                tolerate(index > 0, measured)?;
            }
        }
        if args.figures.contains(&Figure::Behind) {
            for place in [round % 2, (round + 1) % 2] {
                let contender = if place == 0 { ours.clone() } else { ours.with_one_step_prompts() };
                eprintln!(
                    "round {} of {}: a short prompt behind a long one, {}",
                    round + 1,
                    args.rounds,
                    behind.names[place]
                );
                measure_behind(&contender, round, |value| behind.add(place, "TTFT p50, ms", Some(value)))?;
            }
        }
    }

    println!("SmolLM2-135M Q4_1, {threads} threads, medians of {} rounds\n", args.rounds);
    if args.figures.contains(&Figure::Decode) {
        let slow = if all.iter().any(|contender| contender.slow) {
            format!(" (servers on MLX's CPU kernels: {}, each stream once)", args.slow_generate)
        } else {
            String::new()
        };
        println!(
            "Output tok/s; prompts of ~{SHORT} tokens, {} generated{slow}\n\n{}",
            args.generate,
            decode.table(true)
        );
    }
    if args.figures.contains(&Figure::Repeated) {
        println!("TTFT of a prompt of ~{} tokens, ms\n\n{}", args.repeated_tokens, repeated.table(false));
    }
    if args.figures.contains(&Figure::Behind) {
        println!("{SHORT} tokens {BEHIND:?} behind {LONG}\n\n{}", behind.table(false));
    }
    Ok(())
}

/// Starts a contender and waits until it is ready. What it says is kept under `target/bench`.
pub fn start(contender: &Contender, more: &[&str]) -> Result<Server> {
    let port = free_port()?;
    let folder = paths::target().join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let path = folder.join(format!("{}.log", contender.name.replace(' ', "-")));
    let log = fs::File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = contender.command(port);
    let mut server = Server::start(command.args(more).stdout(log.try_clone()?).stderr(log), port)?;
    let ready = server.wait(START, |server| server.health() == Some(200));
    ready.with_context(|| format!("{}; see {}", contender.name, path.display()))?;
    Ok(server)
}

/// A peer that doesn't run leaves gaps in the tables; ours is what this is about.
fn tolerate(peer: bool, result: Result<()>) -> Result<()> {
    match result {
        Err(error) if peer => {
            eprintln!("{error:#}");
            Ok(())
        }
        other => other,
    }
}

/// Output tokens a second for each number of streams. `add` takes a row's name and its figure, or `None` if the server gave none.
fn measure_decode(
    args: &EngineArgs,
    load: &Load,
    contender: &Contender,
    round: usize,
    mut add: impl FnMut(&str, Option<f64>),
) -> Result<()> {
    let server = start(contender, &[])?;
    let (tokens, waves) = if contender.slow { (args.slow_generate, 1) } else { (args.generate, 2) };
    let mut single = None;
    for (level, &streams) in args.streams.iter().enumerate() {
        // Other prompts each time: nothing here is about caches.
        let seed = round * args.streams.len() + level;
        let options = load::Options { prompt: SHORT, generate: tokens, streams, requests: waves * streams, seed };
        let measured = load.run(&server, contender, &options)?;
        let speed = measured.as_ref().map(|measured| measured.output_tps);
        add(&format!("{streams} at once"), speed);
        if streams == 1 {
            single = speed;
        } else {
            add(&format!("{streams} at once, of one alone"), speed.zip(single).map(|(many, one)| many / one));
        }
    }
    Ok(())
}

/// Milliseconds to the first token of prompts seen for the first time, again, and, if it has a tier for that, after a restart.
fn measure_repeated(
    args: &EngineArgs,
    load: &Load,
    contender: &Contender,
    round: usize,
    mut add: impl FnMut(&str, Option<f64>),
) -> Result<()> {
    let folder = paths::target().join("bench").join(format!("ssd.{}", std::process::id()));
    disk::remove(&folder)?;
    let path = folder.to_string_lossy().into_owned();
    let flags: Vec<&str> = if contender.has_ssd { vec!["--ssd-cache-dir", &path] } else { vec![] };
    let requests = if contender.slow { 1 } else { SAMPLES };
    // The same seed each time: the same prompts.
    let options = load::Options { prompt: args.repeated_tokens, generate: 4, streams: 1, requests, seed: 1000 + round };
    let ttft = |server: &Server| -> Result<Option<f64>> {
        Ok(load.run(server, contender, &options)?.map(|measured| measured.ttft_ms))
    };
    let share = |part: Option<f64>, whole: Option<f64>| part.zip(whole).map(|(part, whole)| part / whole);

    let server = start(contender, &flags)?;
    let cold = ttft(&server)?;
    add("first time", cold);
    let hot = ttft(&server)?;
    add("again", hot);
    add("again, of the first time", share(hot, cold));
    if contender.has_ssd {
        server.stop(STOP)?;
        let server = start(contender, &flags)?;
        let stored = ttft(&server)?;
        add("after a restart", stored);
        add("after a restart, of the first time", share(stored, cold));
    }
    disk::remove(&folder)
}

/// Milliseconds to the first token of a short prompt that comes while a long one is computed.
fn measure_behind(contender: &Contender, round: usize, mut add: impl FnMut(f64)) -> Result<()> {
    let server = start(contender, &[])?;
    // Warms up.
    server.first_token(&contender.model, &prompt(0, SHORT), 4)?;
    for sample in 0..SAMPLES {
        let number = 1 + 2 * (round * SAMPLES + sample);
        let (long, short) = (prompt(number, LONG), prompt(number + 1, SHORT));
        let ttft = std::thread::scope(|scope| -> Result<f64> {
            let ahead = scope.spawn(|| server.first_token(&contender.model, &long, 1));
            std::thread::sleep(BEHIND);
            let ttft = server.first_token(&contender.model, &short, 4)?;
            match ahead.join() {
                Ok(done) => done.map(|_| ttft),
                Err(_) => bail!("the thread that sent the long prompt panicked"),
            }
        })?;
        add(ttft);
    }
    Ok(())
}

/// Tokens that differ from those of every other number from the first on.
fn prompt(number: usize, len: usize) -> Vec<u32> {
    // Of SmolLM2's 49152 tokens, those above the special ones.
    (0..len).map(|i| (100 + (i * 7919 + number * 104_729) % 49_000) as u32).collect()
}
