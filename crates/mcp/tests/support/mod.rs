//! Clients of servers written in Python.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vllm_mcp::{McpClient, McpConfig, Pace, ServerState, ServerStatus};

/// Long enough for any of these servers, short enough to fail soon.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Quick enough for tests.
pub fn pace() -> Pace {
    Pace {
        connect: Duration::from_secs(30),
        retry: Duration::from_millis(50),
        retry_most: Duration::from_millis(400),
        stop: Duration::from_secs(1),
        ..Pace::default()
    }
}

/// An entry for the stdio server in this mode.
pub fn stdio(mode: &str) -> Value {
    json!({ "command": "python3", "args": [script("server.py"), mode] })
}

pub fn script(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support").join(name).display().to_string()
}

pub fn config(file: &Value) -> McpConfig {
    McpConfig::parse(&file.to_string(), false, "/".as_ref(), &|_| None).unwrap()
}

/// A client of one server, `s`.
pub async fn one(entry: Value) -> McpClient {
    connected(&json!({ "servers": { "s": entry } }), pace()).await
}

/// A client whose servers all had their first try.
pub async fn connected(file: &Value, pace: Pace) -> McpClient {
    let client = McpClient::start_with(config(file), pace);
    client.settled(PATIENCE).await;
    client
}

/// The one server named `s`.
pub fn status(client: &McpClient) -> ServerStatus {
    client.servers().into_iter().find(|server| server.name == "s").unwrap()
}

/// Waits until the server `s` is as wanted.
pub async fn until(client: &McpClient, what: &str, wanted: impl Fn(&ServerStatus) -> bool) -> ServerStatus {
    let start = Instant::now();
    loop {
        let status = status(client);
        if wanted(&status) {
            return status;
        }
        assert!(start.elapsed() < PATIENCE, "never {what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn is_connected(status: &ServerStatus) -> bool {
    status.state == ServerState::Connected
}
