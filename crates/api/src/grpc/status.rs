//! HTTP's errors as gRPC has them.

use std::time::Duration;

use axum::http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::http::ApiError;

/// Where `google.rpc.ErrorInfo`'s reasons are from.
const DOMAIN: &str = "vllm-mlx";
/// When to try again what couldn't be done now.
const RETRY: Duration = Duration::from_secs(1);

/// What messages of a service call the fields that HTTP has under other names: HTTP's, then the message's.
pub(crate) type Names = &'static [(&'static str, &'static str)];

/// An error as a status, with its details: the field at fault, the reason in a word, when to try again.
pub(crate) fn status(error: &ApiError) -> Status {
    renamed(error, &[])
}

/// [`status`] in the words of a message whose fields have these names.
pub(crate) fn renamed(error: &ApiError, names: Names) -> Status {
    let code = code(error.status());
    let mut message = error.message().to_owned();
    let mut details = ErrorDetails::new();
    if let Some(param) = error.param() {
        let name = names.iter().find(|(from, _)| *from == param).map_or(param, |(_, to)| to);
        // Messages begin with the field's name where they have it.
        if let Some(rest) = message.strip_prefix(param) {
            message = format!("{name}{rest}");
        } else if !message.contains(name) {
            message = format!("{name}: {message}");
        }
        details.add_bad_request_violation(name, &message);
    }
    if let Some(reason) = error.code() {
        details.set_error_info(reason.to_ascii_uppercase(), DOMAIN, []);
    }
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(error.retry_after().unwrap_or(RETRY)));
    }
    Status::with_error_details(code, message, details)
}

/// The code that says what an HTTP status says.
fn code(status: StatusCode) -> Code {
    match status.as_u16() {
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        408 | 504 => Code::DeadlineExceeded,
        409 => Code::FailedPrecondition,
        413 | 429 => Code::ResourceExhausted,
        499 => Code::Cancelled,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        400..=499 => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// A field of a message that this server can't honour.
pub(crate) fn refused(field: &str, why: &str) -> Status {
    let message = format!("{field}: {why}");
    let mut details = ErrorDetails::with_bad_request_violation(field, &message);
    details.set_error_info("UNSUPPORTED_VALUE", DOMAIN, []);
    Status::with_error_details(Code::InvalidArgument, message, details)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_keep_what_they_say() {
        let names: Names = &[("max_tokens", "stopping.max_new_tokens"), ("n", "sampling.num_sequences")];
        let retry = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded", "the limit is 2")
            .with_retry_after(Duration::from_secs(30));
        let cases = [
            (ApiError::field("n", "n is 0: none"), Code::InvalidArgument, "sampling.num_sequences is 0: none"),
            (
                ApiError::field("max_tokens", "the answer may have no tokens"),
                Code::InvalidArgument,
                "stopping.max_new_tokens: the answer may have no tokens",
            ),
            (ApiError::field("prompt", "prompt is missing"), Code::InvalidArgument, "prompt is missing"),
            (ApiError::not_found("model_not_found", "no such"), Code::NotFound, "no such"),
            (ApiError::cancelled(), Code::Cancelled, "the request was cancelled"),
            (ApiError::shutting_down(), Code::Unavailable, "the server is shutting down"),
            (ApiError::engine("broken"), Code::Internal, "broken"),
            (retry, Code::ResourceExhausted, "the limit is 2"),
        ];
        for (error, code, message) in cases {
            let status = renamed(&error, names);
            assert_eq!((status.code(), status.message()), (code, message));
            let details = status.get_error_details();
            let wanted = error.code().map(str::to_ascii_uppercase);
            assert_eq!(details.error_info().map(|info| info.reason.clone()), wanted, "{message}");
            let delay = details.retry_info().and_then(|info| info.retry_delay).map(|delay| delay.as_secs());
            let wanted = match code {
                Code::ResourceExhausted => Some(30),
                Code::Unavailable => Some(1),
                _ => None,
            };
            assert_eq!(delay, wanted, "{message}");
            assert_eq!(details.bad_request().is_some(), error.param().is_some(), "{message}");
        }
    }
}
