//! Mixed load for minutes, with clients that go away: what the server holds at its end is what it held at its start.

use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use super::server::{Server, free_port};
use crate::{models, setup};

#[derive(Args)]
pub struct SoakArgs {
    /// Minutes of load; the first tenth is not counted
    #[arg(long, default_value_t = 10.0)]
    minutes: f64,
}

/// Storage for the KV of some ten sequences: preemption and eviction have work from the first minute on.
const KV_MEMORY: &str = "96M";

/// SmolLM2 4-bit under mixed load. Fails if a block is still held at the end or memory has grown.
pub fn soak(args: &SoakArgs) -> Result<()> {
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    let binary = super::release_build()?;
    let folder = std::env::temp_dir().join(format!("vllm-mlx-soak-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let result = run(args, &binary, &model, &folder);
    fs::remove_dir_all(&folder)?;
    result
}

fn run(args: &SoakArgs, binary: &Path, model: &Path, folder: &Path) -> Result<()> {
    let port = free_port()?;
    let mut serve = Command::new(binary);
    serve.arg("serve").arg(model).args(["--served-model-name", "m", "--kv-cache-memory", KV_MEMORY]);
    serve.args(["--port", &port.to_string(), "--log-level", "error"]).arg("--ssd-cache-dir").arg(folder);
    serve.args(["--ssd-cache-max-gb", "0.2"]).stderr(Stdio::inherit());
    let mut server = Server::start(&mut serve, port)?;
    server.wait(Duration::from_secs(60), |server| server.health() == Some(200))?;

    let length = Duration::from_secs_f64(60.0 * args.minutes);
    let start = Instant::now();
    let over = AtomicBool::new(false);
    let left = AtomicU64::new(0);
    let baseline = thread::scope(|scope| -> Result<u64> {
        scope.spawn(|| leave_again_and_again(port, &over, &left));
        let mut baseline = None;
        let mut round = 0_u64;
        while start.elapsed() < length {
            let load = load(binary, port, round);
            if load.is_err() {
                over.store(true, Relaxed);
            }
            load?;
            round += 1;
            let resident = server.resident_bytes()?;
            if baseline.is_none() && start.elapsed() > length / 10 {
                baseline = Some(resident);
            }
            eprintln!(
                "{:.1} of {} minutes, {} clients gone: {} MB",
                start.elapsed().as_secs_f64() / 60.0,
                args.minutes,
                left.load(Relaxed),
                resident / 1_000_000
            );
        }
        over.store(true, Relaxed);
        baseline.context("--minutes leaves no time for a second round")
    })?;

    thread::sleep(Duration::from_secs(2));
    let metrics = get(port, "/metrics")?;
    let value = |name: &str| -> Result<f64> {
        let line = metrics.lines().find(|line| line.starts_with(name)).with_context(|| format!("no {name}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    };
    let running = value("vllm:num_requests_running")?;
    let waiting = value("vllm:num_requests_waiting")?;
    let usage = value("vllm:kv_cache_usage_perc")?;
    let end = server.resident_bytes()?;
    println!(
        "{} minutes, {} clients went away: running {running}, waiting {waiting}, KV blocks held {usage}, preemptions {}, \
         prefix hits {} of {} tokens; {} MB resident after a tenth of the time, {} MB at the end",
        args.minutes,
        left.load(Relaxed),
        value("vllm:num_preemptions_total")?,
        value("vllm:prefix_cache_hits_total")?,
        value("vllm:prefix_cache_queries_total")?,
        baseline / 1_000_000,
        end / 1_000_000,
    );
    ensure!(running + waiting + usage == 0.0, "something is still held");
    ensure!(end < baseline + baseline / 10, "memory has grown by more than a tenth");
    server.stop(Duration::from_secs(20))
}

/// A few seconds of one kind of load after another.
fn load(binary: &Path, port: u16, round: u64) -> Result<()> {
    let url = format!("http://127.0.0.1:{port}");
    let kinds: [&[&str]; 4] = [
        &["--workload", "random", "--prompt-tokens", "200", "--concurrency", "24", "--num-requests", "48"],
        &["--workload", "shared-prefix", "--prompt-tokens", "300", "--concurrency", "16", "--num-requests", "48"],
        &["--workload", "multi-turn", "--prompt-tokens", "60", "--concurrency", "8", "--num-requests", "24"],
        &["--workload", "random", "--prompt-tokens", "30", "--request-rate", "8", "--num-requests", "40"],
    ];
    let output = Command::new(binary)
        .args(["bench-serve", "--url", &url, "--model", "m", "--max-tokens", "48", "--format", "json"])
        .args(["--seed", &round.to_string(), "--warmup", "0"])
        .args(kinds[usize::try_from(round).unwrap_or(0) % kinds.len()])
        .stderr(Stdio::null())
        .output()
        .context("cannot run bench-serve")?;
    if !output.status.success() {
        bail!("bench-serve failed: {}", String::from_utf8_lossy(&output.stdout));
    }
    let report: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let levels = report["levels"].as_array().context("bench-serve gave no levels")?;
    for level in levels {
        let failed = level["errors"].as_object().is_some_and(|errors| !errors.is_empty());
        ensure!(!failed, "requests failed: {}", level["errors"]);
    }
    Ok(())
}

/// Clients that ask for a long answer and hang up after a moment.
fn leave_again_and_again(port: u16, over: &AtomicBool, left: &AtomicU64) {
    while !over.load(Relaxed) {
        let count = left.fetch_add(1, Relaxed);
        let prompt = format!("Story number {} begins: ", count % 7).repeat(1 + count as usize % 9);
        let body = serde_json::json!({
            "model": "m", "prompt": prompt, "max_tokens": 500, "ignore_eos": true, "stream": true,
        });
        if let Ok(mut socket) = post(port, "/v1/completions", &body.to_string()) {
            // Some leave before the first token, some in the midst of the answer.
            let _ = socket.set_read_timeout(Some(Duration::from_millis(40 + 90 * (count % 8))));
            let mut buffer = [0; 4096];
            let until = Instant::now() + Duration::from_millis(700);
            while Instant::now() < until && socket.read(&mut buffer).is_ok_and(|read| read > 0) {}
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn post(port: u16, path: &str, body: &str) -> Result<TcpStream> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    let length = body.len();
    write!(
        socket,
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    Ok(socket)
}

fn get(port: u16, path: &str) -> Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}
