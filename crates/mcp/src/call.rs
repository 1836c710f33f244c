//! A call of a tool.

use std::{
    fmt,
    sync::PoisonError,
    time::{Duration, Instant},
};

use rmcp::{
    model::{CallToolRequestParams, CallToolResponse, ErrorCode},
    service::ServiceError,
};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    arguments,
    client::McpClient,
    error::CallError,
    outcome::ToolOutcome,
    server::{Listed, Server, ServerState},
    tool::split_name,
};

impl McpClient {
    /// Calls a tool by its full name, with arguments that are a JSON object or null. Without a `limit` it has as long
    /// as its server's configuration says.
    ///
    /// Any number of calls may run at once. A call that is dropped, or takes too long, is cancelled at the server, too.
    ///
    /// # Errors
    /// See [`CallError`]. That the tool itself failed is no error but an outcome, for the model to read.
    pub async fn call(&self, name: &str, arguments: Value, limit: Option<Duration>) -> Result<ToolOutcome, CallError> {
        let mut record = Record { tool: name, begun: Instant::now(), ended: None };
        let result = self.called(name, arguments, limit).await;
        record.ended = Some(match &result {
            Ok(ToolOutcome { is_error: false, text }) => format!("ok, {} bytes", text.len()),
            Ok(ToolOutcome { is_error: true, .. }) => "the tool failed".into(),
            Err(error) => error.to_string(),
        });
        result
    }

    async fn called(&self, name: &str, arguments: Value, limit: Option<Duration>) -> Result<ToolOutcome, CallError> {
        let unknown = || CallError::UnknownTool(name.to_owned());
        let (server, tool) = split_name(name).ok_or_else(unknown)?;
        let server = self.inner.servers.get(server).ok_or_else(unknown)?;
        let status = server.status();
        let Some(peer) = status.peer.as_ref().filter(|_| status.state == ServerState::Connected) else {
            return Err(CallError::Unavailable { server: server.name.clone(), state: status.describe() });
        };
        let Listed { definition, refused } = status.tools.get(tool).ok_or_else(unknown)?;
        if let Some(reason) = refused {
            return Err(CallError::Refused { tool: name.to_owned(), reason });
        }
        let bad = |problem| CallError::BadArguments { tool: name.to_owned(), problem };
        let arguments = arguments::check(arguments, &definition.parameters).map_err(bad)?;
        self.within_rate(name)?;

        let params = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        let limit = limit.unwrap_or(server.config.timeout);
        let Ok(answer) = timeout(limit, peer.call_tool_once(params)).await else {
            return Err(CallError::Timeout { tool: name.to_owned(), limit });
        };
        understood(name, server, answer)
    }

    fn within_rate(&self, name: &str) -> Result<(), CallError> {
        let mut rate = self.inner.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let limited = |retry_after| CallError::RateLimited { tool: name.to_owned(), retry_after };
        rate.take(name, Instant::now()).map_err(limited)
    }
}

fn understood(
    name: &str,
    server: &Server,
    answer: Result<CallToolResponse, ServiceError>,
) -> Result<ToolOutcome, CallError> {
    let failed =
        |problem: &dyn fmt::Display| Err(CallError::Failed { tool: name.to_owned(), problem: problem.to_string() });
    match answer {
        Ok(CallToolResponse::Complete(result)) => Ok(result.into()),
        Ok(CallToolResponse::InputRequired(_)) => failed(&"it asks for input, which only a person could give"),
        Ok(_) => failed(&"it answers with a task to be followed, which is not supported"),
        Err(ServiceError::McpError(error)) if error.code == ErrorCode::INVALID_PARAMS => {
            Err(CallError::BadArguments { tool: name.to_owned(), problem: error.message.into_owned() })
        }
        Err(ServiceError::McpError(error)) => Ok(ToolOutcome { text: error.message.into_owned(), is_error: true }),
        Err(error @ (ServiceError::TransportClosed | ServiceError::TransportSend(_))) => {
            server.suspect();
            failed(&error)
        }
        Err(error) => failed(&error),
    }
}

/// A call's line in the log: also when nobody waited for its end.
struct Record<'a> {
    tool: &'a str,
    begun: Instant,
    ended: Option<String>,
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        let outcome = self.ended.as_deref().unwrap_or("cancelled");
        // Never the arguments: they are somebody's.
        tracing::info!(tool = self.tool, seconds = self.begun.elapsed().as_secs_f64(), outcome, "MCP tool call");
    }
}
