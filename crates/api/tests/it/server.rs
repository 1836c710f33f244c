//! Routes, errors and connections, over a fake engine.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{body::Body, http::Request};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tower::ServiceExt as _;
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{Server, fake, server, server_with};

fn slow() -> FakeConfig {
    FakeConfig { step_delay: Duration::from_millis(5), ..fake() }
}

#[tokio::test]
async fn health_follows_the_engine() {
    let app = App::new(HttpConfig::default());
    let ask = |path: &'static str| {
        let router = app.clone().router();
        async move {
            let response = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = axum::body::to_bytes(body, 10_000).await.unwrap();
            (parts.status.as_u16(), serde_json::from_slice::<serde_json::Value>(&body).unwrap())
        }
    };
    assert_eq!(ask("/health").await, (503, json!({ "status": "loading" })));
    let (status, body) = ask("/v1/models").await;
    assert_eq!((status, &body["error"]["code"]), (503, &json!("model_loading")));

    let Server { model, .. } = server("x");
    app.set_model(model.clone());
    let health = |status: &str| json!({ "status": status, "requests": { "running": 0, "waiting": 0 }, "mcp": null });
    assert_eq!(ask("/health").await, (200, health("ok")));
    model.engine.drain();
    model.engine.stopped().await;
    assert_eq!(ask("/health").await, (503, health("stopped")));
}

#[tokio::test]
async fn models() {
    let server = server("x");
    let body = server.get("/v1/models").await.json();
    assert_eq!((&body["object"], body["data"].as_array().unwrap().len()), (&json!("list"), 2));
    let entry = &body["data"][1];
    assert_eq!(
        (&entry["id"], &entry["object"], &entry["max_model_len"]),
        (&json!("org/tiny"), &json!("model"), &json!(200))
    );
    for path in ["/v1/models/org/tiny", "/v1/models/org%2Ftiny"] {
        assert_eq!(&server.get(path).await.json(), entry, "{path}");
    }
    let reply = server.get("/v1/models/nope").await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (404, json!("model_not_found")));
}

#[tokio::test]
async fn errors_of_routes_and_bodies_have_the_schema() {
    let http = HttpConfig { body_limit: 1000, ..Default::default() };
    let server = server_with(fake(), EngineConfig::default(), http);
    let chat = "/v1/chat/completions";
    let unknown = json!({ "model": "gpt-4", "messages": [{ "role": "user", "content": "x" }] }).to_string();
    let long = json!({ "model": "x".repeat(1000) }).to_string();
    let cases = [
        ("no route", "GET", "/nope", "", 404, json!("not_found"), "there is no GET /nope"),
        ("wrong method", "GET", chat, "", 405, json!("method_not_allowed"), "/v1/chat/completions does not take GET"),
        (
            "unknown model",
            "POST",
            chat,
            &unknown,
            404,
            json!("model_not_found"),
            "the model \"gpt-4\" does not exist: this server has tiny, org/tiny",
        ),
        (
            "broken",
            "POST",
            chat,
            "{",
            400,
            json!(null),
            "the body is not valid JSON: EOF while parsing an object at line 1 column 1",
        ),
        (
            "empty",
            "POST",
            chat,
            "",
            400,
            json!(null),
            "the body is not valid JSON: EOF while parsing a value at line 1 column 0",
        ),
        ("no object", "POST", chat, "[1]", 400, json!(null), "the body is an array: it must be a JSON object"),
        (
            "too long",
            "POST",
            "/v1/completions",
            &long,
            413,
            json!("request_too_large"),
            "the body is longer than 1000 bytes",
        ),
    ];
    for (name, method, path, body, status, code, message) in cases {
        let request = Request::builder().method(method).uri(path).body(Body::from(body.to_owned())).unwrap();
        let reply = server.send(request).await;
        let error = reply.error();
        assert_eq!((reply.status.as_u16(), error.2, error.0.as_str()), (status, code, message), "{name}");
    }
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let server = server("x");
    let reply = server.get("/nope").await;
    assert!(reply.headers["x-request-id"].to_str().unwrap().starts_with("req-"));
    let request = Request::get("/health").header("x-request-id", "mine").body(Body::empty()).unwrap();
    assert_eq!(server.send(request).await.headers["x-request-id"], "mine");
}

#[tokio::test]
async fn a_silent_stream_has_heartbeats() {
    let fake = FakeConfig { step_delay: Duration::from_millis(120), ..fake() };
    let http = HttpConfig { heartbeat: Duration::from_millis(10), ..Default::default() };
    let server = server_with(fake, EngineConfig::default(), http);
    let reply = server.chat(json!({ "stream": true, "max_tokens": 1 })).await;
    assert!(reply.body.starts_with(": still here\n\n"), "{}", reply.body);
    assert_eq!(reply.events().last().unwrap()["choices"][0]["finish_reason"], "length");
}

#[tokio::test]
async fn shutting_down_answers_503() {
    let server = server_with(slow(), EngineConfig::default(), Default::default());
    let engine = server.model.engine.clone();
    let stop = async {
        while engine.stats().running == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        engine.shutdown();
    };
    let (reply, ()) = tokio::join!(server.chat(json!({ "ignore_eos": true })), stop);
    assert_eq!((reply.status.as_u16(), reply.error().2), (503, json!("shutting_down")));
    assert_eq!(server.chat(json!({})).await.status, 503);
}

/// Over a real connection, which is cut once the answer is under way.
#[tokio::test]
async fn a_client_that_goes_away_stops_the_work() {
    for stream in [true, false] {
        let server = server_with(slow(), EngineConfig::default(), Default::default());
        let mut client = TcpStream::connect(server.listen(Default::default()).await).await.unwrap();
        let body =
            json!({ "model": "tiny", "prompt": "x", "max_tokens": 190, "n": 2, "ignore_eos": true, "stream": stream });
        let body = body.to_string();
        let head = format!("POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n", body.len());
        client.write_all((head + &body).as_bytes()).await.unwrap();
        while server.model.engine.stats().running < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if stream {
            let mut first = [0; 20];
            client.read_exact(&mut first).await.unwrap();
            assert!(first.starts_with(b"HTTP/1.1 200 OK"));
        }
        drop(client);
        server.idle().await;
        let steps = server.probe.steps.load(Relaxed);
        assert!(steps < 150, "stream {stream}: the work went on for {steps} steps");
        assert_eq!(server.model.engine.stats().aborted, 2);
    }
}
