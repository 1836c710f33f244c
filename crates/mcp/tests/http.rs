//! Servers that speak streamable HTTP: what they can do, and what they do wrong.

mod support;

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{config, connected, is_connected, pace, script, status, until};
use vllm_mcp::{CallError, McpClient, Pace, ServerState};

/// The server in Python, killed in the end.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    fn start() -> Self {
        let mut process = Command::new("python3")
            .arg(script("http_server.py"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { process, port: line.trim().parse().unwrap() }
    }

    fn entry(&self, mode: &str) -> Value {
        json!({ "url": format!("http://127.0.0.1:{}/{mode}", self.port) })
    }

    async fn client(&self, mode: &str) -> McpClient {
        connected(&json!({ "servers": { "s": self.entry(mode) } }), pace()).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

async fn text(client: &McpClient, tool: &str) -> String {
    client.call(tool, json!({}), None).await.unwrap().text
}

#[tokio::test]
async fn answers_come_whole_or_as_streams() {
    let server = Server::start();
    for mode in ["json", "stream", "session"] {
        let client = server.client(mode).await;
        let status = status(&client);
        assert_eq!(
            (status.state, status.transport, status.tools),
            (ServerState::Connected, "http", 6),
            "{mode}: {status:?}"
        );
        assert_eq!(text(&client, "s__headers").await, "none", "{mode}");
        client.shutdown().await;
    }
}

#[tokio::test]
async fn sessions_are_ended_and_begun_again() {
    let server = Server::start();
    let client = server.client("session").await;
    assert_eq!(text(&client, "s__forget").await, "forget");
    // The server knows nothing of the session any more.
    assert_eq!(text(&client, "s__headers").await, "none");
    client.shutdown().await;
    let client = server.client("session").await;
    assert_eq!(text(&client, "s__ended").await, "1");
}

#[tokio::test]
async fn headers_open_what_is_locked() {
    let server = Server::start();
    let mut entry = server.entry("locked");
    entry["headers"] = json!({ "Authorization": "Bearer open sesame", "X-Key": "7" });
    let client = connected(&json!({ "servers": { "s": entry } }), pace()).await;
    assert_eq!(text(&client, "s__headers").await, "7");
}

#[tokio::test]
async fn what_is_no_server_is_told_apart() {
    let server = Server::start();
    let cases = [
        ("redirect", "HTTP 307 Temporary Redirect: it redirects to http://elsewhere.example/mcp"),
        ("locked", "HTTP 401 Unauthorized: who are you?"),
        ("page", "HTTP 200 OK: <html>welcome</html>"),
        ("error", "HTTP 500 Internal Server Error: no no no"),
        ("cut", "end of file before message length reached"),
        ("huge", "length limit exceeded"),
        ("hang", "not ready within 6s"),
    ];
    let servers: serde_json::Map<String, Value> =
        cases.iter().map(|(mode, _)| ((*mode).to_owned(), server.entry(mode))).collect();
    let pace = Pace { connect: Duration::from_secs(6), ..pace() };
    let client = connected(&json!({ "servers": servers }), pace).await;
    for (mode, wanted) in cases {
        let status = client.servers().into_iter().find(|server| server.name == mode).unwrap();
        let error = status.error.unwrap_or_default();
        assert!(error.contains(wanted) && error.len() < 500, "{mode}: {error}");
    }
}

#[tokio::test]
async fn slow_calls_are_cancelled() {
    let server = Server::start();
    let client = server.client("json").await;
    let limit = Duration::from_millis(200);
    let start = Instant::now();
    let slow = client.call("s__sleep", json!({}), Some(limit)).await;
    assert_eq!(slow, Err(CallError::Timeout { tool: "s__sleep".into(), limit }));
    while text(&client, "s__cancelled").await != "1" {
        assert!(start.elapsed() < support::PATIENCE, "the server was not told");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_server_that_goes_away_is_missed_and_found_again() {
    let mut server = Server::start();
    let client = server.client("json").await;
    server.process.kill().unwrap();
    server.process.wait().unwrap();
    let failed = client.call("s__headers", json!({}), Some(support::PATIENCE)).await;
    assert!(matches!(&failed, Err(CallError::Failed { .. })), "{failed:?}");
    let lost = until(&client, "missed", |status| status.state == ServerState::Error).await;
    assert!(lost.error.unwrap().contains("Connection refused"));
    client.shutdown().await;
    // Another at another port, which this client is told to expect before it is there.
    let other = Server::start();
    let entry = other.entry("json");
    let port = other.port;
    drop(other);
    let client = McpClient::start_with(config(&json!({ "servers": { "s": entry } })), pace());
    until(&client, "missed", |status| status.error.is_some()).await;
    let late = std::thread::spawn(move || {
        let source = std::fs::read_to_string(script("http_server.py")).unwrap();
        let source = source.replace("(\"127.0.0.1\", 0)", &format!("(\"127.0.0.1\", {port})"));
        Command::new("python3").args(["-c", &source]).stdout(Stdio::null()).spawn().unwrap()
    });
    let _late = Server { process: late.join().unwrap(), port };
    until(&client, "found", is_connected).await;
    assert_eq!(text(&client, "s__headers").await, "none");
}
