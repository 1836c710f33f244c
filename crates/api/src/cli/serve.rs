//! `vllm-mlx serve`.

use std::{
    io::Write as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use vllm_mcp::{McpClient, McpConfig};
use vllm_platform::ModelPurpose;
use vllm_scheduler::EngineConfig;

use super::{
    access_args::AccessArgs,
    answer_args::{DefaultArgs, FormatArgs},
    args::{RuntimeArgs, SourceArgs, at_least_one, load_spec, positive, seconds},
    config_file::Settings,
    encoders::{self, EncoderArgs},
    grpc_args::GrpcArgs,
    media_args::MediaArgs,
    pipeline_args::PipelineArgs,
    progress,
    reload::Reloader,
    signals::Signals,
    speech,
    speech_args::{self, SpeechArgs},
    warm,
};
use crate::{
    encoder::{EncoderSpec, Role, ServedEncoder},
    http::{App, HttpConfig, MediaLimits},
    listener::Listener,
    model::load,
    pipeline,
    residency::{Catalog, LeaseError, Residency},
    speech::{SpeechRole, SpeechSpec},
    telemetry::{LogArgs, Tracer, watch},
};

/// Flags of `serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A folder, a GGUF file, or org/name on the Hugging Face hub
    #[arg(required_unless_present_any = ["models_config", "embedding_model", "rerank_model", "transcription_model", "speech_model"], conflicts_with = "models_config")]
    model: Option<String>,
    #[command(flatten)]
    source: SourceArgs,
    #[command(flatten)]
    residency: ResidencyArgs,
    #[command(flatten)]
    encoders: EncoderArgs,
    #[command(flatten)]
    speech: SpeechArgs,
    #[command(flatten)]
    formats: FormatArgs,
    #[command(flatten)]
    defaults: DefaultArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    media: MediaArgs,
    #[command(flatten)]
    pipeline: PipelineArgs,
    /// Take flags from this TOML file: port = 8000, served-model-name = ["a", "b"], model = "org/name"
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free one
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Name to answer to (can be given several times) [default: MODEL]
    #[arg(long, value_name = "NAME", conflicts_with = "models_config")]
    served_model_name: Vec<String>,
    /// Most requests computed at once
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one)]
    max_num_seqs: usize,
    /// Most requests that wait; more are refused
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().max_waiting, value_parser = at_least_one)]
    max_waiting: usize,
    /// Most requests of one API key that wait; more are refused
    #[arg(long, value_name = "N", default_value_t = EngineConfig::default().max_waiting_per_client, value_parser = at_least_one)]
    max_waiting_per_client: usize,
    /// Requests always join and leave the batch at any step: for commands written for the original
    #[arg(long, hide = true)]
    continuous_batching: bool,
    /// Longest time of a request that doesn't say, in seconds; 0: as long as it takes
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0, value_parser = seconds)]
    timeout: f64,
    /// Tokens sent together in a stream
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    stream_interval: usize,
    /// How long the engine may have work and end no step before /health says so, in seconds; 0: for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    watchdog_seconds: f64,
    /// Serve /metrics (the default)
    #[arg(long, conflicts_with = "disable_metrics")]
    enable_metrics: bool,
    /// Don't serve /metrics
    #[arg(long)]
    disable_metrics: bool,
    /// Send a trace of each request to this OpenTelemetry collector (OTLP over HTTP), e.g. http://localhost:4318
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    otlp_endpoint: Option<String>,
    /// MCP servers whose tools chats may use: JSON or YAML [default: ~/.config/vllm-mlx/mcp.json, if it is there]
    #[arg(long, value_name = "FILE", env = "VLLM_MLX_MCP_CONFIG")]
    mcp_config: Option<PathBuf>,
    #[command(flatten)]
    pub(super) grpc: GrpcArgs,
    #[command(flatten)]
    pub(super) access: AccessArgs,
    #[command(flatten)]
    pub(super) log: LogArgs,
    /// Most tokens of a chat answer whose request doesn't say
    #[arg(long, value_name = "TOKENS", default_value_t = HttpConfig::default().default_max_tokens, value_parser = at_least_one)]
    max_tokens: usize,
    /// Most tokens that a request may ask for [default: what the model takes]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    max_request_tokens: Option<usize>,
}

/// Which models are loaded when.
#[derive(Debug, clap::Args)]
struct ResidencyArgs {
    /// Serve the models that this YAML file lists, each loaded when it is asked for
    #[arg(long, value_name = "FILE")]
    models_config: Option<PathBuf>,
    /// Most GiB that loaded models need together; those that were not used for longest give way
    #[arg(long, value_name = "GIB", value_parser = positive)]
    memory_budget_gb: Option<f64>,
    /// Load the model when it is first asked for
    #[arg(long)]
    lazy_load_model: bool,
    /// Compute the beginnings of these conversations at the start, for the prefix cache: a JSON list of lists of messages
    #[arg(long, value_name = "FILE", conflicts_with_all = ["models_config", "lazy_load_model"])]
    warm_prompts: Option<PathBuf>,
    /// Unload a model that nobody has used for so long, in seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = seconds)]
    auto_unload_idle_seconds: f64,
}

impl Args {
    /// The models to serve.
    fn catalog(&self) -> anyhow::Result<Catalog> {
        let model = self.model.as_deref().unwrap_or_default();
        let mut spec = load_spec(model, &self.source, &self.runtime, self.max_num_seqs);
        spec.names.clone_from(&self.served_model_name);
        spec.engine.max_waiting = self.max_waiting;
        spec.engine.max_waiting_per_client = self.max_waiting_per_client;
        spec.formats = self.formats.formats();
        self.defaults.apply(&mut spec);
        if self.media.limits() == (MediaLimits { images: 0, videos: 0 }) {
            spec.vision = None;
        }
        spec.pipeline = self.pipeline.spec()?;
        if spec.pipeline.is_some() {
            // Such models take text only, and say so if they are others.
            spec.vision = None;
        }
        let residency = &self.residency;
        let idle = duration(residency.auto_unload_idle_seconds);
        if self.pipeline.is_given() && idle.is_some() {
            anyhow::bail!("--pipeline: a model over several machines stays, --auto-unload-idle-seconds must be 0");
        }
        let catalog = match &residency.models_config {
            None => Catalog::of(spec).with_residency(residency.lazy_load_model, idle),
            Some(path) => {
                let shown = path.display();
                let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
                Catalog::from_yaml(&text, &spec).with_context(|| shown.to_string())?.with_idle_unload(idle)
            }
        };
        let budget = residency.memory_budget_gb.map(|gib| (gib * f64::from(1 << 30)) as u64);
        Ok(catalog.with_budget(budget))
    }

    fn http(&self) -> HttpConfig {
        HttpConfig {
            default_max_tokens: self.max_tokens,
            body_limit: self.access.body_limit(),
            read_timeout: self.access.read_timeout(),
            max_request_tokens: self.max_request_tokens,
            stream_interval: self.stream_interval,
            timeout: duration(self.timeout),
            media: self.media.limits(),
            sampling: self.media.frames.sampling(),
            audio: self.speech.limits(),
            metrics: !self.disable_metrics,
            stall: duration(self.watchdog_seconds),
            ..HttpConfig::default()
        }
    }
}

/// 0 means never.
pub(super) fn duration(seconds: f64) -> Option<Duration> {
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds))
}

/// Serves until a signal.
///
/// # Errors
/// One line each: address, keys, certificates, model.
pub fn run(args: &Args, settings: Settings) -> anyhow::Result<()> {
    // Handlers only wait: two workers are plenty, and the cores are for the model. The blocking threads tokenise.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).max_blocking_threads(16).enable_all().build()?;
    let result = runtime.block_on(serve(args, settings));
    // A load that is under way when a signal comes is not waited for.
    runtime.shutdown_background();
    result
}

async fn serve(args: &Args, settings: Settings) -> anyhow::Result<()> {
    let (tls, rules) = (args.access.tls()?, args.access.rules()?);
    let limits = args.access.connections();
    let listener = Listener::bind(&args.host, args.port, tls.clone(), limits).await;
    let listener = listener.with_context(|| format!("cannot listen on {}:{}", args.host, args.port))?;
    let (grpc, grpc_tls) = args.grpc.bind(&args.access, &args.host, args.port, limits).await?.unzip();
    let endpoint = args.otlp_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty());
    let mcp = mcp(args)?;
    let tracer = endpoint.map(Tracer::start).transpose()?;
    let app = App::with_tracer(args.http(), tracer).with_mcp(mcp.clone()).with_loader(args.media.loader()?);
    app.set_rules(rules);
    let mut signals = Signals::install(Reloader::new(app.clone(), tls, grpc_tls.flatten(), settings))?;
    let result = listen(args, &app, listener, grpc, &mut signals).await;
    if let Some(mcp) = mcp {
        mcp.shutdown().await;
    }
    // The last requests' traces, too, have to get out.
    let flushed = tokio::task::spawn_blocking(move || app.flush_traces()).await;
    result.and(flushed.context("sending the last traces panicked"))
}

/// The client of the configured MCP servers, which connects while the model loads.
fn mcp(args: &Args) -> anyhow::Result<Option<McpClient>> {
    let given = args.mcp_config.clone().filter(|path| !path.as_os_str().is_empty());
    let Some(path) = given.or_else(vllm_mcp::config::default_path) else { return Ok(None) };
    Ok(Some(McpClient::start(McpConfig::read(&path)?)))
}

async fn listen(
    args: &Args,
    app: &App,
    listener: Listener,
    grpc: Option<Listener>,
    signals: &mut Signals,
) -> anyhow::Result<()> {
    let address = listener.address()?;
    eprintln!("listening on {}://{address}", listener.scheme());
    let grpc_address = grpc.as_ref().map(Listener::address).transpose()?;
    if let (Some(grpc), Some(address)) = (&grpc, grpc_address) {
        eprintln!("listening on {}://{address}", if grpc.scheme() == "https" { "grpcs" } else { "grpc" });
    }
    for address in [Some(address), grpc_address].into_iter().flatten() {
        if !address.ip().is_loopback() && app.rules().keys.is_empty() {
            tracing::warn!("whoever reaches {address} may use this server: --api-key or --api-key-file would close it");
        }
    }

    let (mut draining, mut grpc_draining) = (app.draining(), app.draining());
    let (router, grpc_router) = (app.clone().router(), crate::grpc::router(app.clone()));
    let mut server = tokio::spawn(async move {
        let http = listener.serve(router, async move { draining.begun().await });
        let grpc = async move {
            if let Some(grpc) = grpc {
                grpc.serve_grpc(grpc_router, async move { grpc_draining.begun().await }).await;
            }
        };
        tokio::join!(http, grpc);
    });

    let warm_prompts = args.residency.warm_prompts.as_deref().map(warm::read).transpose()?;
    let (models, encoders, speech) = tokio::select! {
        loaded = load_all(args, app) => loaded?,
        () = signals.next() => return Ok(()),
        ended = &mut server => {
            ended?;
            anyhow::bail!("the server ended by itself");
        }
    };
    for encoder in &encoders {
        app.add_encoder(Arc::clone(encoder));
    }
    app.set_models(models.clone());
    if let (Some(prompts), Some(model)) = (warm_prompts, models.loaded().into_iter().next()) {
        // Beside the first requests: they need not wait for it.
        tokio::spawn(async move {
            match warm::warm(&model, &prompts).await {
                Ok(tokens) => tracing::info!(prompts = prompts.len(), tokens, "warm prompts are computed"),
                Err(error) => tracing::error!("{error:#}"),
            }
        });
    }
    if let Some(limit) = duration(args.watchdog_seconds) {
        tokio::spawn(watch(app.clone(), limit));
    }
    let pipelines = models.loaded().iter().filter_map(|model| model.pipeline.clone()).collect();
    let reaper = models.clone();
    tokio::spawn(async move { reaper.reap().await });

    tokio::select! {
        () = signals.next() => {}
        ended = &mut server => {
            ended?;
            anyhow::bail!("the server ended by itself");
        }
        why = pipeline::over(pipelines) => return Err(pipeline::Over(why).into()),
        why = models.lost() => anyhow::bail!("{why}"),
        why = encoders::lost(&encoders) => anyhow::bail!("{why}"),
        why = speech.lost() => anyhow::bail!("{why}"),
    }
    // The terminal may be what has gone.
    let _ = writeln!(std::io::stderr(), "finishing the requests under way; a second signal stops at once");
    app.drain();
    tokio::select! {
        ended = &mut server => ended?,
        () = signals.next() => {}
    }
    encoders::close(&encoders).await;
    speech.close().await;
    models.close().await;
    Ok(())
}

/// All models that are to be there from the start.
async fn load_all(
    args: &Args,
    app: &App,
) -> anyhow::Result<(Residency, Vec<Arc<ServedEncoder>>, speech::LoadedSpeech)> {
    let mut encoders = args.encoders.specs(&args.source, &args.runtime);
    let mut spoken = args.speech.models(&args.source, &args.runtime);
    let mut catalog = args.catalog()?;
    if let Some(model) = &args.model {
        // One that is loaded later is loaded as a model that generates.
        let purpose = match args.residency.lazy_load_model {
            true => None,
            false => encoders::purpose_of(model, args.source.hub()).await,
        };
        let names = args.served_model_name.clone();
        if let Some(purpose) = purpose.filter(|purpose| *purpose != ModelPurpose::Generate && args.pipeline.is_given())
        {
            anyhow::bail!("--pipeline is for models that generate, and {model} is for something else: {purpose:?}");
        }
        if let Some(role) = purpose.and_then(Role::of) {
            let spec = args.encoders.spec(model, role, &args.source, &args.runtime);
            encoders.insert(0, EncoderSpec { names, ..spec });
            catalog = Catalog::none();
        } else if let Some(role) = purpose.and_then(SpeechRole::of) {
            let spec = speech_args::spec(model, role, &args.source, &args.runtime);
            spoken.specs.insert(0, SpeechSpec { names, ..spec });
            catalog = Catalog::none();
        }
    } else if args.residency.models_config.is_none() {
        catalog = Catalog::none();
    }
    Ok((load_models(catalog).await?, encoders::load(encoders).await?, speech::load(spoken, app).await?))
}

async fn load_models(catalog: Catalog) -> anyhow::Result<Residency> {
    let start = Instant::now();
    let models = Residency::new(catalog, Arc::new(load), progress::bars());
    // What is wrong with the model is all there is to say.
    models.preload().await.map_err(|error| match error {
        LeaseError::Failed { why, .. } if models.is_single() => anyhow::anyhow!(why),
        error => error.into(),
    })?;
    let mut out = std::io::stderr();
    for model in models.loaded() {
        let info = model.engine.info();
        let _ = writeln!(
            out,
            "ready: {} on {} in {:.2} s, context {} tokens, KV cache {} tokens in {}",
            model.names.join(", "),
            info.device,
            start.elapsed().as_secs_f64(),
            info.context_length,
            info.kv_cache.capacity(),
            info.kv_cache.dtype,
        );
        if let Some(vision) = &model.vision {
            let (info, takes) = (vision.engine.info(), model.modalities().join(", "));
            let _ = writeln!(out, "       takes {takes}: {} on {}", info.architecture, info.device);
        }
    }
    if models.loaded().is_empty() && !models.status().is_empty() {
        let names: Vec<String> = models.status().into_iter().flat_map(|model| model.names).collect();
        let _ = writeln!(out, "ready: {} to be loaded when asked for", names.join(", "));
    }
    Ok(models)
}
