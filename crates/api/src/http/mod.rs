//! The HTTP server: OpenAI's routes over one model.

mod chat_completions;
mod choices;
mod completions;
mod error;
mod fields;
mod health;
mod logprobs;
mod messages;
mod models;
mod request_id;
mod sampling;
mod sse;

use std::{
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware,
    routing::{get, post},
};
pub use choices::reason_name;
pub use error::ApiError;
pub use fields::Fields;

use crate::model::ServedModel;

/// What an operator may set.
#[derive(Debug, Clone, Copy)]
pub struct HttpConfig {
    /// Most tokens of a chat answer whose request doesn't say.
    pub default_max_tokens: usize,
    /// Longest body, in bytes.
    pub body_limit: usize,
    /// Longest silence in a stream.
    pub heartbeat: Duration,
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self { default_max_tokens: 1024, body_limit: 32 << 20, heartbeat: Duration::from_secs(15) }
    }
}

/// What all handlers share. Exists before the model does.
#[derive(Debug, Clone)]
pub struct App {
    model: Arc<OnceLock<Arc<ServedModel>>>,
    config: HttpConfig,
}

impl App {
    /// An application whose model is still being loaded.
    #[must_use]
    pub fn new(config: HttpConfig) -> Self {
        Self { model: Arc::default(), config }
    }

    /// From now on, requests are served. Only the first call counts.
    pub fn set_model(&self, model: Arc<ServedModel>) {
        let _ = self.model.set(model);
    }

    /// The model.
    ///
    /// # Errors
    /// 503 while it is being loaded.
    pub fn model(&self) -> Result<Arc<ServedModel>, ApiError> {
        self.model.get().cloned().ok_or_else(|| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "model_loading", "the model is being loaded: try again")
        })
    }

    /// All routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/health", get(health::get))
            .route("/v1/models", get(models::list))
            .route("/v1/models/{*id}", get(models::retrieve))
            .route("/v1/chat/completions", post(chat_completions::create))
            .route("/v1/completions", post(completions::create))
            .fallback(no_route)
            .method_not_allowed_fallback(no_method)
            .layer(middleware::from_fn(request_id::layer))
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

/// Checks a request's `model` against the names that are served; returns it.
fn take_model(fields: &mut Fields, model: &ServedModel) -> Result<String, ApiError> {
    let name = fields.string("model")?;
    let name = name.ok_or_else(|| ApiError::field("model", "model is missing: it must name the model to use"))?;
    if model.names.contains(&name) {
        return Ok(name);
    }
    Err(models::not_found(&name, model).with_param("model"))
}

/// Runs what takes processor time off the async workers.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ApiError::engine("the server made a mistake on this request: see its log")))
}
