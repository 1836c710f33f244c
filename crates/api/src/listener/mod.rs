//! The sockets under the routes: accepts connections, with or without TLS, bounds them in number and in time, and lets them end in order.

mod tls;

use std::{convert::Infallible, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body, http::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
pub use tls::{Tls, TlsFiles, TlsSettings};
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

    /// Serves until `drain` is ready; then takes no more connections, closes those that are idle, and waits for the requests under way.
    pub async fn serve(self, router: Router, drain: impl Future<Output = ()>) {
        let Self { tcp, tls, limits } = self;
        let slots = Arc::new(Semaphore::new(limits.count.min(Semaphore::MAX_PERMITS)));
        let (end, ending) = watch::channel(false);
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(limits.head);
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
                http: http.clone(),
                router: router.clone(),
                peer: Peer(peer.ip()),
                seat: Seat::new(slot, ending.clone()),
            };
            // Tokens are small and should not wait for company.
            let _ = stream.set_nodelay(true);
            match &tls {
                None => drop(tokio::spawn(connection.run(stream))),
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

struct Connection {
    http: http1::Builder,
    router: Router,
    peer: Peer,
    seat: Seat,
}

impl Connection {
    async fn run(self, stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
        let Self { http, router, peer, mut seat } = self;
        let given = seat.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(given.clone());
            answer(router.clone(), request.map(Body::new))
        });
        let mut served = pin!(http.serve_connection(TokioIo::new(stream), service).with_upgrades());
        let result = tokio::select! {
            result = &mut served => result,
            () = seat.ending() => {
                served.as_mut().graceful_shutdown();
                served.await
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, peer = %peer.0, "a connection broke");
        }
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
