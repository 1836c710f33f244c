//! The HTTP server: OpenAI's and Anthropic's routes over models that generate, encode, hear and speak.

pub(crate) mod access;
mod anthropic;
mod audio;
pub(crate) mod body_time;
mod cache;
pub(crate) mod call;
mod chat;
mod chat_completions;
pub(crate) mod choices;
pub(crate) mod client;
pub(crate) mod completions;
mod drain;
pub(crate) mod embeddings;
pub(crate) mod encoders;
mod error;
pub(crate) mod extras;
pub(crate) mod fields;
pub(crate) mod guide;
pub(crate) mod health;
mod logprobs;
mod mcp;
pub(crate) mod media;
mod messages;
mod metrics;
mod models;
mod openapi;
mod realtime;
pub(crate) mod registry;
pub(crate) mod request_id;
pub(crate) mod requests;
mod rerank;
mod responses;
mod sampling;
mod score;
mod sse;
mod staged;
mod status;
mod tokenize;
mod usage;
mod version;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use access::Access;
pub use access::{InvalidKey, InvalidOrigin, KeyRing, Origins, Rate, Rules};
pub use audio::AudioLimits;
use audio::SpeechModels;
pub(crate) use audio::transcript_json as audio_json;
use axum::{
    Router,
    body::Body,
    http::{Method, StatusCode, Uri},
    middleware,
    routing::{delete, get, post},
};
pub use choices::reason_name;
pub use client::{Peer, Seat};
use drain::Drain;
pub use drain::Draining;
use encoders::Encoders;
pub use error::ApiError;
pub use fields::Fields;
use fields::read_body;
pub use media::{Media, MediaLimits, Sampling};
pub use messages::normalise as normalise_messages;
use metrics::{HttpMetrics, InferenceMetrics};
use registry::Registry;
use staged::{Staged, WithMedia, staged};
pub use usage::Usage;
use vllm_mcp::McpClient;
use vllm_media::Loader;
use vllm_speech::vad::Silero;

use crate::{
    encoder::ServedEncoder,
    model::ServedModel,
    residency::{Lease, LeaseError, Residency},
    speech::{ServedSpeaker, ServedTranscriber},
    telemetry::Tracer,
};

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct HttpConfig {
    /// Most tokens of a chat answer whose request doesn't say.
    pub default_max_tokens: usize,
    /// Most tokens that a request may ask for; `None`: what the model takes.
    pub max_request_tokens: Option<usize>,
    /// Longest body, in bytes.
    pub body_limit: usize,
    /// Longest time for a body to come in; `None`: as long as it takes.
    pub read_timeout: Option<Duration>,
    /// Longest silence in a stream.
    pub heartbeat: Duration,
    /// Tokens of a chunk of a stream, at least 1.
    pub stream_interval: usize,
    /// Longest time of a request that doesn't say; `None`: as long as it takes.
    pub timeout: Option<Duration>,
    /// Most images and videos of a prompt.
    pub media: MediaLimits,
    /// Which frames of videos are seen whose request doesn't say.
    pub sampling: Sampling,
    /// Bounds of requests with sound in or out.
    pub audio: AudioLimits,
    /// Whether `/metrics` is served.
    pub metrics: bool,
    /// How long the engine may have work in hand without ending a step before it counts as stalled.
    pub stall: Option<Duration>,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            default_max_tokens: 1024,
            max_request_tokens: None,
            body_limit: 32 << 20,
            read_timeout: Some(Duration::from_secs(60)),
            heartbeat: Duration::from_secs(15),
            stream_interval: 1,
            timeout: Some(Duration::from_secs(300)),
            media: MediaLimits::default(),
            sampling: Sampling::default(),
            audio: AudioLimits::default(),
            metrics: true,
            stall: Some(Duration::from_secs(60)),
        }
    }
}

impl HttpConfig {
    fn pace(&self) -> sse::Pace {
        sse::Pace { interval: self.stream_interval, heartbeat: self.heartbeat }
    }
}

/// What all handlers share. Exists before the model does.
#[derive(Debug, Clone)]
pub struct App {
    models: Arc<OnceLock<Residency>>,
    encoders: Arc<Encoders>,
    speech: Arc<SpeechModels>,
    pub(crate) config: HttpConfig,
    pub(crate) shared: Arc<Shared>,
    pub(crate) loader: Option<Arc<Loader>>,
    mcp: Option<McpClient>,
}

/// The books on requests.
#[derive(Debug)]
pub(crate) struct Shared {
    access: Access,
    pub(crate) registry: Arc<Registry>,
    http: Arc<HttpMetrics>,
    inference: InferenceMetrics,
    tracer: Option<Tracer>,
    drain: Drain,
    /// Of this process only.
    instance: String,
    responses: Arc<responses::Store>,
    started: Instant,
    /// The same, in seconds since 1970.
    created: u64,
}

impl App {
    /// An application whose model is still being loaded.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        Self::with_tracer(config, None)
    }

    /// An application that makes a trace of each inference request.
    #[must_use]
    pub fn with_tracer(config: HttpConfig, tracer: Option<Tracer>) -> Self {
        let shared = Shared {
            access: Access::default(),
            registry: Arc::default(),
            http: Arc::default(),
            inference: InferenceMetrics::default(),
            tracer,
            drain: Drain::default(),
            instance: crate::random::hex_id(),
            responses: Arc::default(),
            started: Instant::now(),
            created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        };
        Self {
            models: Arc::default(),
            encoders: Arc::default(),
            speech: Arc::default(),
            config,
            shared: Arc::new(shared),
            loader: None,
            mcp: None,
        }
    }

    /// The application, with a loader of images and videos: without one, requests can't have any.
    #[must_use]
    pub fn with_loader(self, loader: Loader) -> Self {
        Self { loader: Some(Arc::new(loader)), ..self }
    }

    /// The application, with the tools of these MCP servers.
    #[must_use]
    pub fn with_mcp(self, mcp: Option<McpClient>) -> Self {
        Self { mcp, ..self }
    }

    /// How long an engine has been silent, if that is longer than it may be: the longest of all.
    #[must_use]
    pub fn stalled(&self) -> Option<Duration> {
        let models = self.loaded();
        let models = models.iter().filter_map(|model| self.stalled_for(model));
        let encoders = self.encoders.all().into_iter().filter_map(|encoder| encoder.engine.silence());
        let limit = self.config.stall?;
        let others = encoders.chain(self.speech.silences());
        models.chain(others.filter(|&silence| silence > limit)).max()
    }

    /// [`stalled`](Self::stalled), of one model's engine.
    fn stalled_for(&self, model: &ServedModel) -> Option<Duration> {
        let silence = model.silence()?;
        self.config.stall.filter(|&limit| silence > limit).map(|_| silence)
    }

    /// From now on, these rules hold: for requests that come, not for those under way.
    pub fn set_rules(&self, rules: Rules) {
        self.shared.access.set(rules);
    }

    /// A name of this process among all servers.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        &self.shared.instance
    }

    /// The server is on its way down: it says so to all that ask or listen, and goes on answering.
    pub fn drain(&self) {
        self.shared.drain.begin();
    }

    /// To hear when the server is on its way down.
    #[must_use]
    pub fn draining(&self) -> Draining {
        self.shared.drain.listen()
    }

    /// The rules that hold now.
    #[must_use]
    pub fn rules(&self) -> Arc<Rules> {
        self.shared.access.rules()
    }

    /// From now on, requests are served. Only the first call counts.
    pub fn set_models(&self, models: Residency) {
        let _ = self.models.set(models);
    }

    /// [`set_models`](Self::set_models) with one that is there already.
    pub fn set_model(&self, model: Arc<ServedModel>) {
        self.set_models(Residency::of(model));
    }

    /// Serves a model that makes embeddings or scores, too.
    pub fn add_encoder(&self, encoder: Arc<ServedEncoder>) {
        self.encoders.add(encoder);
    }

    /// The models that make embeddings and scores.
    #[must_use]
    pub fn encoders(&self) -> Vec<Arc<ServedEncoder>> {
        self.encoders.all()
    }

    /// Serves a model that hears, too.
    pub fn add_transcriber(&self, model: Arc<ServedTranscriber>) {
        self.speech.add_transcriber(model);
    }

    /// Serves a model that speaks, too.
    pub fn add_speaker(&self, model: Arc<ServedSpeaker>) {
        self.speech.add_speaker(model);
    }

    /// Finds with this where somebody speaks. Only the first call counts.
    pub fn set_vad(&self, vad: Arc<Silero>) {
        self.speech.set_vad(vad);
    }

    /// Sends the traces that wait to be sent. Blocks, for a few seconds at most; none can be made after that.
    pub fn flush_traces(&self) {
        if let Some(tracer) = &self.shared.tracer {
            tracer.shutdown();
        }
    }

    /// The models.
    ///
    /// # Errors
    /// 503 while those are being loaded that are to be there from the start.
    pub fn models(&self) -> Result<&Residency, ApiError> {
        self.models.get().ok_or_else(|| LeaseError::Loading.into())
    }

    /// The name of the first model that generates, for requests that name none.
    ///
    /// # Errors
    /// 503 while models are being loaded, 404 if there is none that generates.
    pub fn default_model(&self) -> Result<String, ApiError> {
        let first = self.models()?.status().into_iter().find_map(|model| model.names.into_iter().next());
        first.ok_or_else(|| ApiError::not_found("model_not_found", "this server has no model that generates"))
    }

    /// How long it has been there.
    pub(crate) fn uptime(&self) -> Duration {
        self.shared.started.elapsed()
    }

    /// The models that are loaded.
    #[must_use]
    pub fn loaded(&self) -> Vec<Arc<ServedModel>> {
        self.models.get().map(Residency::loaded).unwrap_or_default()
    }

    /// The model of that name, loaded if need be, to be used as long as the lease lives.
    ///
    /// # Errors
    /// 404 if there is none, 503 if it can't be loaded now.
    pub async fn lease(&self, name: &str) -> Result<Lease, ApiError> {
        if let Some(encoder) = self.encoders.find(name) {
            return Err(encoders::other_route(&encoder, name));
        }
        match self.models()?.lease(name).await {
            Err(LeaseError::Unknown { .. }) => {
                Err(audio::other_route(self, name).unwrap_or_else(|| encoders::unknown(self, name)))
            }
            leased => Ok(leased?),
        }
    }

    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(health::get))
            .route("/live", get(health::live))
            .route("/ping", get(health::get).post(health::get))
            .route("/ready", get(health::get))
            .route("/v1/models", get(models::list))
            .route("/v1/models/{*id}", get(models::retrieve))
            .route("/v1/chat/completions", post(chat_completions::create))
            .route("/v1/completions", post(completions::create))
            .route("/v1/embeddings", post(embeddings::create))
            .route("/v1/rerank", post(rerank::create))
            .route("/v2/rerank", post(rerank::create))
            .route("/rerank", post(rerank::create))
            .route("/v1/score", post(score::create))
            .route("/score", post(score::create))
            .route("/v1/messages", post(anthropic::create))
            .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
            .route("/v1/responses", post(responses::create))
            .route("/v1/responses/{id}", get(responses::retrieve).delete(responses::remove))
            .route("/v1/responses/{id}/cancel", post(responses::cancel))
            .route("/v1/responses/{id}/input_items", get(responses::input_items))
            .route("/v1/audio/transcriptions", post(audio::transcribe))
            .route("/v1/audio/translations", post(audio::translate))
            .route("/v1/audio/speech", post(audio::speech))
            .route("/v1/audio/voices", get(audio::voices))
            .route("/v1/realtime", get(realtime::connect))
            .route("/tokenize", post(tokenize::tokenize))
            .route("/v1/tokenize", post(tokenize::tokenize))
            .route("/detokenize", post(tokenize::detokenize))
            .route("/v1/detokenize", post(tokenize::detokenize))
            .route("/version", get(version::get))
            .route("/v1/requests/{id}", delete(requests::cancel))
            .route("/v1/requests/{id}/cancel", post(requests::cancel))
            .route("/v1/status", get(status::get))
            .route("/v1/cache/stats", get(cache::stats))
            .route("/v1/cache", delete(cache::clear))
            .route("/v1/cache/prefix", delete(cache::clear))
            .route("/v1/mcp/tools", get(mcp::tools))
            .route("/v1/mcp/servers", get(mcp::servers))
            .route("/v1/mcp/execute", post(mcp::execute))
            .route("/metrics", get(metrics::get))
            .route("/openapi.json", get(openapi::document))
            .route("/docs", get(openapi::page))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(middleware::from_fn_with_state(self.clone(), body_time::layer))
            .layer(middleware::from_fn_with_state(self.clone(), access::rate_limit_layer))
            .layer(middleware::from_fn_with_state(self.clone(), access::auth_layer))
            // Around all that may refuse a request, within what counts the answers and names the request.
            .layer(middleware::from_fn(anthropic::layer))
            .layer(middleware::from_fn_with_state(self.clone(), access::cors_layer))
            .layer(middleware::from_fn_with_state(self.clone(), request_id::layer))
            .with_state(self)
    }
}

async fn no_route(method: Method, uri: Uri) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {method} {}", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> ApiError {
    let message = format!("{} does not take {method}", uri.path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message)
}

/// A body with the model it is for.
#[derive(Debug)]
struct Opened {
    /// What is left of the body.
    fields: Fields,
    /// The model as the request names it.
    name: String,
    model: Lease,
}

/// Reads and parses a body, and takes the name of its model.
async fn read_request(app: &App, body: Body) -> Result<(Fields, String), ApiError> {
    let body = read_body(body, app.config.body_limit).await?;
    let mut fields = blocking(move || Fields::parse(&body)).await?;
    let name = fields.string("model")?;
    let name = name.ok_or_else(|| ApiError::field("model", "model is missing: it must name the model to use"))?;
    Ok((fields, name))
}

/// Reads a body and finds its model.
async fn open(app: &App, body: Body) -> Result<Opened, ApiError> {
    let (fields, name) = read_request(app, body).await?;
    let model = app.lease(&name).await?;
    Ok(Opened { fields, name, model })
}

/// Longest wait for a word of the engine, which answers between two steps only.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits for the engine's word on something, but not for ever: its step may be stuck.
pub(crate) async fn engine_says<T>(word: impl Future<Output = T>) -> Result<T, ApiError> {
    tokio::time::timeout(PATIENCE, word).await.map_err(|_| {
        let message = format!("the engine is in a step that takes longer than {PATIENCE:?}: it does this after it");
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "engine_stalled", message)
    })
}

/// Runs what takes processor time off the async workers.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::engine("the server made a mistake on this request: see its log")))
}
