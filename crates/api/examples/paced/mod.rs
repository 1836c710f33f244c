//! A server of the fake runner at the pace of a real model, on HTTP and gRPC.
#![allow(dead_code, reason = "each example uses a part")]

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use serde_json::json;
use vllm_api::{
    grpc,
    http::{App, HttpConfig},
    listener::{ConnectionLimits, Listener},
    model::{SamplingDefaults, ServedModel},
};
use vllm_platform::{
    BlockId, MemoryInfo, ModelInfo, ModelRunner, Result, StepOutput, StepPlan,
    testing::{FakeConfig, FakeRunner},
};
use vllm_scheduler::{Engine, EngineConfig, EngineHandle};
use vllm_text::ChatTemplate;

use super::support;

const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";

/// What the fake is like.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time of a step, the fake's own work included.
    pub step: Duration,
    /// Requests at once.
    pub streams: usize,
    /// Longest sequence.
    pub context: usize,
}

/// The fake, at its pace; what its steps took of a CPU is added to `ns`.
struct Paced {
    fake: FakeRunner,
    step: Duration,
    ns: Arc<AtomicU64>,
}

impl ModelRunner for Paced {
    fn info(&self) -> &ModelInfo {
        self.fake.info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.fake.memory()
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        let (start, before) = (Instant::now(), on_cpu("/proc/thread-self/schedstat").unwrap_or(0));
        let output = self.fake.step(plan);
        self.ns.fetch_add(on_cpu("/proc/thread-self/schedstat").unwrap_or(0).saturating_sub(before), Relaxed);
        thread::sleep(self.step.saturating_sub(start.elapsed()));
        output
    }

    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>> {
        self.fake.export_block(group, block, tokens)
    }

    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()> {
        self.fake.import_block(group, block, tokens, bytes)
    }
}

/// An engine on it.
pub fn engine(pace: Pace, ns: Arc<AtomicU64>) -> anyhow::Result<EngineHandle> {
    let fake = FakeConfig {
        vocab_size: 258,
        context_length: pace.context,
        block_size: 16,
        num_blocks: 2 * pace.streams * pace.context.div_ceil(16),
        script: b"words and more ".iter().map(|&byte| u32::from(byte)).collect(),
        ..FakeConfig::default()
    };
    let make = move || Ok(Box::new(Paced { fake: FakeRunner::new(fake), step: pace.step, ns }) as Box<_>);
    let config = EngineConfig {
        max_num_seqs: pace.streams,
        max_num_batched_tokens: 2048.max(pace.streams),
        ..EngineConfig::default()
    };
    Ok(Engine::start(make, config)?)
}

/// A server of that engine, whose model is called `tiny` and says that its files are in `folder`, which it writes.
pub fn app(engine: EngineHandle, folder: &Path) -> anyhow::Result<App> {
    let tokenizer = support::tokenizer();
    let context = engine.info().context_length;
    let config = json!({ "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 258,
        "max_position_embeddings": context, "eos_token_id": support::EOS });
    let texts =
        json!({ "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<eos>", "chat_template": TEMPLATE });
    fs::write(folder.join("config.json"), config.to_string())?;
    fs::write(folder.join("tokenizer.json"), tokenizer.to_json()?)?;
    fs::write(folder.join("tokenizer_config.json"), texts.to_string())?;
    // A file of no tensors.
    fs::write(folder.join("model.safetensors"), b"\x02\0\0\0\0\0\0\0{}")?;
    let template = ChatTemplate::new(TEMPLATE, Default::default())?;
    let sampling = SamplingDefaults { temperature: Some(0.0), ..SamplingDefaults::default() };
    let model = ServedModel::new(vec!["tiny".into()], tokenizer, Some(template), sampling, engine);
    let app = App::new(HttpConfig::default());
    app.set_model(Arc::new(model.with_path(folder.to_owned())));
    Ok(app)
}

/// Serves it on two ports of this machine until the process ends; where they are.
pub async fn serve(app: &App, http: u16, grpc: u16) -> anyhow::Result<(SocketAddr, SocketAddr)> {
    let bind = async |port| Listener::bind("127.0.0.1", port, None, ConnectionLimits::default()).await;
    let (http, grpc) = (bind(http).await.context("HTTP")?, bind(grpc).await.context("gRPC")?);
    let addresses = (http.address()?, grpc.address()?);
    tokio::spawn(http.serve(app.clone().router(), std::future::pending()));
    tokio::spawn(grpc.serve_grpc(grpc::router(app.clone()), std::future::pending()));
    Ok(addresses)
}

/// Nanoseconds on a CPU, of all threads of this process that are alive.
pub fn cpu_ns() -> anyhow::Result<u64> {
    let mut sum = 0;
    for task in fs::read_dir("/proc/self/task")? {
        sum += on_cpu(&task?.path().join("schedstat").to_string_lossy())?;
    }
    Ok(sum)
}

fn on_cpu(path: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(path)?;
    Ok(text.split(' ').next().unwrap_or_default().parse()?)
}
