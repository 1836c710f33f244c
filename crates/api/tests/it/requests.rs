//! Cancelling requests by the ids that their clients saw, time limits, queues, and fields of vLLM's.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::Request,
    response::Response,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use vllm_api::http::HttpConfig;
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{EOS, Server, fake, merged, server, server_with};

fn slow() -> Server {
    let fake = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    server_with(fake, EngineConfig::default(), Default::default())
}

fn endless(stream: bool, n: usize) -> Value {
    json!({ "model": "tiny", "prompt": "x", "max_tokens": 190, "ignore_eos": true, "stream": stream, "n": n })
}

fn post(path: &str, id: &str, body: &Value) -> Request<Body> {
    Request::post(path).header("x-request-id", id).body(Body::from(body.to_string())).unwrap()
}

/// Waits until `count` requests are being computed.
async fn running(server: &Server, count: usize) {
    while server.model.engine.stats().running < count {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_call_is_cancelled_by_the_id_of_its_headers() {
    let server = slow();
    let call = server.send(post("/v1/completions", "mine", &endless(false, 2)));
    let cancel = async {
        running(&server, 2).await;
        server.delete("/v1/requests/mine").await
    };
    let (reply, cancelled) = tokio::join!(call, cancel);
    assert_eq!(cancelled.status, 200, "{}", cancelled.body);
    let wanted = json!({ "object": "request.cancel", "id": "mine", "cancelled": true, "model": "tiny" });
    assert_eq!(cancelled.json(), wanted);
    // Not one of the statuses that clients try again after.
    assert_eq!((reply.status.as_u16(), reply.error().2), (499, json!("request_cancelled")));
    server.idle().await;
    assert_eq!(server.model.engine.stats().aborted, 2);
    assert!(server.probe.steps.load(Relaxed) < 150, "the work went on");
    assert_eq!(server.delete("/v1/requests/mine").await.status, 404, "it is still in the books");
}

/// The first event of a stream, and the stream.
async fn first_event(server: &Server, body: &Value) -> (Value, Response) {
    let request = post("/v1/chat/completions", "s", body);
    let mut response = server.router.clone().oneshot(request).await.unwrap();
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(response.body_mut()).poll_frame(cx)).await;
    let bytes = frame.unwrap().unwrap().into_data().unwrap();
    let text = String::from_utf8(bytes.to_vec()).unwrap();
    let first = text.split("\n\n").next().unwrap().strip_prefix("data: ").unwrap();
    (serde_json::from_str(first).unwrap(), response)
}

#[tokio::test]
async fn a_stream_is_cancelled_by_the_id_of_its_chunks() {
    let server = slow();
    let body = merged(endless(true, 1), json!({ "messages": [{ "role": "user", "content": "hi" }] }));
    let (first, response) = first_event(&server, &body).await;
    let id = first["id"].as_str().unwrap();
    let cancelled = server.post(&format!("/v1/requests/{id}/cancel"), "").await;
    assert_eq!((cancelled.status.as_u16(), &cancelled.json()["id"]), (200, &json!(id)));
    let rest = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let rest = String::from_utf8(rest.to_vec()).unwrap();
    let events: Vec<&str> = rest.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
    assert_eq!(events.last(), Some(&"[DONE]"));
    let last: Value = serde_json::from_str(events[events.len() - 2]).unwrap();
    assert_eq!((&last["choices"][0]["finish_reason"], &last["id"]), (&json!("abort"), &json!(id)));
    server.idle().await;
}

#[tokio::test]
async fn unknown_ids_are_not_found() {
    let server = server("x");
    for reply in [server.delete("/v1/requests/nope").await, server.post("/v1/requests/nope/cancel", "").await] {
        let (message, param, code) = reply.error();
        assert_eq!((reply.status.as_u16(), param, code), (404, json!("id"), json!("request_not_found")));
        assert_eq!(message, "there is no request \"nope\" under way: it has ended, or never was");
    }
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_a_504_or_an_event() {
    let server = slow();
    let fields = json!({ "max_tokens": 190, "ignore_eos": true, "timeout": 0.05 });
    let reply = server.chat(fields.clone()).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (504, json!("timeout")));
    assert_eq!(reply.json()["error"]["type"], "timeout_error");
    let events = server.chat(merged(fields, json!({ "stream": true }))).await.events();
    assert_eq!(events.last().unwrap()["error"]["type"], "timeout_error");
    server.idle().await;
}

#[tokio::test]
async fn the_servers_time_limit_is_for_requests_that_say_none() {
    let fake = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let http = HttpConfig { timeout: Some(Duration::from_millis(50)), ..Default::default() };
    let server = server_with(fake, EngineConfig::default(), http);
    let fields = json!({ "max_tokens": 30, "ignore_eos": true });
    assert_eq!(server.chat(fields.clone()).await.status, 504);
    assert_eq!(server.chat(merged(fields, json!({ "timeout": 60 }))).await.status, 200);
}

#[tokio::test]
async fn memory_that_runs_out_is_a_503_worth_a_retry() {
    let server = server_with(
        FakeConfig { out_of_memory_at: [1].into(), ..fake() },
        EngineConfig { prefix_cache: false, ..Default::default() },
        Default::default(),
    );
    let reply = server.chat(json!({ "max_tokens": 9, "ignore_eos": true })).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (503, json!("out_of_memory")));
    assert_eq!(reply.headers["retry-after"], "1");
    assert_eq!(server.chat(json!({ "max_tokens": 2 })).await.status, 200);
}

#[tokio::test]
async fn one_key_cannot_fill_the_queue() {
    let engine = EngineConfig { max_num_seqs: 1, max_waiting_per_client: 1, ..Default::default() };
    let fake = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let server = server_with(fake, engine, Default::default());
    let ask = |key: &str, n: usize| {
        let body = merged(endless(false, n), json!({ "max_tokens": 20 })).to_string();
        let request = Request::post("/v1/completions").header("authorization", format!("Bearer {key}"));
        server.send(request.body(Body::from(body)).unwrap())
    };
    let reply = ask("greedy", 5).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (429, json!("rate_limit_exceeded")));
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
    assert_eq!(reply.headers["retry-after"], "1");
    server.idle().await;
    assert_eq!(ask("modest", 1).await.status, 200);
}

#[tokio::test]
async fn what_can_never_fit_is_refused_with_the_numbers() {
    let fake = FakeConfig { num_blocks: 10, ..fake() };
    let server = server_with(fake, EngineConfig::default(), Default::default());
    let reply = server.complete(json!({ "prompt": "x".repeat(30), "max_tokens": 20 })).await;
    let (message, _, code) = reply.error();
    assert_eq!((reply.status.as_u16(), code), (400, json!("context_length_exceeded")));
    assert!(message.contains("13 KV blocks") && message.contains("10 of 4 tokens"), "{message}");
}

#[tokio::test]
async fn fields_that_bound_the_tokens() {
    let server = server("hello");
    let cases = [
        ("min_tokens", json!({ "min_tokens": 7, "max_tokens": 8 }), 8),
        ("min_tokens without effect", json!({ "min_tokens": 2, "max_tokens": 8 }), 6),
        ("allowed tokens", json!({ "allowed_token_ids": [b'x'], "max_tokens": 3 }), 3),
        ("salt and priority", json!({ "cache_salt": "tenant", "priority": -3 }), 6),
    ];
    for (name, fields, tokens) in cases {
        let reply = server.chat(fields).await;
        assert_eq!(reply.json()["usage"]["completion_tokens"], tokens, "{name}: {}", reply.body);
    }
    let text = server.chat(json!({ "allowed_token_ids": [b'x', EOS], "max_tokens": 3, "ignore_eos": true })).await;
    assert_eq!(text.json()["choices"][0]["message"]["content"].as_str().unwrap().trim_matches('x'), "");

    let bad = [
        (json!({ "cache_salt": "" }), "cache_salt"),
        (json!({ "timeout": 0 }), "timeout"),
        (json!({ "timeout": "soon" }), "timeout"),
        (json!({ "priority": 1.5 }), "priority"),
        (json!({ "min_tokens": 9, "max_tokens": 8 }), "min_tokens"),
        (json!({ "allowed_token_ids": [] }), "allowed_token_ids"),
        (json!({ "allowed_token_ids": [9999] }), "allowed_token_ids"),
    ];
    for (fields, param) in bad {
        let reply = server.chat(fields.clone()).await;
        assert_eq!((reply.status.as_u16(), reply.error().1), (400, json!(param)), "{fields}");
    }
    server.idle().await;
}

#[tokio::test]
async fn an_answer_that_met_a_stop_string_is_computed_no_further() {
    let script = b"ab".iter().map(|&byte| u32::from(byte)).collect();
    let fake = FakeConfig { script, step_delay: Duration::from_millis(1), ..fake() };
    let server = server_with(fake, EngineConfig::default(), Default::default());
    // Both end after two tokens: neither may run on to its 190.
    let reply = server.complete(json!({ "n": 2, "stop": "b", "max_tokens": 190, "ignore_eos": true })).await;
    assert_eq!(reply.json()["usage"]["completion_tokens"], 4, "{}", reply.body);
    server.idle().await;
    assert!(server.probe.steps.load(Relaxed) < 20);
}

#[tokio::test]
async fn cached_tokens_are_told_and_salts_keep_them_apart() {
    let server = server("hello");
    let ask = |salt: &'static str| {
        let content = "the same long beginning of a conversation, again and again";
        server.chat(json!({ "messages": [{ "role": "user", "content": content }], "cache_salt": salt }))
    };
    let cached = |body: Value| body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert_eq!(cached(ask("a").await.json()), 0);
    let reply = ask("a").await.json();
    let prompt = reply["usage"]["prompt_tokens"].as_u64().unwrap();
    assert_eq!(cached(reply), prompt - 1, "an exact repeat computes one token");
    assert_eq!(cached(ask("b").await.json()), 0, "another tenant's");
}

#[tokio::test]
async fn several_tokens_go_into_one_chunk_if_asked() {
    let script = b"abcdefgh".iter().map(|&byte| u32::from(byte)).chain([EOS]).collect();
    let http = HttpConfig { stream_interval: 3, ..Default::default() };
    let server = server_with(FakeConfig { script, ..fake() }, EngineConfig::default(), http);
    let texts = |events: Vec<Value>| -> Vec<String> {
        let text = |event: &Value| event["choices"][0]["delta"]["content"].as_str().map(str::to_owned);
        events.iter().filter_map(text).filter(|text| !text.is_empty()).collect()
    };
    let events = server.chat(json!({ "stream": true })).await.events();
    assert_eq!(texts(events), ["a", "bcd", "efg", "h"], "the first goes at once");
    let events = server.chat(json!({ "stream": true, "logprobs": true })).await.events();
    let counts = events.iter().filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array().map(Vec::len));
    assert_eq!(counts.collect::<Vec<_>>(), [1, 3, 3, 1]);
}
