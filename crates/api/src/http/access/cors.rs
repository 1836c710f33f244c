//! Cross-origin requests: which pages' scripts may read our answers.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    middleware::Next,
    response::Response,
};

use crate::http::App;

/// What scripts may send.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What scripts may read of an answer's head, beyond what they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, request-id, retry-after, x-ratelimit-limit-requests, x-ratelimit-remaining-requests, x-ratelimit-reset-requests, \
     x-ratelimit-limit-tokens, x-ratelimit-remaining-tokens, x-ratelimit-reset-tokens",
);
/// How long a browser may remember what we allow, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");

/// Origins as browsers name them. The default is none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Origins {
    any: bool,
    listed: Vec<String>,
}

/// Something that no browser sends as an origin.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no origin: use * for all, or a scheme and a host, as https://chat.example.com or http://localhost:3000"
)]
pub struct InvalidOrigin(String);

impl Origins {
    /// Adds `*`, an origin, or a JSON list of them as vLLM's flag takes it.
    ///
    /// # Errors
    /// If it is neither.
    pub fn add(&mut self, origin: &str) -> Result<(), InvalidOrigin> {
        let invalid = || InvalidOrigin(origin.to_owned());
        if origin.starts_with('[') {
            let list: Vec<String> = serde_json::from_str(origin).map_err(|_| invalid())?;
            return list.iter().try_for_each(|origin| self.add(origin));
        }
        if origin == "*" {
            self.any = true;
            return Ok(());
        }
        let (scheme, host) = origin.split_once("://").ok_or_else(invalid)?;
        let stray = |c: char| !c.is_ascii_graphic() || matches!(c, '/' | '*' | '?' | '#' | '@' | ',');
        if scheme.is_empty() || host.is_empty() || origin.replacen("://", "", 1).contains(stray) {
            return Err(invalid());
        }
        self.listed.push(origin.to_ascii_lowercase());
        Ok(())
    }

    fn is_empty(&self) -> bool {
        !self.any && self.listed.is_empty()
    }

    /// What to answer to a request from `origin`; `None`: nothing, so that its browser keeps the answer from it.
    fn allow(&self, origin: &HeaderValue) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        let sent = origin.as_bytes();
        self.listed.iter().any(|listed| listed.as_bytes().eq_ignore_ascii_case(sent)).then(|| origin.clone())
    }
}

/// Answers preflights and marks answers, for origins that are allowed. Anything else passes as if it came from no page.
pub async fn layer(State(app): State<App>, request: Request, next: Next) -> Response {
    let rules = app.shared.access.rules();
    if rules.origins.is_empty() {
        return next.run(request).await;
    }
    let allowed = request.headers().get(header::ORIGIN).and_then(|origin| rules.origins.allow(origin));
    let mut response = match &allowed {
        Some(_) if is_preflight(&request) => preflight(request.headers()),
        _ => next.run(request).await,
    };
    let headers = response.headers_mut();
    if !rules.origins.any {
        headers.append(header::VARY, HeaderValue::from_static("origin"));
    }
    if let Some(origin) = allowed {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    }
    response
}

fn is_preflight(request: &Request) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

fn preflight(asked: &HeaderMap) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, MAX_AGE);
    // SDKs send headers of their own, and new ones with every release. None of them opens anything without a key.
    if let Some(wanted) = asked.get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
        headers.append(header::VARY, HeaderValue::from_static("access-control-request-headers"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(list: &[&str]) -> Result<Origins, InvalidOrigin> {
        let mut origins = Origins::default();
        list.iter().try_for_each(|origin| origins.add(origin))?;
        Ok(origins)
    }

    #[test]
    fn origins_that_are_allowed() {
        let page = "https://chat.example.com";
        let cases: [(&[&str], &str, Option<&str>); 8] = [
            (&[], page, None),
            (&["*"], page, Some("*")),
            (&[page], page, Some(page)),
            (&["https://Chat.Example.com"], page, Some(page)),
            (&[page], "http://chat.example.com", None),
            (&[page], "https://chat.example.com.evil.org", None),
            (&["http://localhost:3000"], "http://localhost:3001", None),
            (&[r#"["http://localhost:3000", "app://obsidian.md"]"#], "app://obsidian.md", Some("app://obsidian.md")),
        ];
        for (list, sent, wanted) in cases {
            let allowed = origins(list).unwrap().allow(&HeaderValue::from_static(sent));
            assert_eq!(allowed.as_ref().map(|value| value.to_str().unwrap()), wanted, "{list:?} {sent}");
        }
    }

    #[test]
    fn what_is_no_origin() {
        let cases = [
            "",
            "example.com",
            "https://",
            "https://a/",
            "https://a/b",
            "https://*.a",
            "https://a,https://b",
            "[1]",
            "null",
        ];
        for text in cases {
            assert!(origins(&[text]).is_err(), "{text:?}");
        }
    }
}
