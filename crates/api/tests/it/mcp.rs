//! MCP's routes, over a server of tools in Python.

use std::{path::Path, time::Duration};

use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Value, json};
use vllm_api::http::{App, HttpConfig};
use vllm_mcp::{McpClient, McpConfig, Pace};
use vllm_scheduler::EngineConfig;

use crate::support::{Reply, Server, fake, server, server_of};

/// A server with the tools of `s`, and with `gone`, whose program doesn't exist.
async fn with_tools(pace: Pace) -> (Server, McpClient) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mcp/tests/support/server.py");
    let file = json!({ "servers": {
        "s": { "command": "python3", "args": [script, "good"], "timeout": 3 },
        "gone": { "command": "no-such-program-anywhere" },
    } });
    let config = McpConfig::parse(&file.to_string(), false, Path::new("/"), &|_| None).unwrap();
    let client = McpClient::start_with(config, pace);
    client.settled(Duration::from_secs(60)).await;
    let app = App::new(HttpConfig::default()).with_mcp(Some(client.clone()));
    (server_of(fake(), EngineConfig::default(), app), client)
}

async fn execute(server: &Server, body: &str) -> Reply {
    let request = Request::post("/v1/mcp/execute").header(header::CONTENT_TYPE, "application/json; charset=utf-8");
    server.send(request.body(Body::from(body.to_owned())).unwrap()).await
}

#[tokio::test]
async fn without_a_configuration_there_is_no_mcp() {
    let server = server("hi");
    for reply in [server.get("/v1/mcp/tools").await, server.get("/v1/mcp/servers").await, execute(&server, "{}").await]
    {
        assert_eq!((reply.status.as_u16(), reply.error().2), (503, json!("mcp_not_configured")));
    }
    assert_eq!(server.get("/health").await.json()["mcp"], Value::Null);
    assert!(!server.get("/metrics").await.body.contains("mcp_total_servers"));
}

#[tokio::test]
async fn servers_and_tools_are_shown() {
    let (server, _client) = with_tools(Pace::default()).await;
    let servers = server.get("/v1/mcp/servers").await.json()["servers"].clone();
    let wanted = json!({ "name": "s", "state": "connected", "transport": "stdio", "tools_count": 13, "error": null });
    assert_eq!(servers[1], wanted);
    assert_eq!((&servers[0]["name"], &servers[0]["state"]), (&json!("gone"), &json!("error")));
    assert!(servers[0]["error"].as_str().unwrap().contains("no-such-program-anywhere"), "{servers}");

    let tools = server.get("/v1/mcp/tools").await.json();
    assert_eq!((&tools["count"], tools["tools"].as_array().map(Vec::len)), (&json!(13), Some(13)));
    let echo = json!({
        "name": "s__echo", "description": "does echo", "server": "s",
        "parameters": { "type": "object", "properties": { "text": { "type": "string" } }, "required": ["text"] },
    });
    assert_eq!(tools["tools"][2], echo);

    let health = json!({ "enabled": true, "servers_connected": 1, "servers_total": 2, "tools_available": 13 });
    assert_eq!(server.get("/health").await.json()["mcp"], health);
    let metrics = server.get("/metrics").await.body;
    for line in ["mcp_connected_servers 1", "mcp_total_servers 2", "mcp_tools_available 13"] {
        assert!(metrics.contains(&format!("\nvllm_mlx_{line}\n")), "{line}");
    }
}

#[tokio::test]
async fn tools_are_run() {
    let (server, client) = with_tools(Pace { calls_per_minute: 5, ..Pace::default() }).await;
    let answer = |name: &str, content: &str, error: Value| {
        let is_error = !error.is_null();
        (200, json!({ "tool_name": name, "content": content, "is_error": is_error, "error_message": error }))
    };
    let cases = [
        (r#"{"tool_name": "s__echo", "arguments": {"text": "hello"}}"#, answer("s__echo", "hello", Value::Null)),
        (r#"{"tool_name": "s__fail"}"#, answer("s__fail", "it did not work", json!("it did not work"))),
    ];
    for (body, wanted) in cases {
        let reply = execute(&server, body).await;
        assert_eq!((reply.status.as_u16(), reply.json()), wanted, "{body}");
    }
    let faults = [
        ("{", 400, Value::Null, Value::Null),
        ("[]", 400, Value::Null, Value::Null),
        ("{}", 400, json!("tool_name"), Value::Null),
        (r#"{"tool_name": 1}"#, 400, json!("tool_name"), Value::Null),
        (r#"{"tool_name": "s__none"}"#, 404, json!("tool_name"), json!("tool_not_found")),
        (r#"{"tool_name": "none"}"#, 404, json!("tool_name"), json!("tool_not_found")),
        (r#"{"tool_name": "s__run_command"}"#, 403, json!("tool_name"), json!("tool_not_allowed")),
        (r#"{"tool_name": "s__echo"}"#, 400, json!("arguments"), json!("invalid_arguments")),
        (r#"{"tool_name": "s__echo", "arguments": "{}"}"#, 400, json!("arguments"), json!("invalid_arguments")),
        (r#"{"tool_name": "s__refuse"}"#, 400, json!("arguments"), json!("invalid_arguments")),
        (r#"{"tool_name": "gone__echo"}"#, 503, Value::Null, json!("mcp_server_unavailable")),
        (r#"{"tool_name": "s__sleep", "arguments": {"seconds": 600}}"#, 504, Value::Null, json!("timeout")),
        (r#"{"tool_name": "s__die"}"#, 502, Value::Null, json!("mcp_server_failed")),
    ];
    for (body, status, param, code) in faults {
        let reply = execute(&server, body).await;
        let error = reply.error();
        assert_eq!((reply.status.as_u16(), error.1, error.2), (status, param, code), "{body}: {}", error.0);
    }
    client.shutdown().await;
    let reply = execute(&server, r#"{"tool_name": "s__echo", "arguments": {"text": "x"}}"#).await;
    assert_eq!(reply.status, 503, "{}", reply.body);
}

#[tokio::test]
async fn too_many_calls_are_refused() {
    let (server, _client) = with_tools(Pace { calls_per_minute: 1, ..Pace::default() }).await;
    let body = r#"{"tool_name": "s__echo", "arguments": {"text": "x"}}"#;
    assert_eq!(execute(&server, body).await.status, 200);
    let reply = execute(&server, body).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (429, json!("rate_limit_exceeded")));
}

#[tokio::test]
async fn a_web_page_cannot_run_tools_by_a_form() {
    let (server, _client) = with_tools(Pace::default()).await;
    let body = r#"{"tool_name": "s__echo", "arguments": {"text": "x"}}"#;
    for kind in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""] {
        let request = Request::post("/v1/mcp/execute").header(header::CONTENT_TYPE, kind);
        assert_eq!(server.send(request.body(Body::from(body)).unwrap()).await.status, 415, "{kind}");
    }
    assert_eq!(server.post("/v1/mcp/execute", body).await.status, 415, "none at all");
}
