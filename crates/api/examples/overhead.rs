//! CPU time that scheduler and API take for each token, on a runner that computes nothing.
//!
//! `cargo run --release -p vllm-api --example overhead [STREAMS] [TOKENS]` serves the fake runner on a socket, opens 16
//! streams of 500 tokens from a second process, and divides its own CPU time by the tokens. What the fake itself takes
//! (it hashes whole sequences) is measured on its thread and shown apart. Linux only: it reads `/proc`.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use vllm_api::{
    http::{App, HttpConfig},
    listener::{ConnectionLimits, Listener},
    model::{SamplingDefaults, ServedModel},
};
use vllm_platform::{
    BlockId, MemoryInfo, ModelInfo, ModelRunner, Result, StepOutput, StepPlan,
    testing::{FakeConfig, FakeRunner},
};
use vllm_scheduler::{Engine, EngineConfig};

#[path = "../tests/it/support/mod.rs"]
mod support;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default: usize| args.get(index).map_or(Ok(default), |arg| arg.parse());
    if args.first().is_some_and(|arg| arg == "client") {
        return client(&args[1], number(2, 16)?, number(3, 500)?);
    }
    let (streams, tokens) = (number(0, 16)?, number(1, 500)?);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let fake_ns = Arc::new(AtomicU64::new(0));
    let app = app(streams, tokens, Arc::clone(&fake_ns))?;
    let listener = runtime.block_on(Listener::bind("127.0.0.1", 0, None, ConnectionLimits::default()))?;
    let address = listener.address()?.to_string();
    runtime.spawn(listener.serve(app.router(), std::future::pending()));
    // The first round is for warmth.
    for round in 0..4 {
        let (cpu, fake, start) = (cpu_ns()?, fake_ns.load(Relaxed), Instant::now());
        let status = Command::new(env::current_exe()?)
            .args(["client", &address, &streams.to_string(), &tokens.to_string()])
            .status()?;
        anyhow::ensure!(status.success(), "the client failed");
        let all = (streams * tokens) as f64 * 1e3;
        let (cpu, fake) = ((cpu_ns()? - cpu) as f64 / all, (fake_ns.load(Relaxed) - fake) as f64 / all);
        println!(
            "round {round}: {:.1} µs of CPU a token (with the fake runner's own {fake:.1}: {cpu:.1}), {:.0} tokens/s",
            cpu - fake,
            all / 1e3 / start.elapsed().as_secs_f64(),
        );
    }
    Ok(())
}

fn app(streams: usize, tokens: usize, ns: Arc<AtomicU64>) -> anyhow::Result<App> {
    let fake = FakeConfig {
        vocab_size: 258,
        context_length: tokens + 64,
        block_size: 16,
        num_blocks: streams * (tokens / 16 + 8),
        script: b"words and more ".iter().map(|&byte| u32::from(byte)).collect(),
        ..FakeConfig::default()
    };
    let make = move || Ok(Box::new(Timed { fake: FakeRunner::new(fake), ns }) as Box<_>);
    let config = EngineConfig { max_num_seqs: streams, max_num_batched_tokens: 256.max(streams), ..Default::default() };
    let engine = Engine::start(make, config)?;
    let sampling = SamplingDefaults { temperature: Some(0.0), ..SamplingDefaults::default() };
    let model = ServedModel::new(vec!["tiny".into()], support::tokenizer(), None, sampling, engine);
    let app = App::new(HttpConfig::default());
    app.set_model(Arc::new(model));
    Ok(app)
}

/// The fake, with the CPU time of its steps added up.
struct Timed {
    fake: FakeRunner,
    ns: Arc<AtomicU64>,
}

impl ModelRunner for Timed {
    fn info(&self) -> &ModelInfo {
        self.fake.info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.fake.memory()
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        let before = on_cpu("/proc/thread-self/schedstat").unwrap_or(0);
        let output = self.fake.step(plan);
        self.ns.fetch_add(on_cpu("/proc/thread-self/schedstat").unwrap_or(0).saturating_sub(before), Relaxed);
        // Without a pause, steps would run ahead of the sockets: a real model takes milliseconds.
        thread::sleep(Duration::from_millis(1));
        output
    }

    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>> {
        self.fake.export_block(group, block, tokens)
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()> {
        self.fake.import_block(group, block, tokens, bytes)
    }
}

/// Nanoseconds on a CPU, of all threads of this process that are alive.
fn cpu_ns() -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in std::fs::read_dir("/proc/self/task")? {
        sum += on_cpu(&task?.path().join("schedstat").to_string_lossy())?;
    }
    Ok(sum)
}

fn on_cpu(path: &str) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}

/// Reads `streams` streams to their ends.
fn client(address: &str, streams: usize, tokens: usize) -> anyhow::Result<()> {
    let body = json!({ "model": "tiny", "prompt": "x", "max_tokens": tokens, "ignore_eos": true, "stream": true });
    let body = body.to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut socket = TcpStream::connect(address)?;
                    socket.write_all(request.as_bytes())?;
                    let mut text = String::new();
                    socket.read_to_string(&mut text)?;
                    let chunks = text.matches("\"finish_reason\":null").count();
                    anyhow::ensure!(text.contains("[DONE]") && chunks + 1 >= tokens, "{chunks} chunks:\n{text}");
                    Ok(())
                })
            })
            .collect();
        readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?)
    })
}
