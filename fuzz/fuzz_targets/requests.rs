//! The server's routes: whatever the body, an answer in JSON and never one of the server's own faults.
//!
//! Input: a byte for the route, a byte for the headers, the body.
#![no_main]

use std::sync::LazyLock;

use axum::{body::Body, http::Request};
use libfuzzer_sys::{Corpus, fuzz_mutator, fuzz_target};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use vllm_fuzz::{JSON, allow_contained, head, insert};

#[path = "../../crates/api/tests/it/support/mod.rs"]
mod support;

use support::{Reply, Server, server_in};

/// What the model writes, over and over: a thought, text and a call.
const ANSWER: &str = "<think>hm</think>é{\"a\": 1}<tool_call>{\"name\": \"f\", \"arguments\": {\"a\": 1}}</tool_call>";

struct Target {
    runtime: Runtime,
    server: Server,
    /// All routes that take a body.
    routes: Vec<String>,
    /// What bodies are made of: the fields that the routes document, and JSON.
    pieces: Vec<String>,
}

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let server = server_in(ANSWER, Some("hermes"), Some("qwen3"));
    let document = runtime.block_on(server.get("/openapi.json")).json();
    let paths = document["paths"].as_object().expect("paths").iter();
    let routes = paths.filter(|(_, methods)| methods.get("post").is_some()).map(|(path, _)| without_braces(path));
    let mut pieces: Vec<String> = JSON.iter().map(|&piece| piece.to_owned()).collect();
    pieces.push("\"tiny\"".to_owned());
    collect_fields(&document, &mut pieces);
    pieces.sort();
    pieces.dedup();
    Target { routes: routes.collect(), runtime, server, pieces }
});

/// `/v1/requests/{id}/cancel` with an id.
fn without_braces(path: &str) -> String {
    path.replace(['{', '}', '*'], "")
}

/// Names and fixed values of all fields that a schema tells of.
fn collect_fields(schema: &Value, pieces: &mut Vec<String>) {
    if let Some(fields) = schema.get("properties").and_then(Value::as_object) {
        pieces.extend(fields.keys().map(|name| format!("{}:", Value::from(name.as_str()))));
    }
    pieces.extend(schema.get("enum").and_then(Value::as_array).into_iter().flatten().map(Value::to_string));
    pieces.extend(schema.get("const").map(Value::to_string));
    match schema {
        Value::Object(members) => members.values().for_each(|inner| collect_fields(inner, pieces)),
        Value::Array(items) => items.iter().for_each(|inner| collect_fields(inner, pieces)),
        _ => {}
    }
}

fn check(reply: &Reply) {
    let status = reply.status.as_u16();
    // A body may ask for a time limit, and for tools of MCP servers, of which there are none here.
    let no_mcp = || reply.json()["error"]["code"].as_str().is_some_and(|code| code.starts_with("mcp_"));
    assert!(status < 500 || status == 504 || no_mcp(), "{status}: {}", reply.body);
    let kind = reply.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.starts_with("text/event-stream") {
        assert_eq!(status, 200);
        for data in reply.body.lines().filter_map(|line| line.strip_prefix("data: ")).filter(|&data| data != "[DONE]") {
            assert!(serde_json::from_str::<Value>(data).is_ok(), "no JSON in an event: {data}");
        }
        return;
    }
    assert!(kind.starts_with("application/json"), "{status} of {kind:?}: {}", reply.body);
    let body = reply.json();
    if status >= 400 {
        // The schemas of OpenAI and of Anthropic have this much in common.
        let said = ["message", "type"].iter().all(|&name| body["error"][name].is_string());
        assert!(said, "no error in a known schema: {body}");
    }
}

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let pieces: Vec<&str> = TARGET.pieces.iter().map(String::as_str).collect();
    insert(data, size, max_size, seed, 2, &pieces)
});

fuzz_target!(init: allow_contained(), |data: &[u8]| -> Corpus {
    let Some(([route, headers], body)) = head(data) else { return Corpus::Reject };
    let target = &*TARGET;
    let path = &target.routes[usize::from(route) % target.routes.len()];
    let mut request = Request::post(path);
    if headers & 1 == 0 {
        request = request.header("content-type", "application/json");
    }
    if headers & 2 != 0 {
        request = request.header("anthropic-version", "2023-06-01");
    }
    let request = request.body(Body::from(body.to_vec())).expect("a request");
    target.runtime.block_on(async {
        check(&target.server.send(request).await);
        // Nothing is left behind, either.
        target.server.idle().await;
    });
    Corpus::Keep
});
