//! OpenAI's error schema.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};
use vllm_platform::sampling::InvalidParam;
use vllm_scheduler::{Failure, FailureKind, SubmitError};

use crate::{answer::AnswerError, residency::LeaseError};

/// What a client did wrong, or what went wrong for it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    status: StatusCode,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    /// How long until another try may do better, where that is known.
    retry_after: Option<Duration>,
}

impl ApiError {
    /// A request that can't be served as it is.
    pub fn invalid(param: impl Into<Option<String>>, message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            message: message.into(),
            param: param.into(),
            code: None,
            retry_after: None,
        }
    }

    /// A field whose value can't be served.
    pub fn field(name: &str, message: impl Into<String>) -> Self {
        Self::invalid(Some(name.to_owned()), message)
    }

    /// A part of the API that this server doesn't have yet.
    pub fn unsupported(name: &str, message: impl Into<String>) -> Self {
        Self { code: Some("unsupported_value"), ..Self::field(name, message) }
    }

    /// Any other status.
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), param: None, code: Some(code), retry_after: None }
    }

    /// Something that isn't there.
    pub fn not_found(code: &'static str, message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    /// The engine failed on a good request.
    pub fn engine(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "engine_error", message)
    }

    /// The server is on its way down.
    pub fn shutting_down() -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "shutting_down", "the server is shutting down")
    }

    /// Somebody asked for the request's end. The status is nginx's, and what Google's APIs map "cancelled" to: clients
    /// try 408, 409, 429 and all from 500 on again by themselves, which must not happen here.
    pub fn cancelled() -> Self {
        // A number that every status may have.
        let status = StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST);
        Self::new(status, "request_cancelled", "the request was cancelled")
    }

    /// More tokens than the model takes.
    pub fn context_length(param: &str, message: impl Into<String>) -> Self {
        Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
    }

    /// Names the code.
    #[must_use]
    pub fn with_code(self, code: &'static str) -> Self {
        Self { code: Some(code), ..self }
    }

    /// Names the parameter.
    #[must_use]
    pub fn with_param(self, param: &str) -> Self {
        Self { param: Some(param.into()), ..self }
    }

    /// Names the parameter if none was named yet.
    #[must_use]
    pub fn or_param(self, param: &str) -> Self {
        Self { param: self.param.or_else(|| Some(param.into())), ..self }
    }

    /// Its HTTP status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What it says.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The parameter at fault, if it is one.
    #[must_use]
    pub fn param(&self) -> Option<&str> {
        self.param.as_deref()
    }

    /// Says how long until another try may do better.
    #[must_use]
    pub fn with_retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }

    /// How long until another try may do better, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Its code, if it has one.
    #[must_use]
    pub fn code(&self) -> Option<&'static str> {
        self.code
    }

    /// Says `to` for a parameter that is called `from` elsewhere.
    #[must_use]
    pub fn renamed(self, from: &str, to: &str) -> Self {
        match &self.param {
            Some(param) if param == from => {
                Self { message: self.message.replace(from, to), param: Some(to.into()), ..self }
            }
            _ => self,
        }
    }

    /// Whether something isn't there.
    pub fn is_not_found(&self) -> bool {
        self.status == StatusCode::NOT_FOUND
    }

    /// `{"error": {"message", "type", "param", "code"}}`.
    pub fn to_json(&self) -> Value {
        let kind = match self.status {
            StatusCode::GATEWAY_TIMEOUT => "timeout_error",
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        json!({ "error": { "message": self.message, "type": kind, "param": self.param, "code": self.code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.to_json().to_string()));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if matches!(self.status, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) {
            // Whole seconds, and enough of them.
            let wait = self.retry_after.unwrap_or(Duration::from_secs(1));
            headers.insert(header::RETRY_AFTER, (wait.as_millis().div_ceil(1000).max(1) as u64).into());
        }
        // For whoever has to say it in the words of another API.
        response.extensions_mut().insert(self);
        response
    }
}

impl From<InvalidParam> for ApiError {
    fn from(error: InvalidParam) -> Self {
        Self::field(error.field, error.to_string())
    }
}

impl From<SubmitError> for ApiError {
    fn from(error: SubmitError) -> Self {
        let message = error.to_string();
        match error {
            SubmitError::Params(error) => error.into(),
            SubmitError::ContextLength { .. } | SubmitError::NeverFits { .. } | SubmitError::InputLength { .. } => {
                Self { code: Some("context_length_exceeded"), ..Self::invalid(None, message) }
            }
            SubmitError::NoTokens => Self::field("max_tokens", message),
            SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } | SubmitError::Media { .. } => {
                Self::invalid(None, message)
            }
            SubmitError::Utterance { .. } => Self::field("input", message),
            SubmitError::Sound(_) => Self::field("file", message),
            SubmitError::Busy { .. } => Self::new(StatusCode::SERVICE_UNAVAILABLE, "overloaded", message),
            SubmitError::ClientBusy { .. } => Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", message),
            SubmitError::Draining => Self::shutting_down(),
            SubmitError::Stopped(_) => Self::new(StatusCode::SERVICE_UNAVAILABLE, "engine_stopped", message),
        }
    }
}

impl From<LeaseError> for ApiError {
    fn from(error: LeaseError) -> Self {
        let unavailable = |code| Self::new(StatusCode::SERVICE_UNAVAILABLE, code, error.to_string());
        match error {
            LeaseError::Unknown { .. } => {
                Self::new(StatusCode::NOT_FOUND, "model_not_found", error.to_string()).with_param("model")
            }
            LeaseError::Loading => unavailable("model_loading"),
            LeaseError::Failed { .. } => unavailable("model_load_failed"),
            LeaseError::NoRoom { .. } => unavailable("model_no_room"),
            LeaseError::ShuttingDown => Self::shutting_down(),
        }
    }
}

impl From<Failure> for ApiError {
    fn from(failure: Failure) -> Self {
        let (status, code) = match failure.kind {
            FailureKind::Step => (StatusCode::INTERNAL_SERVER_ERROR, "engine_error"),
            FailureKind::OutOfMemory => (StatusCode::SERVICE_UNAVAILABLE, "out_of_memory"),
            FailureKind::Timeout => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            FailureKind::Media => (StatusCode::INTERNAL_SERVER_ERROR, "vision_error"),
            FailureKind::Stopped => (StatusCode::SERVICE_UNAVAILABLE, "engine_stopped"),
        };
        Self::new(status, code, failure.message)
    }
}

impl From<AnswerError> for ApiError {
    fn from(error: AnswerError) -> Self {
        match error {
            AnswerError::Submit(error) => error.into(),
            AnswerError::Text(error) => Self::invalid(None, error.to_string()),
        }
    }
}
