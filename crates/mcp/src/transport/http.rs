//! Streamable HTTP over the HTTP client and the TLS that this program has anyhow. Redirects are not followed: a server
//! must not send a request's headers elsewhere.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use rmcp::{
    model::{ClientJsonRpcMessage, ServerJsonRpcMessage},
    transport::{
        common::http_header::{EVENT_STREAM_MIME_TYPE, HEADER_LAST_EVENT_ID, HEADER_SESSION_ID, JSON_MIME_TYPE},
        streamable_http_client::{
            SseError, StreamableHttpClient, StreamableHttpError, StreamableHttpPostResponse as Answer,
        },
    },
};
use sse_stream::Sse;

use super::sse::events;

/// Longest answer that is no stream, and longest event of one.
const MAX_MESSAGE: usize = 16 << 20;
/// What of an unexpected answer an error shows.
const MAX_SHOWN: usize = 300;

/// The client of one server.
#[derive(Debug, Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What failed on the way.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request did not go out, or nothing came back.
    #[error("{}", with_causes(.0))]
    Send(#[source] hyper_util::client::legacy::Error),
    /// The answer broke off, or is too long.
    #[error("{}", with_causes(.0.as_ref()))]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The address or a header.
    #[error("{0}")]
    Request(#[from] http::Error),
    /// No TLS.
    #[error("TLS: {0}")]
    Tls(#[from] rustls::Error),
}

type Error = StreamableHttpError<HttpError>;
type Headers = HashMap<HeaderName, HeaderValue>;

impl HttpClient {
    /// A client that gives up on a connection after `connect`.
    ///
    /// # Errors
    /// No usable TLS.
    pub fn new(connect: Duration) -> Result<Self, HttpError> {
        let mut tcp = HttpConnector::new();
        tcp.set_connect_timeout(Some(connect));
        tcp.enforce_http(false);
        let tls =
            HttpsConnectorBuilder::new().with_provider_and_webpki_roots(rustls::crypto::ring::default_provider())?;
        let connector = tls.https_or_http().enable_http1().wrap_connector(tcp);
        Ok(Self { client: Client::builder(TokioExecutor::new()).build(connector) })
    }

    async fn send(
        &self,
        request: http::request::Builder,
        headers: Headers,
        body: Bytes,
    ) -> Result<Response<Incoming>, Error> {
        let mut request = request.body(Full::new(body)).map_err(|error| Error::Client(error.into()))?;
        // Not `extend`, which would add to what the protocol itself has set.
        for (name, value) in headers {
            request.headers_mut().insert(name, value);
        }
        let response = self.client.request(request).await.map_err(|error| Error::Client(HttpError::Send(error)))?;
        if response.status().is_redirection() {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok()).unwrap_or("nowhere");
            let message = format!("HTTP {}: it redirects to {to}; use that address", response.status());
            return Err(Error::UnexpectedServerResponse(message.into()));
        }
        Ok(response)
    }
}

/// A request as all of them begin.
fn request(method: Method, uri: &str, session: Option<&str>, token: Option<&str>) -> http::request::Builder {
    let mut request = Request::builder().method(method).uri(uri);
    request = request.header(header::ACCEPT, format!("{EVENT_STREAM_MIME_TYPE}, {JSON_MIME_TYPE}"));
    if let Some(session) = session {
        request = request.header(HEADER_SESSION_ID, session);
    }
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    request
}

/// The whole of a body that is no stream.
async fn whole(response: Response<Incoming>) -> Result<Bytes, Error> {
    let body = Limited::new(response.into_body(), MAX_MESSAGE).collect().await;
    Ok(body.map_err(|error| Error::Client(HttpError::Body(error)))?.to_bytes())
}

/// The error that an unexpected answer is.
async fn unexpected(status: StatusCode, response: Response<Incoming>) -> Error {
    let body = whole(response).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    let shown: String = text.chars().take(MAX_SHOWN).collect();
    Error::UnexpectedServerResponse(format!("HTTP {status}: {}", shown.trim()).into())
}

fn is(response: &Response<Incoming>, kind: &str) -> bool {
    let content_type = response.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    content_type.get(..kind.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(kind.as_bytes()))
}

impl StreamableHttpClient for HttpClient {
    type Error = HttpError;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<Answer, Error> {
        let expects_answer = matches!(message, ClientJsonRpcMessage::Request(_));
        let body = serde_json::to_vec(&message)?;
        let request = request(Method::POST, &uri, session.as_deref(), token.as_deref())
            .header(header::CONTENT_TYPE, JSON_MIME_TYPE);
        let response = self.send(request, headers, body.into()).await?;
        let status = response.status();
        if status == StatusCode::NOT_FOUND && session.is_some() {
            return Err(Error::SessionExpired);
        }
        if !status.is_success() {
            if !(expects_answer && is(&response, JSON_MIME_TYPE)) {
                return Err(unexpected(status, response).await);
            }
            // The protocol's own error, under whatever status.
            let body = whole(response).await?;
            return match serde_json::from_slice(&body) {
                Ok(error @ ServerJsonRpcMessage::Error(_)) => Ok(Answer::Json(error, None)),
                _ => Err(Error::UnexpectedServerResponse(format!("HTTP {status}").into())),
            };
        }
        if !expects_answer || matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT) {
            return Ok(Answer::Accepted);
        }
        let session = response.headers().get(HEADER_SESSION_ID).and_then(|id| id.to_str().ok()).map(str::to_owned);
        if is(&response, EVENT_STREAM_MIME_TYPE) {
            return Ok(Answer::Sse(events(response.into_body().into_data_stream(), MAX_MESSAGE), session));
        }
        if is(&response, JSON_MIME_TYPE) {
            return Ok(Answer::Json(serde_json::from_slice(&whole(response).await?)?, session));
        }
        Err(unexpected(status, response).await)
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<(), Error> {
        let request = request(Method::DELETE, &uri, Some(&session), token.as_deref());
        let response = self.send(request, headers, Bytes::new()).await?;
        // A server need not have sessions that can be ended.
        match response.status() {
            status if status.is_success() || status == StatusCode::METHOD_NOT_ALLOWED => Ok(()),
            status => Err(unexpected(status, response).await),
        }
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Error> {
        let mut request = request(Method::GET, &uri, session.as_deref(), token.as_deref());
        if let Some(id) = last_event {
            request = request.header(HEADER_LAST_EVENT_ID, id);
        }
        let response = self.send(request, headers, Bytes::new()).await?;
        match response.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(Error::ServerDoesNotSupportSse),
            StatusCode::NOT_FOUND if session.is_some() => Err(Error::SessionExpired),
            status if !status.is_success() => Err(unexpected(status, response).await),
            _ if !is(&response, EVENT_STREAM_MIME_TYPE) => Err(Error::ServerDoesNotSupportSse),
            _ => Ok(events(response.into_body().into_data_stream(), MAX_MESSAGE)),
        }
    }
}

/// hyper says "client error (Connect)" and leaves the reason to the causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
