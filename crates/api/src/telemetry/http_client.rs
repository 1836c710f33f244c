//! OTLP's way out: the HTTP client that this program has anyhow.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use axum::http::{Request, Response};
use bytes::Bytes;
use opentelemetry_http::{HttpClient, HttpError};

/// How long one export may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// ureq as OpenTelemetry wants it. It blocks, which is fine on the exporter's own thread and nowhere else.
#[derive(Debug)]
pub struct UreqClient {
    agent: ureq::Agent,
    /// Whether the last export failed: only the first failure of a row is worth a line.
    failing: AtomicBool,
}

impl Default for UreqClient {
    fn default() -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT));
        Self { agent: config.build().into(), failing: AtomicBool::new(false) }
    }
}

impl UreqClient {
    fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let mut response = self.agent.run(request.map(|body| body.to_vec()))?;
        let body = response.body_mut().read_to_vec()?;
        Ok(response.map(|_| body.into()))
    }

    fn note(&self, problem: Option<String>) {
        match problem {
            Some(problem) if !self.failing.swap(true, Relaxed) => {
                tracing::warn!(problem, "traces cannot be exported; this is said once");
            }
            Some(_) => {}
            None if self.failing.swap(false, Relaxed) => tracing::info!("traces are exported again"),
            None => {}
        }
    }
}

#[async_trait]
impl HttpClient for UreqClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.send(request);
        self.note(match &answer {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("the collector answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        });
        Ok(answer?)
    }
}
