//! `/v1/mcp/*`: the tools of MCP servers, and calls of them by hand.

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::Response,
};
use serde_json::{Value, json};
use vllm_mcp::{CallError, McpClient, ServerState};

use super::{ApiError, App, Fields, blocking, fields::read_body, health::json_response};

impl App {
    /// The MCP client.
    ///
    /// # Errors
    /// 503 if no configuration names any servers.
    pub fn mcp(&self) -> Result<&McpClient, ApiError> {
        self.mcp.as_ref().ok_or_else(|| {
            let message = "MCP is not configured: start the server with --mcp-config FILE";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "mcp_not_configured", message)
        })
    }
}

pub(super) async fn tools(State(app): State<App>) -> Result<Response, ApiError> {
    let tools = app.mcp()?.tools();
    let shown = |tool: &vllm_mcp::ToolDefinition| {
        json!({
            "name": tool.name,
            "description": tool.description,
            "server": tool.server,
            "parameters": tool.parameters,
        })
    };
    let shown: Vec<Value> = tools.iter().map(|tool| shown(tool)).collect();
    Ok(json_response(&json!({ "count": shown.len(), "tools": shown })))
}

pub(super) async fn servers(State(app): State<App>) -> Result<Response, ApiError> {
    let servers = app.mcp()?.servers();
    let shown = servers.into_iter().map(|server| {
        json!({
            "name": server.name,
            "state": server.state.as_str(),
            "transport": server.transport,
            "tools_count": server.tools,
            "error": server.error,
        })
    });
    Ok(json_response(&json!({ "servers": shown.collect::<Vec<_>>() })))
}

/// Runs one tool. That the tool failed is part of a good answer; that it could not be run is an error.
pub(super) async fn execute(State(app): State<App>, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let mcp = app.mcp()?;
    check_content_type(&headers)?;
    let body = read_body(body, app.config.body_limit).await?;
    let mut fields = blocking(move || Fields::parse(&body)).await?;
    let name = fields.string("tool_name")?;
    let name = name.ok_or_else(|| ApiError::field("tool_name", "tool_name is missing: it must name a tool"))?;
    let arguments = fields.value("arguments").unwrap_or(Value::Null);
    fields.finish();
    let outcome = mcp.call(&name, arguments, None).await?;
    let error = outcome.is_error.then_some(&outcome.text);
    Ok(json_response(&json!({
        "tool_name": name,
        "content": outcome.text,
        "is_error": outcome.is_error,
        "error_message": error,
    })))
}

/// A tool does things. A web page may send anybody's browser here with a form's content type, but not with this one.
fn check_content_type(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = value.split(';').next().unwrap_or_default().trim();
    if kind.eq_ignore_ascii_case("application/json") {
        return Ok(());
    }
    let message = format!("the content type is {kind:?}: it must be application/json");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", message))
}

/// What `/health` and `/metrics` tell.
#[derive(Debug)]
pub(super) struct Totals {
    /// Servers of the configuration.
    pub servers: usize,
    /// Those that are connected.
    pub connected: usize,
    /// Tools that may be called.
    pub tools: usize,
}

impl Totals {
    /// `None` when MCP is not configured.
    pub(super) fn of(app: &App) -> Option<Self> {
        let servers = app.mcp.as_ref()?.servers();
        let connected = servers.iter().filter(|server| server.state == ServerState::Connected).count();
        let tools = servers.iter().map(|server| server.tools).sum();
        Some(Self { servers: servers.len(), connected, tools })
    }

    /// `/health`'s part.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "enabled": true,
            "servers_connected": self.connected,
            "servers_total": self.servers,
            "tools_available": self.tools,
        })
    }
}

impl From<CallError> for ApiError {
    fn from(error: CallError) -> Self {
        let message = error.to_string();
        let (status, code) = match error {
            CallError::UnknownTool(_) => (StatusCode::NOT_FOUND, "tool_not_found"),
            CallError::Refused { .. } => (StatusCode::FORBIDDEN, "tool_not_allowed"),
            CallError::BadArguments { .. } => (StatusCode::BAD_REQUEST, "invalid_arguments"),
            CallError::RateLimited { .. } => (StatusCode::TOO_MANY_REQUESTS, "rate_limit_exceeded"),
            CallError::Unavailable { .. } => (StatusCode::SERVICE_UNAVAILABLE, "mcp_server_unavailable"),
            CallError::Timeout { .. } => (StatusCode::GATEWAY_TIMEOUT, "timeout"),
            CallError::Failed { .. } => (StatusCode::BAD_GATEWAY, "mcp_server_failed"),
        };
        let error = Self::new(status, code, message);
        match status {
            StatusCode::BAD_REQUEST => error.with_param("arguments"),
            StatusCode::NOT_FOUND | StatusCode::FORBIDDEN => error.with_param("tool_name"),
            _ => error,
        }
    }
}
