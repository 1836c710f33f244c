//! A client of MCP servers (Model Context Protocol): reads which servers there are, keeps connections to them, knows
//! their tools and calls them.
//!
//! Invariant: knows neither models nor this project's HTTP routes; no process is started that the configuration does
//! not name, and none through a shell; everything that waits on a server has a limit.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use vllm_mcp::{McpClient, McpConfig, Selection, ServerTools};
//!
//! let client = McpClient::start(McpConfig::read("mcp.json".as_ref())?);
//! // From a request's `{"type": "mcp", "server_label": "fs", "allowed_tools": ["read_file"]}`.
//! let wanted = ServerTools { server: "fs".into(), tools: Some(vec!["read_file".into()]) };
//! let tools = client.offer(&Selection::Of(vec![wanted]))?;
//! assert_eq!(tools[0].name, "fs__read_file");
//! let arguments = serde_json::json!({ "path": "notes.txt" });
//! let answer = client.call("fs__read_file", arguments, None).await?;
//! println!("{}", answer.text);
//! client.shutdown().await;
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

mod arguments;
mod call;
mod client;
pub mod config;
mod connection;
mod error;
mod outcome;
mod rate;
mod risk;
mod server;
mod tool;
mod transport;

pub use client::{McpClient, Pace, ServerStatus};
pub use config::{ConfigError, McpConfig};
pub use error::{CallError, OfferError};
pub use outcome::ToolOutcome;
pub use server::ServerState;
pub use tool::{Selection, ServerTools, ToolDefinition};
