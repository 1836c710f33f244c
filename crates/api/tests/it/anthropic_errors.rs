//! What goes wrong under `/v1/messages` is said in Anthropic's schema, whoever says it.

use std::time::Duration;

use axum::{
    body::Body,
    http::{Method, Request},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{Reply, fake, merged, server_with};

fn body(fields: Value) -> Value {
    merged(json!({ "model": "tiny", "max_tokens": 5, "messages": [{ "role": "user", "content": "hi" }] }), fields)
}

fn request(method: Method, path: &str, body: &str) -> Request<Body> {
    let request = Request::builder().method(method).uri(path).header("x-api-key", "somebody");
    request.header("anthropic-version", "2023-06-01").body(Body::from(body.to_owned())).unwrap()
}

#[track_caller]
fn is_error(reply: &Reply, status: u16, kind: &str, message: &str) {
    assert_eq!(reply.status.as_u16(), status, "{}", reply.body);
    assert_eq!(reply.anthropic_error(), (message.to_owned(), kind.to_owned()));
}

#[tokio::test]
async fn errors_of_handlers_and_of_the_router() {
    let limited = HttpConfig { body_limit: 500, ..HttpConfig::default() };
    let server = server_with(fake(), EngineConfig::default(), limited);
    let other_model = body(json!({ "model": "claude-opus-4-1" })).to_string();
    let cases = [
        (
            request(Method::POST, "/v1/messages?beta=true", &other_model),
            404,
            "not_found_error",
            server.post("/v1/chat/completions", &other_model).await.error().0,
        ),
        (
            request(Method::POST, "/v1/messages/count_tokens", "{"),
            400,
            "invalid_request_error",
            "the body is not valid JSON: EOF while parsing an object at line 1 column 1".into(),
        ),
        (
            request(Method::POST, "/v1/messages", &"x".repeat(501)),
            413,
            "request_too_large",
            "the body is longer than 500 bytes".into(),
        ),
        (
            request(Method::GET, "/v1/messages", ""),
            405,
            "invalid_request_error",
            "/v1/messages does not take GET".into(),
        ),
        (
            request(Method::GET, "/v1/messages/batches", ""),
            404,
            "not_found_error",
            "there is no GET /v1/messages/batches".into(),
        ),
    ];
    for (request, status, kind, message) in cases {
        is_error(&server.send(request).await, status, kind, &message);
    }
    // Nobody else's errors change.
    let (message, ..) = server.get("/v1/messagesx").await.error();
    assert_eq!(message, "there is no GET /v1/messagesx");
}

#[tokio::test]
async fn not_now_has_a_number_of_its_own() {
    let loading = App::new(HttpConfig::default()).router();
    let reply = loading.oneshot(request(Method::POST, "/v1/messages", &body(json!({})).to_string())).await.unwrap();
    assert_eq!((reply.status().as_u16(), reply.headers()["retry-after"].to_str().unwrap()), (529, "1"));

    let cases = [
        ("the queue is full", 1, 10, 529, "overloaded_error"),
        ("the client's part of it is", 10, 1, 429, "rate_limit_error"),
    ];
    for (name, max_waiting, max_waiting_per_client, status, kind) in cases {
        let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
        let engine = EngineConfig { max_num_seqs: 1, max_waiting, max_waiting_per_client, ..Default::default() };
        let server = server_with(slow, engine, HttpConfig::default());
        let long = body(json!({ "max_tokens": 100, "ignore_eos": true })).to_string();
        let ask = async |running: usize, waiting: usize| {
            while let stats = server.model.engine.stats()
                && (stats.running < running || stats.waiting < waiting)
            {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.send(request(Method::POST, "/v1/messages", &long)).await
        };
        let (runs, waits, refused) = tokio::join!(ask(0, 0), ask(1, 0), ask(1, 1));
        assert_eq!((runs.status.as_u16(), waits.status.as_u16()), (200, 200), "{name}");
        assert_eq!((refused.status.as_u16(), refused.anthropic_error().1.as_str()), (status, kind), "{name}");
        assert_eq!(refused.headers["retry-after"], "1", "{name}");
        // The metrics have what was sent.
        assert!(server.get("/metrics").await.body.contains(&format!("status_code=\"{status}\"")), "{name}");
    }
}

#[tokio::test]
async fn an_engine_that_fails_or_takes_too_long() {
    let config = FakeConfig { fail_at: [2, 5].into(), script: vec![104, 105], ..fake() };
    let server = server_with(config, EngineConfig::default(), Default::default());
    is_error(&server.message(json!({})).await, 500, "api_error", "the fake was told to fail at step 2");

    let reply = server.message(json!({ "stream": true })).await;
    let events = reply.named_events();
    let (name, data) = events.last().unwrap();
    assert_eq!((name.as_str(), events[0].0.as_str()), ("error", "message_start"));
    let wanted = json!({ "type": "error", "request_id": reply.headers["request-id"].to_str().unwrap(),
        "error": { "type": "api_error", "message": "the fake was told to fail at step 5" } });
    assert_eq!(*data, wanted);

    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let server = server_with(slow, EngineConfig::default(), Default::default());
    let reply = server.message(json!({ "max_tokens": 190, "ignore_eos": true, "timeout": 0.05 })).await;
    assert_eq!((reply.status.as_u16(), reply.anthropic_error().1.as_str()), (504, "timeout_error"));
}

#[tokio::test]
async fn a_call_that_somebody_cancels() {
    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let server = server_with(slow, EngineConfig::default(), Default::default());
    for stream in [false, true] {
        let body = body(json!({ "max_tokens": 190, "ignore_eos": true, "stream": stream })).to_string();
        let mut call = request(Method::POST, "/v1/messages", &body);
        call.headers_mut().insert("x-request-id", "mine".parse().unwrap());
        let cancel = async {
            while server.model.engine.stats().running == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            server.delete("/v1/requests/mine").await
        };
        let (reply, cancelled) = tokio::join!(server.send(call), cancel);
        assert_eq!(cancelled.status, 200, "{}", cancelled.body);
        if stream {
            let events = reply.named_events();
            let (name, data) = events.last().unwrap();
            assert_eq!((name.as_str(), &data["error"]["message"]), ("error", &json!("the request was cancelled")));
            assert!(events.iter().all(|(name, _)| name != "message_stop"));
        } else {
            is_error(&reply, 499, "api_error", "the request was cancelled");
        }
        server.idle().await;
    }
}

#[tokio::test]
async fn a_silent_stream_has_pings() {
    let slow = FakeConfig { step_delay: Duration::from_millis(60), ..fake() };
    let http = HttpConfig { heartbeat: Duration::from_millis(10), ..HttpConfig::default() };
    let server = server_with(slow, EngineConfig::default(), http);
    let reply = server.message(json!({ "stream": true, "max_tokens": 2, "ignore_eos": true })).await;
    assert!(reply.body.contains("event: ping\ndata: {\"type\":\"ping\"}\n\n"), "{}", reply.body);
    assert_eq!(reply.named_events().last().unwrap().0, "message_stop");
}
