//! A server of the configuration over time: connected, lost, and connected again.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use rmcp::{RoleClient, model::Tool, service::Peer};
use tokio::{
    sync::{Notify, watch},
    time::{sleep, timeout},
};

use crate::{
    client::Pace,
    config::ServerConfig,
    connection::Connection,
    risk::is_high_risk,
    tool::{ToolDefinition, full_name, is_usable},
};

/// Shortest time between two looks at a server's tools.
const SETTLE: Duration = Duration::from_millis(250);

/// Where a server stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerState {
    /// Not wanted: disabled, or the client is shut down.
    Disconnected,
    /// On the way.
    Connecting,
    /// Ready for calls.
    Connected,
    /// Lost, or never reached; it is tried again after a while.
    Error,
}

impl ServerState {
    /// In one word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Disconnected => "disconnected",
            Self::Connecting => "connecting",
            Self::Connected => "connected",
            Self::Error => "error",
        }
    }
}

impl fmt::Display for ServerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A tool that a server has, and why it may not be called, if it may not.
#[derive(Debug, Clone)]
pub struct Listed {
    pub definition: Arc<ToolDefinition>,
    pub refused: Option<&'static str>,
}

/// What is known about a server now.
#[derive(Debug, Clone)]
pub struct Status {
    pub state: ServerState,
    /// What went wrong last, until it goes right.
    pub error: Option<String>,
    /// By their names there. Empty unless connected.
    pub tools: Arc<BTreeMap<String, Listed>>,
    pub peer: Option<Peer<RoleClient>>,
}

impl Status {
    fn of(state: ServerState, error: Option<String>) -> Self {
        Self { state, error, tools: Arc::default(), peer: None }
    }

    /// Where it stands and why, in words.
    pub fn describe(&self) -> String {
        match &self.error {
            Some(error) => format!("{} ({error})", self.state),
            None => self.state.to_string(),
        }
    }

    /// The tools that may be called.
    pub fn callable(&self) -> impl Iterator<Item = &Arc<ToolDefinition>> {
        self.tools.values().filter(|tool| tool.refused.is_none()).map(|tool| &tool.definition)
    }
}

#[derive(Debug)]
pub struct Server {
    pub name: String,
    pub config: ServerConfig,
    allowed_high_risk: Vec<String>,
    status: watch::Sender<Status>,
    /// Hears that the tools changed, or that the connection should be looked at.
    changed: Arc<Notify>,
}

impl Server {
    pub fn new(name: String, config: ServerConfig, allowed_high_risk: Vec<String>) -> Self {
        let state = if config.enabled { ServerState::Connecting } else { ServerState::Disconnected };
        let status = watch::Sender::new(Status::of(state, None));
        Self { name, config, allowed_high_risk, status, changed: Arc::default() }
    }

    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Waits until the first attempt to connect has ended.
    pub async fn settled(&self) {
        let mut status = self.status.subscribe();
        let _ = status.wait_for(|status| status.state != ServerState::Connecting || status.error.is_some()).await;
    }

    /// A call failed on the way: is anybody there?
    pub fn suspect(&self) {
        self.changed.notify_one();
    }

    /// Keeps the server connected until `stop` says true.
    pub async fn run(&self, pace: Pace, mut stop: watch::Receiver<bool>) {
        let mut failures = 0;
        loop {
            let error = self.status.borrow().error.clone();
            self.status.send_replace(Status::of(ServerState::Connecting, error));
            let opened = tokio::select! {
                opened = self.open(pace.connect) => opened,
                _ = stop.wait_for(|&stop| stop) => break,
            };
            let problem = match opened {
                Ok(mut connection) => {
                    let since = Instant::now();
                    let ended = tokio::select! {
                        problem = self.keep(&mut connection) => Some(problem),
                        _ = stop.wait_for(|&stop| stop) => None,
                    };
                    // First, so that no call is sent to what is being closed.
                    self.status.send_replace(Status::of(ServerState::Disconnected, None));
                    connection.close(pace.stop).await;
                    if since.elapsed() >= pace.stable {
                        failures = 0;
                    }
                    let Some(problem) = ended else { break };
                    problem
                }
                Err(problem) => problem,
            };
            let delay = pace.delay(failures);
            failures += 1;
            tracing::warn!(server = self.name, problem, retry_in = ?delay, "MCP server not connected");
            self.status.send_replace(Status::of(ServerState::Error, Some(problem)));
            tokio::select! {
                () = sleep(delay) => {}
                _ = stop.wait_for(|&stop| stop) => break,
            }
        }
        self.status.send_replace(Status::of(ServerState::Disconnected, None));
    }

    async fn open(&self, limit: Duration) -> Result<Connection, String> {
        let opening = async {
            let connection = Connection::open(&self.name, &self.config.endpoint, &self.changed).await?;
            let tools = connection.tools().await?;
            Ok((connection, tools))
        };
        let (connection, tools) =
            timeout(limit, opening).await.unwrap_or_else(|_| Err(format!("not ready within {limit:?}")))?;
        self.publish(&connection, tools);
        Ok(connection)
    }

    /// Follows a connection until it is over; says why it is.
    async fn keep(&self, connection: &mut Connection) -> String {
        loop {
            tokio::select! {
                biased;
                problem = connection.ended() => return problem,
                () = self.changed.notified() => {}
            }
            match timeout(self.config.timeout, connection.tools()).await {
                Ok(Ok(tools)) => self.publish(connection, tools),
                // The connection's end, if this is it, says more.
                Ok(Err(problem)) => return timeout(SETTLE, connection.ended()).await.unwrap_or(problem),
                Err(_) => return format!("tools/list: no answer within {:?}", self.config.timeout),
            }
            sleep(SETTLE).await;
        }
    }

    fn publish(&self, connection: &Connection, tools: Vec<Tool>) {
        let listed: BTreeMap<String, Listed> = tools.into_iter().filter_map(|tool| self.listed(tool)).collect();
        for wanted in self.config.allowed_tools.iter().flatten().filter(|wanted| !listed.contains_key(*wanted)) {
            tracing::warn!(
                server = self.name,
                tool = wanted,
                "allowed_tools names a tool that the server doesn't have"
            );
        }
        for tool in listed.values().filter(|tool| tool.refused == Some(HIGH_RISK)) {
            tracing::info!(tool = tool.definition.name, "not offered: {HIGH_RISK}");
        }
        tracing::info!(server = self.name, tools = listed.len(), "MCP server connected");
        self.status.send_replace(Status {
            state: ServerState::Connected,
            error: None,
            tools: Arc::new(listed),
            peer: Some(connection.peer().clone()),
        });
    }

    fn listed(&self, tool: Tool) -> Option<(String, Listed)> {
        let there = tool.name.into_owned();
        if !is_usable(&there) {
            tracing::warn!(
                server = self.name,
                tool = there,
                "left out: a tool's name is 1 to 128 of A-Z a-z 0-9 _ - . /"
            );
            return None;
        }
        let name = full_name(&self.name, &there);
        let refused = self.refused(&there, &name);
        let definition = ToolDefinition {
            name,
            server: self.name.clone(),
            tool: there.clone(),
            description: tool.description.unwrap_or_default().into_owned(),
            parameters: (*tool.input_schema).clone(),
        };
        Some((there, Listed { definition: Arc::new(definition), refused }))
    }

    fn refused(&self, tool: &str, full: &str) -> Option<&'static str> {
        if self.config.allowed_tools.as_ref().is_some_and(|allowed| !allowed.iter().any(|name| name == tool)) {
            return Some("it is not in its server's allowed_tools");
        }
        let consented = self.allowed_high_risk.iter().any(|name| name == tool || name == full);
        (is_high_risk(tool) && !consented).then_some(HIGH_RISK)
    }
}

const HIGH_RISK: &str = "its name says that it runs anything: name it in allowed_high_risk_tools if it may";
