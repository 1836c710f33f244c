//! All servers together.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout_at},
};

use crate::{
    config::McpConfig,
    error::OfferError,
    rate::RateLimit,
    server::{Server, ServerState},
    tool::{Selection, ServerTools, ToolDefinition},
};

/// How patient the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Longest time until a server is ready. `npx` and `uvx` may have to fetch it first.
    pub connect: Duration,
    /// Wait before a lost server is tried again; twice as long after each failure.
    pub retry: Duration,
    /// Longest such wait.
    pub retry_most: Duration,
    /// How long a connection must hold for its server to count as well again.
    pub stable: Duration,
    /// Longest time that a server has for its end.
    pub stop: Duration,
    /// Most calls of a tool in any minute.
    pub calls_per_minute: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(60),
            retry: Duration::from_secs(1),
            retry_most: Duration::from_secs(60),
            stable: Duration::from_secs(30),
            stop: Duration::from_secs(4),
            calls_per_minute: 60,
        }
    }
}

impl Pace {
    /// The wait after so many failures before this one.
    pub(crate) fn delay(&self, failures: u32) -> Duration {
        self.retry.saturating_mul(2u32.saturating_pow(failures)).min(self.retry_most)
    }
}

/// What one may know about a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Where it stands.
    pub state: ServerState,
    /// `stdio` or `http`.
    pub transport: &'static str,
    /// How many of its tools may be called.
    pub tools: usize,
    /// What went wrong last, until it goes right.
    pub error: Option<String>,
}

/// The client. Clones are the same client; with the last of them its connections end and its processes are killed.
#[derive(Clone)]
pub struct McpClient {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub servers: BTreeMap<String, Arc<Server>>,
    pub rate: Mutex<RateLimit>,
    max_tool_calls: usize,
    pace: Pace,
    stop: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

impl fmt::Debug for McpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpClient").field("servers", &self.servers()).finish()
    }
}

impl McpClient {
    /// Begins to connect to all servers at once, in the background. Must be called inside a tokio runtime.
    #[must_use]
    pub fn start(config: McpConfig) -> Self {
        Self::start_with(config, Pace::default())
    }

    /// [`start`](Self::start), with another patience.
    #[must_use]
    pub fn start_with(config: McpConfig, pace: Pace) -> Self {
        let McpConfig { servers, max_tool_calls, allowed_high_risk_tools } = config;
        let (stop, mut tasks) = (watch::Sender::new(false), JoinSet::new());
        let servers: BTreeMap<String, Arc<Server>> = servers
            .into_iter()
            .map(|(name, config)| (name.clone(), Arc::new(Server::new(name, config, allowed_high_risk_tools.clone()))))
            .collect();
        for server in servers.values().filter(|server| server.config.enabled) {
            let (server, stopped) = (Arc::clone(server), stop.subscribe());
            tasks.spawn(async move { server.run(pace, stopped).await });
        }
        let rate = Mutex::new(RateLimit::new(pace.calls_per_minute));
        Self { inner: Arc::new(Inner { servers, rate, max_tool_calls, pace, stop, tasks: Mutex::new(tasks) }) }
    }

    /// Most calls that one chat may make, by the configuration.
    #[must_use]
    pub fn max_tool_calls(&self) -> usize {
        self.inner.max_tool_calls
    }

    /// All servers of the configuration, by name.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerStatus> {
        let status = |server: &Arc<Server>| {
            let status = server.status();
            ServerStatus {
                name: server.name.clone(),
                state: status.state,
                transport: server.config.endpoint.transport(),
                tools: status.callable().count(),
                error: status.error,
            }
        };
        self.inner.servers.values().map(status).collect()
    }

    /// All tools that may be called now.
    #[must_use]
    pub fn tools(&self) -> Vec<Arc<ToolDefinition>> {
        let tools = |server: &Arc<Server>| server.status().callable().cloned().collect::<Vec<_>>();
        self.inner.servers.values().flat_map(tools).collect()
    }

    /// The tools that a request selects, in the order of the servers, each once.
    ///
    /// # Errors
    /// It names a server or tool that isn't there; all or nothing, since a model without the tools that its prompt
    /// speaks of does odd things.
    pub fn offer(&self, selection: &Selection) -> Result<Vec<Arc<ToolDefinition>>, OfferError> {
        let Selection::Of(wanted) = selection else { return Ok(self.tools()) };
        let mut offered: BTreeMap<String, Arc<ToolDefinition>> = BTreeMap::new();
        for ServerTools { server, tools } in wanted {
            let known = self.inner.servers.get(server).ok_or_else(|| OfferError::UnknownServer(server.clone()))?;
            let status = known.status();
            if status.state != ServerState::Connected {
                return Err(OfferError::Unavailable { server: server.clone(), state: status.describe() });
            }
            for tool in tools.iter().flatten() {
                if !status.callable().any(|known| known.tool == *tool) {
                    return Err(OfferError::UnknownTool { server: server.clone(), tool: tool.clone() });
                }
            }
            let chosen = |tool: &&Arc<ToolDefinition>| tools.as_ref().is_none_or(|tools| tools.contains(&tool.tool));
            offered.extend(status.callable().filter(chosen).map(|tool| (tool.name.clone(), Arc::clone(tool))));
        }
        Ok(offered.into_values().collect())
    }

    /// Waits until each server was reached or failed once, but no longer than `limit`.
    pub async fn settled(&self, limit: Duration) {
        let deadline = Instant::now() + limit;
        for server in self.inner.servers.values() {
            if timeout_at(deadline, server.settled()).await.is_err() {
                return;
            }
        }
    }

    /// Ends all connections in order, and what doesn't end by itself soon, by force. No calls after this.
    pub async fn shutdown(&self) {
        self.inner.stop.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.inner.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        // Beside what a connection may take, a process may have to be killed.
        let deadline = Instant::now() + self.inner.pace.stop + Duration::from_secs(2);
        while let Ok(Some(_)) = timeout_at(deadline, tasks.join_next()).await {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_limit() {
        let pace = Pace::default();
        let seconds: Vec<u64> = [0, 1, 2, 5, 6, 7, 31, 32, u32::MAX].map(|n| pace.delay(n).as_secs()).into();
        assert_eq!(seconds, [1, 2, 4, 32, 60, 60, 60, 60, 60]);
    }
}
