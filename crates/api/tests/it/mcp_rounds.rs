//! Chats whose model uses tools of an MCP server, which this server runs.

use std::{path::Path, time::Duration};

use serde_json::{Value, json};
use vllm_api::http::{App, HttpConfig};
use vllm_mcp::{McpClient, McpConfig};

use crate::support::{Server, app_in};

/// A server whose model answers with `answer`, over and over, and may call the tools of `s` three times.
async fn server(answer: &str) -> Server {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../mcp/tests/support/server.py");
    let file = json!({ "servers": { "s": { "command": "python3", "args": [script, "good"] } }, "max_tool_calls": 3 });
    let client = McpClient::start(McpConfig::parse(&file.to_string(), false, Path::new("/"), &|_| None).unwrap());
    client.settled(Duration::from_secs(60)).await;
    app_in(answer, Some("hermes"), None, App::new(HttpConfig::default()).with_mcp(Some(client)))
}

fn call(name: &str, arguments: Value) -> String {
    format!("<tool_call>\n{}\n</tool_call>", json!({ "name": name, "arguments": arguments }))
}

fn mcp() -> Value {
    json!([{ "type": "mcp", "server_label": "s", "allowed_tools": ["echo", "fail"] }])
}

#[tokio::test]
async fn tools_are_run_until_it_is_enough() {
    let answer = format!("Look: {}", call("s__echo", json!({ "text": "hello" })));
    let server = server(&answer).await;
    let reply = server.chat(json!({ "tools": mcp() })).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    // Three rounds with a tool; in the fourth there are none, and what the model writes is text.
    let ran = body["mcp_calls"].as_array().unwrap();
    assert_eq!(ran.len(), 3);
    assert_eq!(
        (&ran[0]["name"], &ran[0]["output"], &ran[0]["is_error"]),
        (&json!("s__echo"), &json!("hello"), &json!(false))
    );
    let choice = &body["choices"][0];
    assert_eq!((&choice["finish_reason"], &choice["message"]["tool_calls"]), (&json!("stop"), &Value::Null));
    assert!(choice["message"]["content"].as_str().unwrap().ends_with(&answer), "{choice}");
    assert_eq!(body["usage"]["completion_tokens"], 4 * (answer.len() + 1));
    server.idle().await;
}

#[tokio::test]
async fn a_stream_shows_what_is_said_and_what_is_done() {
    let answer = format!("Look: {}", call("s__fail", json!({})));
    let server = server(&answer).await;
    let fields = json!({ "tools": mcp(), "stream": true, "stream_options": { "include_usage": true } });
    let events = server.chat(fields).await.events();
    let ran: Vec<&Value> =
        events.iter().flat_map(|event| event["mcp_calls"].as_array().into_iter().flatten()).collect();
    assert_eq!(ran.len(), 3);
    assert_eq!((&ran[0]["output"], &ran[0]["is_error"]), (&json!("it did not work"), &json!(true)));
    assert!(events.iter().all(|event| event["choices"][0]["delta"]["tool_calls"].is_null()));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(text.starts_with("Look:") && text.ends_with(&answer), "{text}");
    let reasons: Vec<&str> = events.iter().filter_map(|e| e["choices"][0]["finish_reason"].as_str()).collect();
    assert_eq!(reasons, ["stop"]);
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 4 * (answer.len() + 1));
}

#[tokio::test]
async fn the_clients_own_tools_stay_its_own() {
    let answer = format!("{}\n{}", call("s__echo", json!({ "text": "x" })), call("mine", json!({ "a": 1 })));
    let server = server(&answer).await;
    let mut tools = mcp();
    tools.as_array_mut().unwrap().push(json!({ "type": "function", "function": { "name": "mine" } }));
    let body = server.chat(json!({ "tools": tools })).await.json();
    let choice = &body["choices"][0];
    assert_eq!((&body["mcp_calls"], &choice["finish_reason"]), (&json!([]), &json!("tool_calls")));
    let calls = choice["message"]["tool_calls"].as_array().unwrap();
    assert_eq!((calls.len(), &calls[0]["function"]["name"]), (1, &json!("mine")));
}

#[tokio::test]
async fn what_cannot_be_offered_is_refused() {
    let server = server("hi").await;
    let tool = |fields: Value| crate::support::merged(json!({ "type": "mcp", "server_label": "s" }), fields);
    let cases = [
        (tool(json!({ "server_label": "nobody" })), "there is no MCP server \"nobody\""),
        (tool(json!({ "allowed_tools": ["nothing"] })), "no tool \"nothing\""),
        (tool(json!({ "allowed_tools": ["run_command"] })), "run_command"),
        (tool(json!({ "allowed_tools": [3] })), "tools[0].allowed_tools has 3"),
        (tool(json!({ "server_url": "http://evil" })), "tools[0].server_url"),
        (tool(json!({ "require_approval": "always" })), "tools[0].require_approval"),
    ];
    for (tool, wanted) in cases {
        let reply = server.chat(json!({ "tools": [tool] })).await;
        assert_eq!(reply.status, 400, "{tool}: {}", reply.body);
        assert!(reply.error().0.contains(wanted), "{tool}: {}", reply.body);
    }
    let reply = server.chat(json!({ "tools": mcp(), "n": 2 })).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
    let plain = crate::support::server("hi").chat(json!({ "tools": mcp() })).await;
    assert_eq!((plain.status.as_u16(), plain.error().2), (503, json!("mcp_not_configured")));
}
