//! A client of any server that speaks OpenAI's API, with a watch.

use std::{
    fmt,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Method, Request, StatusCode, Uri, header},
};
use futures_util::StreamExt as _;
use hyper_util::{
    client::legacy::{self, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::Value;

use super::{
    answer::{Answer, Collector},
    sse,
};

/// Why a request failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What kind of failure, for counting.
    pub kind: Kind,
    /// What the server, or the system, had to say.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// No connection, or none that lasted until the answer's head.
    Connect,
    /// A status other than 200.
    Status(u16),
    /// The answer's body ended before the answer did, or made no sense.
    Broken,
    /// The server reported an error in the middle of the answer.
    Server,
    /// It took longer than --request-timeout.
    Timeout,
    /// Not sent, because the turn before it failed.
    NotSent,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect => f.write_str("connect"),
            Self::Status(status) => write!(f, "http {status}"),
            Self::Broken => f.write_str("broken stream"),
            Self::Server => f.write_str("server error"),
            Self::Timeout => f.write_str("timeout"),
            Self::NotSent => f.write_str("not sent"),
        }
    }
}

impl Failure {
    /// Of this kind, for this reason.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// A server.
#[derive(Debug)]
pub struct Client {
    http: legacy::Client<HttpConnector, Body>,
    base: String,
    authorization: Option<HeaderValue>,
    timeout: Duration,
}

/// Longest part of a body that is quoted in an error.
const QUOTED: usize = 200;

impl Client {
    /// A client of the server at `url`, with or without `/v1` at its end.
    ///
    /// # Errors
    /// A URL that is not `http://…`; a key with characters that no header takes.
    pub fn new(url: &str, api_key: Option<&str>, timeout: Duration) -> anyhow::Result<Self> {
        let base = url.trim_end_matches('/').trim_end_matches("/v1").trim_end_matches('/').to_owned();
        if base.starts_with("https:") {
            bail!(
                "{url}: https is not supported, as encryption is not what is measured; use http, or a proxy that adds it"
            );
        }
        let uri: Uri = base.parse().with_context(|| format!("{url} is not a URL"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() {
            bail!("{url} is not a URL such as http://127.0.0.1:8000");
        }
        let authorization = api_key.map(|key| HeaderValue::try_from(format!("Bearer {key}")));
        let authorization =
            authorization.transpose().context("the API key has characters that a header cannot carry")?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        // A connection for each request: some servers (llama-server) close a connection after an answer without saying so, and a
        // request that is just being sent on it would count as failed.
        let http = legacy::Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Ok(Self { http, base, authorization, timeout })
    }

    /// The first model that the server lists.
    ///
    /// # Errors
    /// No answer, an error, or an empty list.
    pub async fn first_model(&self) -> anyhow::Result<String> {
        let request = self.request(Method::GET, "/v1/models", Body::empty())?;
        let answer = async {
            let response = self.http.request(request).await?;
            let status = response.status();
            let body = axum::body::to_bytes(Body::new(response.into_body()), 1 << 24).await?;
            anyhow::Ok((status, body))
        };
        let answer = tokio::time::timeout(self.timeout, answer).await.context("no answer in time")?;
        let (status, body) = answer.with_context(|| format!("cannot ask {}/v1/models", self.base))?;
        if status != StatusCode::OK {
            bail!("{}/v1/models says {status}: {}", self.base, quoted(&body));
        }
        let models: Value = serde_json::from_slice(&body)
            .with_context(|| format!("{}/v1/models answers something that is not JSON", self.base))?;
        let first = models["data"][0]["id"].as_str();
        first.map(str::to_owned).with_context(|| format!("{}/v1/models lists none: give --model", self.base))
    }

    /// Sends `body`, which asks for a stream, and takes the answer's times.
    ///
    /// # Errors
    /// Anything that kept the answer from being complete.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<Answer, Failure> {
        let broken = |error: &dyn fmt::Display| Failure::new(Kind::Broken, error.to_string());
        let request = self.request(Method::POST, path, body.to_string().into()).map_err(|error| broken(&error))?;
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(Failure::new(Kind::Timeout, format!("no complete answer within {:?}", self.timeout))),
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Answer, Failure> {
        let broken = |error: &dyn std::error::Error| Failure::new(Kind::Broken, with_causes(error));
        let mut collector = Collector::new(Instant::now());
        let response = self.http.request(request).await;
        let response = response.map_err(|error| Failure::new(Kind::Connect, with_causes(&error)))?;
        let status = response.status();
        let body = Body::new(response.into_body());
        if status != StatusCode::OK {
            let body = axum::body::to_bytes(body, 1 << 20).await.unwrap_or_default();
            return Err(Failure::new(Kind::Status(status.as_u16()), quoted(&body)));
        }
        let mut pieces = body.into_data_stream();
        let mut parser = sse::Parser::default();
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(|error| broken(&error))?;
            let now = Instant::now();
            for data in parser.push(&piece) {
                collector.event(&data, now)?;
            }
        }
        collector.end(Instant::now())
    }

    fn request(&self, method: Method, path: &str, body: Body) -> anyhow::Result<Request<Body>> {
        let mut request =
            Request::builder().method(method).uri(format!("{}{path}", self.base)).header(header::ACCEPT, "*/*");
        request = request.header(header::CONTENT_TYPE, "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        Ok(request.body(body)?)
    }
}

/// The beginning of a body, on one line.
fn quoted(body: &Bytes) -> String {
    let text = String::from_utf8_lossy(body);
    let mut line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((cut, _)) = line.char_indices().nth(QUOTED) {
        line.truncate(cut);
        line.push('…');
    }
    line
}

/// An error and what caused it, which is where hyper says what happened.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_with_and_without_v1() {
        let cases = [
            ("http://127.0.0.1:8000", Some("http://127.0.0.1:8000")),
            ("http://127.0.0.1:8000/", Some("http://127.0.0.1:8000")),
            ("http://host/v1", Some("http://host")),
            ("http://host/v1/", Some("http://host")),
            ("http://host/proxy/v1", Some("http://host/proxy")),
            ("https://host", None),
            ("127.0.0.1:8000", None),
            ("ftp://host", None),
            ("http://", None),
            ("", None),
        ];
        for (url, wanted) in cases {
            let client = Client::new(url, Some("key"), Duration::from_secs(1));
            assert_eq!(client.ok().map(|client| client.base).as_deref(), wanted, "{url}");
        }
        assert!(Client::new("http://host", Some("a\nb"), Duration::from_secs(1)).is_err());
    }

    #[test]
    fn quotes_are_one_short_line() {
        assert_eq!(quoted(&Bytes::from_static(b"{\n  \"error\": 1\n}")), "{ \"error\": 1 }");
        assert_eq!(quoted(&Bytes::from("ü".repeat(500))).chars().count(), QUOTED + 1);
    }
}
