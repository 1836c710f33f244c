//! HTTP and HTTPS.
//!
//! One request, one connection, to an address that was looked at: a name is looked up once, and what was found and judged is
//! what is connected to, so that a second answer of its server (DNS rebinding) has no say. There are no proxies from the
//! environment, no cookies, no credentials and no compressed bodies; a redirect is judged like a new address.

use std::{future::Future, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    task::JoinSet,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    FetchPolicy,
    address::is_public,
    policy::{Allowed, Domains},
};
use crate::{
    MediaError, MediaErrorKind,
    limits::{check_bytes, too_many_bytes},
    source::address,
};

const MAX_REDIRECTS: usize = 5;
/// For a connection to one of a host's addresses, of which there may be more.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Bytes of an answer's head.
const MAX_HEAD: usize = 64 << 10;
const AGENT: &str = concat!("vllm-mlx/", env!("CARGO_PKG_VERSION"));

/// The addresses of a host's port.
type Lookup = dyn Fn(String, u16) -> Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>> + Send + Sync;

/// Fetches over HTTP what a [`FetchPolicy`] allows.
pub(crate) struct Fetcher {
    domains: Domains,
    allow_private: bool,
    lookup: Box<Lookup>,
    tls: TlsConnector,
}

/// What a server answers.
enum Answer {
    Body(Bytes),
    Elsewhere(Uri),
}

impl Fetcher {
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for a domain that can't be one.
    pub fn new(policy: &FetchPolicy) -> Result<Self, MediaError> {
        let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config =
            config.map_err(|error| MediaError::new(MediaErrorKind::Unsupported, format!("no TLS: {error}")))?;
        let mut config = config.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            domains: Domains::new(&policy.allowed_domains)?,
            allow_private: policy.allow_private_networks,
            lookup: Box::new(|host, port| Box::pin(async move { Ok(lookup_host((host, port)).await?.collect()) })),
            tls: TlsConnector::from(Arc::new(config)),
        })
    }

    /// Whether there is a host that may be asked.
    pub fn may_fetch(&self) -> bool {
        !self.domains.is_empty()
    }

    /// What an address has, if that is at most `allowed` bytes and comes within `time`.
    ///
    /// # Errors
    /// [`MediaErrorKind::Forbidden`] before anything is asked of a host that isn't allowed, or isn't where it may be;
    /// [`MediaErrorKind::TooLarge`], [`MediaErrorKind::Timeout`] and [`MediaErrorKind::Unreachable`] for the rest.
    pub async fn fetch(&self, what: &str, url: &Uri, allowed: usize, time: Duration) -> Result<Bytes, MediaError> {
        timeout(time, self.follow(what, url.clone(), allowed)).await.unwrap_or_else(|_| {
            let message = format!("fetching the {what} took longer than {} s", time.as_secs_f64());
            Err(MediaError::new(MediaErrorKind::Timeout, message))
        })
    }

    async fn follow(&self, what: &str, mut url: Uri, allowed: usize) -> Result<Bytes, MediaError> {
        for _ in 0..=MAX_REDIRECTS {
            match self.ask(what, &url, allowed).await? {
                Answer::Body(body) => return Ok(body),
                Answer::Elsewhere(next) if is_https(&url) && !is_https(&next) => {
                    return Err(forbidden("it redirects from https: to http:, which is not followed"));
                }
                Answer::Elsewhere(next) => url = next,
            }
        }
        Err(unreachable(format!("it redirects more than {MAX_REDIRECTS} times")))
    }

    async fn ask(&self, what: &str, url: &Uri, allowed: usize) -> Result<Answer, MediaError> {
        let stream = self.connect(url).await?;
        // Dropped, and with it the connection, when this function is left, however.
        let mut connection = JoinSet::new();
        let response = if is_https(url) {
            let name = ServerName::try_from(host(url).to_owned());
            let name =
                name.map_err(|_| MediaError::new(MediaErrorKind::Invalid, "no certificate can be for this host"))?;
            let stream = self.tls.connect(name, stream).await;
            send(url, stream.map_err(|error| unreachable(format!("TLS: {error}")))?, &mut connection).await?
        } else {
            send(url, stream, &mut connection).await?
        };
        let status = response.status();
        if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
            let to = response.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.ok_or_else(|| unreachable("it redirects to nowhere"))?;
            return Ok(Answer::Elsewhere(join(url, to)?));
        }
        if status != StatusCode::OK {
            return Err(unreachable(format!("its server answers {status}")));
        }
        if response.headers().get(header::CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return Err(unreachable("its server compresses what it was asked for as it is"));
        }
        Ok(Answer::Body(body(what, response, allowed).await?))
    }

    /// A connection to a host, if that is allowed and is where it may be.
    async fn connect(&self, url: &Uri) -> Result<TcpStream, MediaError> {
        if self.domains.is_empty() {
            return Err(forbidden("fetching is off: the server's --allowed-media-domains names no hosts"));
        }
        if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(forbidden("an address with a user's name or password is not fetched"));
        }
        let host = host(url);
        let Some(how) = self.domains.allow(host) else {
            return Err(forbidden(format!("{host} is not among the server's --allowed-media-domains")));
        };
        let port = url.port_u16().unwrap_or(if is_https(url) { 443 } else { 80 });
        let addresses = (self.lookup)(host.to_owned(), port).await;
        let addresses = addresses.map_err(|error| unreachable(format!("{host} can't be looked up: {error}")))?;
        let private_too = self.allow_private && how == Allowed::ByName;
        // A name with addresses of both kinds is one that somebody plays with.
        if !private_too && addresses.iter().any(|address| !is_public(address.ip())) {
            return Err(forbidden(format!("{host} is in a private network, from which nothing is fetched")));
        }
        let mut last = format!("{host} has no address");
        for address in addresses {
            match timeout(CONNECT_TIME, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = format!("{host} can't be connected to: {error}"),
                Err(_) => last = format!("{host} can't be connected to within {} s", CONNECT_TIME.as_secs()),
            }
        }
        Err(unreachable(last))
    }
}

/// Asks for `url` over a connection, of which a task among `connection` takes care.
async fn send<S>(url: &Uri, stream: S, connection: &mut JoinSet<()>) -> Result<Response<Incoming>, MediaError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: hyper::Error| unreachable(format!("its server doesn't answer: {error}"));
    let handshake = http1::Builder::new().max_buf_size(MAX_HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, driver) = handshake.map_err(failed)?;
    connection.spawn(async move {
        // What goes wrong there, the sender or the body tells.
        let _ = driver.await;
    });
    let authority = url.authority().map_or("", |authority| authority.as_str());
    let request = Request::get(url.path_and_query().map_or("/", |path| path.as_str()))
        .header(header::HOST, authority)
        .header(header::USER_AGENT, AGENT)
        .header(header::ACCEPT, "image/*, video/*;q=0.9, */*;q=0.8")
        .header(header::ACCEPT_ENCODING, "identity")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| MediaError::new(MediaErrorKind::Invalid, format!("the address: {error}")))?;
    sender.send_request(request).await.map_err(failed)
}

/// A body of at most `allowed` bytes. One that says that it is longer is not begun.
async fn body(what: &str, response: Response<Incoming>, allowed: usize) -> Result<Bytes, MediaError> {
    let length = response.headers().get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > allowed as u64) {
        return Err(too_many_bytes(what, allowed));
    }
    let mut whole = BytesMut::new();
    let mut body = response.into_body();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unreachable(format!("it broke off: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > allowed - whole.len() {
            return Err(too_many_bytes(what, allowed));
        }
        whole.extend_from_slice(&data);
    }
    check_bytes(what, whole.len(), allowed)?;
    Ok(whole.freeze())
}

/// Where a redirect leads from `from`.
fn join(from: &Uri, to: &str) -> Result<Uri, MediaError> {
    let scheme = if is_https(from) { "https" } else { "http" };
    let authority = from.authority().map_or("", |authority| authority.as_str());
    let path = from.path();
    let folder = &path[..=path.rfind('/').unwrap_or(0)];
    let has_scheme = to.split(['/', '?', '#']).next().is_some_and(|start| start.contains(':'));
    let absolute = match to {
        _ if has_scheme => to.to_owned(),
        _ if to.starts_with("//") => format!("{scheme}:{to}"),
        _ if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        _ if to.starts_with('?') => format!("{scheme}://{authority}{path}{to}"),
        _ => format!("{scheme}://{authority}{folder}{to}"),
    };
    address(&absolute)
}

fn is_https(url: &Uri) -> bool {
    url.scheme_str() == Some("https")
}

/// Without the brackets of an IPv6 address.
fn host(url: &Uri) -> &str {
    url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']')
}

fn forbidden(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Forbidden, format!("the address can't be fetched: {}", message.into()))
}

fn unreachable(message: impl Into<String>) -> MediaError {
    MediaError::new(MediaErrorKind::Unreachable, format!("the address can't be fetched: {}", message.into()))
}

#[cfg(test)]
mod tests;
