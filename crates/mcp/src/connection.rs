//! One connection to a server, from the first word to the last.

use std::{pin::Pin, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use rmcp::{
    ClientHandler, RoleClient,
    model::{
        ClientCapabilities, ClientConfig, Implementation, PaginatedRequestParams, ProtocolVersion, SubscriptionFilter,
        Tool,
    },
    service::{
        ClientCacheConfig, ClientInitializeError, ClientLifecycleMode, ClientServiceExt as _, NotificationContext,
        Peer, RunningService, RunningServiceCancellationToken,
    },
    transport::{
        IntoTransport, StreamableHttpClientTransport, common::client_side_sse::ExponentialBackoff,
        streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use crate::{
    config::Endpoint,
    transport::{Guarded, child::Child, http::HttpClient},
};

/// How long a TCP connection may take.
const TCP_CONNECT: Duration = Duration::from_secs(10);
/// How long a process whose pipe is closed has to end, for its status to be known.
const LAST_WORDS: Duration = Duration::from_millis(100);
/// Most pages of tools, most tools, and most bytes of all that is said about them.
const MAX_PAGES: usize = 100;
const MAX_TOOLS: usize = 1000;
const MAX_LISTING: usize = 8 << 20;

/// A server that said hello.
pub struct Connection {
    peer: Peer<RoleClient>,
    end: RunningServiceCancellationToken,
    /// Over when the connection is; `None` after that.
    ended: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
    child: Option<Child>,
    subscription: Option<JoinHandle<()>>,
}

impl Connection {
    /// Reaches the server and greets it: as servers are greeted since 2024, and if it says that it no longer
    /// understands that, as since 2026. `changed` hears when its tools change.
    ///
    /// # Errors
    /// Why it can't be used, in words.
    pub async fn open(server: &str, endpoint: &Endpoint, changed: &Arc<Notify>) -> Result<Self, String> {
        let mut connection = match Self::greet(server, endpoint, changed, ClientLifecycleMode::Initialize).await {
            Err(Refusal::Greeting(refusal)) => {
                let discover = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::LATEST] };
                let second = Self::greet(server, endpoint, changed, discover).await;
                second.map_err(|_| format!("it refuses to be initialized: {refusal}"))?
            }
            Err(Refusal::Other(problem)) => return Err(problem),
            Ok(connection) => connection,
        };
        // Tools are asked for when they changed, or to see whether anybody is there: an old answer helps with neither.
        connection.peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
        connection.subscribe(changed);
        Ok(connection)
    }

    async fn greet(
        server: &str,
        endpoint: &Endpoint,
        changed: &Arc<Notify>,
        mode: ClientLifecycleMode,
    ) -> Result<Self, Refusal> {
        let ears = Ears { server: server.to_owned(), changed: Arc::clone(changed) };
        match endpoint {
            Endpoint::Stdio { command, args, env, cwd } => {
                let (mut child, pipes) = Child::start(server, command, args, env, cwd.as_deref())
                    .map_err(|error| Refusal::Other(format!("cannot start {command:?}: {error}")))?;
                match serve(ears, Guarded::new(pipes, server), mode).await {
                    Ok(service) => Ok(Self::of(service, Some(child))),
                    Err(Refusal::Other(problem)) => Err(Refusal::Other(match child.ended(LAST_WORDS).await {
                        Some(status) => format!("the process ended ({status}) before it was ready"),
                        None => problem,
                    })),
                    Err(refusal) => Err(refusal),
                }
            }
            Endpoint::Http { url, headers } => {
                let client = HttpClient::new(TCP_CONNECT).map_err(|error| Refusal::Other(error.to_string()))?;
                let pairs = headers.iter().filter_map(|(name, value)| {
                    let mut value = HeaderValue::try_from(value.reveal()).ok()?;
                    value.set_sensitive(true);
                    Some((HeaderName::try_from(name.as_str()).ok()?, value))
                });
                let mut config =
                    StreamableHttpClientTransportConfig::with_uri(url.as_str()).custom_headers(pairs.collect());
                let mut retry = ExponentialBackoff::default();
                retry.max_times = Some(5);
                retry.max_delay = Some(Duration::from_secs(10));
                config.retry_config = Arc::new(retry);
                let transport = StreamableHttpClientTransport::with_client(client, config);
                let service = serve(ears, Guarded::new(transport, server), mode).await?;
                Ok(Self::of(service, None))
            }
        }
    }

    fn of(service: RunningService<RoleClient, Ears>, child: Option<Child>) -> Self {
        let (peer, end) = (service.peer().clone(), service.cancellation_token());
        let ended = Box::pin(async move { drop(service.waiting().await) });
        Self { peer, end, ended: Some(ended), child, subscription: None }
    }

    /// Newer servers tell of changes to those only who ask.
    fn subscribe(&mut self, changed: &Arc<Notify>) {
        let Some(info) = self.peer.peer_info() else { return };
        let tells = info.capabilities.tools.as_ref().is_some_and(|tools| tools.list_changed == Some(true));
        if info.protocol_version.has_initialize() || !tells {
            return;
        }
        let (peer, changed) = (self.peer.clone(), Arc::clone(changed));
        self.subscription = Some(tokio::spawn(async move {
            let filter = SubscriptionFilter::builder().tools_list_changed().build();
            match peer.listen(filter).await {
                Ok(mut subscription) => {
                    while let Ok(Some(_)) = subscription.next().await {
                        changed.notify_one();
                    }
                }
                Err(error) => tracing::debug!(%error, "MCP server tells of no changes"),
            }
        }));
    }

    /// How to talk to it.
    pub fn peer(&self) -> &Peer<RoleClient> {
        &self.peer
    }

    /// All its tools, page by page.
    ///
    /// # Errors
    /// It doesn't say, or far too much.
    pub async fn tools(&self) -> Result<Vec<Tool>, String> {
        let mut tools: Vec<Tool> = vec![];
        let mut cursor = None;
        let mut bytes = 0;
        for _ in 0..MAX_PAGES {
            let params = PaginatedRequestParams::default().with_cursor(cursor);
            let page = self.peer.list_tools(Some(params)).await.map_err(|error| format!("tools/list: {error}"))?;
            bytes += page.tools.iter().map(size).sum::<usize>();
            tools.extend(page.tools);
            if tools.len() > MAX_TOOLS || bytes > MAX_LISTING {
                return Err(format!("tools/list: more than {MAX_TOOLS} tools, or {MAX_LISTING} bytes about them"));
            }
            cursor = page.next_cursor;
            if cursor.is_none() {
                return Ok(tools);
            }
        }
        Err(format!("tools/list: more than {MAX_PAGES} pages"))
    }

    /// Waits until the connection is over; says why.
    pub async fn ended(&mut self) -> String {
        let over = async {
            if let Some(ended) = &mut self.ended {
                ended.await;
            }
        };
        let status = match &mut self.child {
            // A process that has ended may have left its pipe to another.
            Some(child) => tokio::select! {
                status = child.wait() => status,
                () = over => {
                    self.ended = None;
                    child.ended(LAST_WORDS).await
                }
            },
            None => {
                over.await;
                self.ended = None;
                return "the server closed the connection".into();
            }
        };
        status.map_or("the process closed its output".into(), |status| format!("the process ended ({status})"))
    }

    /// Says goodbye, within `limit`.
    pub async fn close(mut self, limit: Duration) {
        if let Some(subscription) = self.subscription.take() {
            subscription.abort();
        }
        self.end.cancel();
        if let Some(ended) = self.ended.take() {
            let _ = timeout(limit / 2, ended).await;
        }
        if let Some(child) = self.child.take() {
            child.stop(limit / 2).await;
        }
    }
}

/// Bytes that a tool's description and schema take, about.
fn size(tool: &Tool) -> usize {
    let schema = serde_json::to_string(&*tool.input_schema).map_or(0, |schema| schema.len());
    tool.name.len() + tool.description.as_ref().map_or(0, |text| text.len()) + schema
}

/// Why a greeting came to nothing.
enum Refusal {
    /// The server answered it with an error.
    Greeting(String),
    /// Anything else.
    Other(String),
}

async fn serve<T, E, A>(
    ears: Ears,
    transport: T,
    mode: ClientLifecycleMode,
) -> Result<RunningService<RoleClient, Ears>, Refusal>
where
    T: IntoTransport<RoleClient, E, A>,
    E: std::error::Error + Send + Sync + 'static,
{
    ears.serve_with_lifecycle(transport, mode).await.map_err(|error| match error {
        ClientInitializeError::JsonRpcError(error) => Refusal::Greeting(error.message.into_owned()),
        ClientInitializeError::TransportError { error, .. } => Refusal::Other(error.error.to_string()),
        ClientInitializeError::ConnectionClosed(_) => Refusal::Other("the connection was closed".into()),
        other => Refusal::Other(shortened(other.to_string())),
    })
}

/// An error that may quote a whole message of the server's.
fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(300));
    text
}

/// What the server may say to us unasked.
#[derive(Debug)]
struct Ears {
    server: String,
    changed: Arc<Notify>,
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("vllm-mlx", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }

    #[expect(deprecated, reason = "servers that were greeted the old way send it")]
    async fn on_logging_message(
        &self,
        message: rmcp::model::LoggingMessageNotificationParam,
        _: NotificationContext<RoleClient>,
    ) {
        let text = shortened(message.data.to_string());
        tracing::debug!(server = self.server, level = ?message.level, text, "MCP server's log");
    }
}
