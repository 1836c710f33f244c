//! The sockets under the routes: accepts connections, with or without TLS, bounds them in number and in time, and lets them end in order.

mod tls;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
pub use tls::{Alpn, Tls, TlsFiles, TlsSettings};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::http::{Peer, Seat};

/// Longest TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long to wait when connections can't be accepted, e.g. because too many files are open.
const PAUSE: Duration = Duration::from_secs(1);

/// How often a connection over HTTP/2 is asked whether it is still there, and how long its answer may take: a machine that has
/// gone says nothing, and holds its place for as long.
const PING: Duration = Duration::from_secs(30);
const PONG: Duration = Duration::from_secs(20);
/// Calls of one connection under way at once; a gateway sends all of its own over one or few.
const STREAMS: u32 = 1024;
/// Longest headers of a call, in bytes.
const HEADERS: u32 = 64 << 10;

/// What connections may take.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Most connections at once; more wait in the system's queue.
    pub count: usize,
    /// Longest time for a request's head to come in, and so for a connection to be idle; `None`: for ever.
    pub head: Option<Duration>,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self { count: 4096, head: Some(Duration::from_secs(60)) }
    }
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    tls: Option<Arc<Tls>>,
    limits: ConnectionLimits,
}

impl Listener {
    /// Listens on an address, with TLS if there are certificates.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn bind(host: &str, port: u16, tls: Option<Arc<Tls>>, limits: ConnectionLimits) -> io::Result<Self> {
        Ok(Self { tcp: TcpListener::bind((host, port)).await?, tls, limits })
    }

    /// Where it listens: of port 0, the one that the system chose.
    ///
    /// # Errors
    /// If the system doesn't say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// `http` or `https`.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// Serves HTTP/1.1 until `drain` is ready; then takes no more connections, closes those that are idle, and waits for the
    /// requests under way.
    pub async fn serve(self, router: Router, drain: impl Future<Output = ()>) {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.head);
        self.serve_with(Protocol::One(http), router, drain).await;
    }

    /// The same over HTTP/2, which gRPC is on, from the first byte: with TLS, clients agree to it in the handshake.
    pub async fn serve_grpc(self, router: Router, drain: impl Future<Output = ()>) {
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEADERS)
            .adaptive_window(true);
        self.serve_with(Protocol::Two(http), router, drain).await;
    }

    async fn serve_with(self, protocol: Protocol, router: Router, drain: impl Future<Output = ()>) {
        let Self { tcp, tls, limits } = self;
        let slots = Arc::new(Semaphore::new(limits.count.min(Semaphore::MAX_PERMITS)));
        let (end, ending) = watch::channel(false);
        let next = async || {
            // Closed it never is.
            let slot = Arc::clone(&slots).acquire_owned().await.ok()?;
            Some((accept(&tcp).await, slot))
        };
        let mut drain = pin!(drain);
        loop {
            let ((stream, peer), slot) = tokio::select! {
                Some(accepted) = next() => accepted,
                () = &mut drain => break,
            };
            let connection = Connection {
                protocol: protocol.clone(),
                head: limits.head,
                router: router.clone(),
                peer: Peer(peer.ip()),
                seat: Seat::new(slot, ending.clone()),
            };
            // Tokens are small and should not wait for company.
            let _ = stream.set_nodelay(true);
            match &tls {
                None => drop(tokio::spawn(connection.run_plain(stream))),
                Some(tls) => drop(tokio::spawn(connection.run_tls(stream, tls.acceptor()))),
            }
        }
        drop((tcp, ending));
        end.send_replace(true);
        // Until the last connection has gone.
        end.closed().await;
    }
}

async fn accept(tcp: &TcpListener) -> (TcpStream, SocketAddr) {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    loop {
        match tcp.accept().await {
            Ok(accepted) => return accepted,
            // It was gone before we had it.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept connections");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// What is spoken on a port.
#[derive(Clone)]
enum Protocol {
    /// HTTP/1.1.
    One(http1::Builder),
    /// HTTP/2.
    Two(http2::Builder<TokioExecutor>),
}

struct Connection {
    protocol: Protocol,
    /// Longest time until a client has said something.
    head: Option<Duration>,
    router: Router,
    peer: Peer,
    seat: Seat,
}

impl Connection {
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { protocol, router, peer, mut seat, .. } = self;
        let given = seat.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(given.clone());
            answer(router.clone(), request.map(Body::new))
        });
        let stream = TokioIo::new(stream);
        // The same for both, whose types have nothing in common.
        let result = match protocol {
            Protocol::One(http) => {
                let mut served = pin!(http.serve_connection(stream, service).with_upgrades());
                tokio::select! {
                    result = &mut served => result,
                    () = seat.ending() => {
                        served.as_mut().graceful_shutdown();
                        served.await
                    }
                }
            }
            Protocol::Two(http) => {
                let mut served = pin!(http.serve_connection(stream, service));
                tokio::select! {
                    result = &mut served => result,
                    () = seat.ending() => {
                        served.as_mut().graceful_shutdown();
                        served.await
                    }
                }
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, peer = %peer.0, "a connection broke");
        }
    }

    /// HTTP/1.1 has a time limit of its own on heads; HTTP/2 asks whether somebody is there only once it has begun.
    async fn run_plain(self, stream: TcpStream) {
        let limit = match self.protocol {
            Protocol::One(_) => None,
            Protocol::Two(_) => self.head,
        };
        if let Some(limit) = limit
            && tokio::time::timeout(limit, stream.readable()).await.is_err()
        {
            return tracing::debug!(peer = %self.peer.0, "a connection said nothing");
        }
        self.run(stream).await;
    }

    async fn run_tls(self, stream: TcpStream, acceptor: TlsAcceptor) {
        match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => self.run(stream).await,
            Ok(Err(error)) => tracing::debug!(%error, peer = %self.peer.0, "a TLS handshake failed"),
            Err(_) => tracing::debug!(peer = %self.peer.0, "a TLS handshake took too long"),
        }
    }
}

async fn answer(router: Router, request: Request<Body>) -> Result<Response, Infallible> {
    router.oneshot(request).await
}
