//! Tools of MCP servers that a request may use: offered to the model, and run by this server.

use std::{collections::HashMap, sync::Arc};

use futures_util::future::join_all;
use serde_json::{Map, Value, json};
use vllm_mcp::{McpClient, OfferError, Selection, ServerTools as Wanted, ToolDefinition};

use super::ToolCall;
use crate::http::{ApiError, Fields, fields::show};

/// The tools of MCP servers that one request may use.
#[derive(Debug, Clone)]
pub struct ServerTools {
    client: McpClient,
    by_name: HashMap<String, Arc<ToolDefinition>>,
}

/// A tool that was run for the model.
#[derive(Debug, Clone)]
pub struct RunCall {
    /// What the model wanted.
    pub call: ToolCall,
    /// What came of it.
    pub output: String,
    /// Whether that is an error.
    pub is_error: bool,
}

impl ServerTools {
    /// Takes what `tools` has of type `mcp`, as OpenAI's Responses have it (`server_label`, `allowed_tools`), and puts
    /// the tools' own definitions in its place. Without a `server_label` it stands for all servers.
    ///
    /// # Errors
    /// 400 for wrong types and for servers and tools that there aren't; 503 if MCP isn't configured or the server not
    /// connected.
    pub fn take(fields: &mut Fields, mcp: Result<&McpClient, ApiError>) -> Result<Option<Self>, ApiError> {
        let Some(tools) = fields.array("tools")? else { return Ok(None) };
        let is_mcp = |tool: &Value| tool.get("type").is_some_and(|kind| kind == "mcp");
        if !tools.iter().any(is_mcp) {
            fields.put("tools", Value::Array(tools));
            return Ok(None);
        }
        let client = mcp?.clone();
        let mut by_name = HashMap::new();
        let mut definitions = Vec::with_capacity(tools.len());
        for (index, tool) in tools.into_iter().enumerate() {
            let tool = match tool {
                Value::Object(tool) if tool.get("type").is_some_and(|kind| kind == "mcp") => tool,
                other => {
                    definitions.push(other);
                    continue;
                }
            };
            let at = format!("tools[{index}]");
            for tool in client.offer(&selection(&at, tool)?).map_err(|error| offer_error(&at, &error))? {
                if by_name.insert(tool.name.clone(), Arc::clone(&tool)).is_none() {
                    definitions.push(json!({ "type": "function", "function": {
                        "name": tool.name, "description": tool.description, "parameters": tool.parameters } }));
                }
            }
        }
        fields.put("tools", Value::Array(definitions));
        Ok(Some(Self { client, by_name }))
    }

    /// Whether a tool is one of these.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.by_name.contains_key(name)
    }

    /// Most calls for one request.
    #[must_use]
    pub fn most_calls(&self) -> usize {
        self.client.max_tool_calls()
    }

    /// Runs calls side by side. What goes wrong is told to the model: it may know better.
    pub async fn run(&self, calls: &[ToolCall]) -> Vec<RunCall> {
        join_all(calls.iter().map(|call| self.run_one(call))).await
    }

    async fn run_one(&self, call: &ToolCall) -> RunCall {
        let outcome = match serde_json::from_str::<Value>(&call.arguments) {
            Ok(arguments) => self.client.call(&call.name, arguments, None).await.map_err(|error| error.to_string()),
            Err(error) => Err(format!("the arguments are no JSON: {error}")),
        };
        let (output, is_error) = match outcome {
            Ok(outcome) => (outcome.text, outcome.is_error),
            Err(problem) => (format!("error: {problem}"), true),
        };
        tracing::debug!(tool = call.name, is_error, "a tool was run for a chat");
        RunCall { call: call.clone(), output, is_error }
    }
}

impl RunCall {
    /// What came of it, as a message of the conversation.
    #[must_use]
    pub fn message(&self) -> Value {
        json!({ "role": "tool", "tool_call_id": self.call.id, "name": self.call.name, "content": self.output })
    }

    /// As responses show it.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ToolCall { id, name, arguments } = &self.call;
        json!({ "id": id, "name": name, "arguments": arguments, "output": self.output, "is_error": self.is_error })
    }
}

fn selection(at: &str, tool: Map<String, Value>) -> Result<Selection, ApiError> {
    let mut fields = Fields::within(at, tool);
    fields.string("type")?;
    let Some(server) = fields.string("server_label")? else { return Ok(Selection::All) };
    // The configuration says where servers are and what may be run, not a request.
    for name in ["server_url", "authorization", "headers", "connector_id"] {
        if fields.value(name).is_some() {
            let param = format!("{at}.{name}");
            let message = format!("{param}: the servers are those of --mcp-config, named by server_label");
            return Err(ApiError::unsupported(&param, message));
        }
    }
    match fields.string("require_approval")?.as_deref() {
        None | Some("never") => {}
        Some(_) => {
            let param = format!("{at}.require_approval");
            let message = format!("{param}: this server asks nobody; leave it out, and allow tools with allowed_tools");
            return Err(ApiError::unsupported(&param, message));
        }
    }
    fields.string("server_description")?;
    let name = |value: Value| match value {
        Value::String(name) => Ok(name),
        other => {
            let param = format!("{at}.allowed_tools");
            Err(ApiError::field(&param, format!("{param} has {}: it must have names", show(&other))))
        }
    };
    let tools = fields.array("allowed_tools")?.map(|names| names.into_iter().map(name).collect()).transpose()?;
    fields.finish();
    Ok(Selection::Of(vec![Wanted { server, tools }]))
}

fn offer_error(at: &str, error: &OfferError) -> ApiError {
    let message = format!("{at}: {error}");
    match error {
        OfferError::Unavailable { .. } => {
            ApiError::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "mcp_unavailable", message)
        }
        _ => ApiError::field(at, message).with_code("mcp_unknown"),
    }
}
