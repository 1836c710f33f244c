//! Requests and tokens a minute, over a fake engine.

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use vllm_api::http::{Peer, Rate, Rules};

use crate::support::{Reply, Server, server};

fn limited(keys: &str, rate: Rate) -> Server {
    let server = server("hello");
    let mut rules = Rules { rate, ..Rules::default() };
    if !keys.is_empty() {
        rules.keys.add_lines(keys).unwrap();
    }
    server.app.set_rules(rules);
    server
}

/// From an address, with a key.
async fn complete(server: &Server, address: &str, key: &str, fields: Value) -> Reply {
    let body = crate::support::merged(json!({ "model": "tiny", "prompt": "hi", "max_tokens": 3 }), fields);
    let mut request = Request::post("/v1/completions").header("x-api-key", key);
    if !address.is_empty() {
        request = request.extension(Peer(address.parse().unwrap()));
    }
    server.send(request.body(Body::from(body.to_string())).unwrap()).await
}

fn quota(reply: &Reply, what: &str) -> [Option<String>; 2] {
    ["limit", "remaining"].map(|part| {
        let value = reply.headers.get(format!("x-ratelimit-{part}-{what}"));
        value.map(|value| value.to_str().unwrap().to_owned())
    })
}

#[tokio::test]
async fn requests_a_minute() {
    let server = limited("alice one\nbob two\nalice three", Rate { requests: 2, tokens: 0 });
    for remaining in ["1", "0"] {
        let reply = complete(&server, "10.0.0.1", "one", json!({})).await;
        assert_eq!(reply.status, 200);
        assert_eq!(quota(&reply, "requests"), [Some("2".into()), Some(remaining.into())]);
        assert_eq!(quota(&reply, "tokens"), [None, None], "there is no limit on them");
    }
    // An owner's keys share one quota, wherever they are used.
    for (address, key) in [("10.0.0.1", "one"), ("10.0.0.2", "three")] {
        let reply = complete(&server, address, key, json!({})).await;
        assert_eq!((reply.status.as_u16(), reply.error().2), (429, json!("rate_limit_exceeded")));
        assert_eq!(reply.json()["error"]["type"], "rate_limit_error");
        let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((20..=30).contains(&wait), "{wait}");
        assert_eq!(quota(&reply, "requests"), [Some("2".into()), Some("0".into())]);
        let reset = reply.headers["x-ratelimit-reset-requests"].to_str().unwrap();
        assert!(reset.ends_with('s'), "{reset}");
        assert!(reply.error().0.starts_with("the limit is 2 requests a minute: try again in "), "{}", reply.body);
    }
    assert_eq!(complete(&server, "10.0.0.1", "two", json!({})).await.status, 200, "another owner");
    // A lost key costs nothing of anybody's.
    assert_eq!(complete(&server, "10.0.0.1", "nine", json!({})).await.status, 401);
}

#[tokio::test]
async fn without_keys_addresses_are_limited() {
    let server = limited("", Rate { requests: 1, tokens: 0 });
    let status = async |address: &str, key: &str| complete(&server, address, key, json!({})).await.status.as_u16();
    assert_eq!(status("10.0.0.1", "a").await, 200);
    assert_eq!(status("10.0.0.1", "b").await, 429, "making up keys doesn't help");
    assert_eq!(status("10.0.0.2", "a").await, 200);
    assert_eq!(status("2001:db8::1", "a").await, 200);
    assert_eq!(status("2001:db8::2", "a").await, 429, "one network");
    assert_eq!([status("", "a").await, status("", "a").await], [200, 429]);
}

#[tokio::test]
async fn looking_and_cancelling_are_free() {
    let server = limited("", Rate { requests: 1, tokens: 1 });
    assert_eq!(complete(&server, "", "a", json!({})).await.status, 200);
    for path in ["/health", "/v1/models", "/v1/status", "/metrics"] {
        let reply = server.get(path).await;
        assert_eq!((reply.status.as_u16(), quota(&reply, "requests")), (200, [None, None]), "{path}");
    }
    assert_eq!(server.post("/v1/requests/x/cancel", "").await.status, 404);
    assert_eq!(server.post("/no/route", "").await.status, 404);
    assert_eq!(server.delete("/v1/requests/x").await.status, 404);
    assert_eq!(complete(&server, "", "a", json!({})).await.status, 429);
}

#[tokio::test]
async fn tokens_a_minute() {
    let server = limited("", Rate { requests: 0, tokens: 6 });
    // Two of the prompt and three of the answer: known when it has ended, streaming or not.
    let reply = complete(&server, "10.0.0.1", "", json!({})).await;
    assert_eq!((reply.status.as_u16(), quota(&reply, "tokens")), (200, [Some("6".into()), Some("6".into())]));
    let reply = complete(&server, "10.0.0.1", "", json!({ "stream": true })).await;
    assert_eq!((reply.status.as_u16(), quota(&reply, "tokens")), (200, [Some("6".into()), Some("1".into())]));
    let reply = complete(&server, "10.0.0.1", "", json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (429, json!("rate_limit_exceeded")));
    // 4 have come too many, and one is wanted: at 6 a minute.
    let wait: u64 = reply.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((45..=50).contains(&wait), "{wait}");
    assert!(reply.error().0.contains("6 tokens a minute"), "{}", reply.body);
    assert_eq!(complete(&server, "10.0.0.2", "", json!({})).await.status, 200);
    // A request that computed nothing costs no tokens.
    for _ in 0..3 {
        assert_eq!(complete(&server, "10.0.0.3", "", json!({ "temperature": -1 })).await.status, 400);
    }
    assert_eq!(complete(&server, "10.0.0.3", "", json!({})).await.status, 200);
}

#[tokio::test]
async fn new_limits_hold_at_once() {
    let server = limited("", Rate { requests: 1, tokens: 0 });
    let status = async || complete(&server, "10.0.0.1", "", json!({})).await.status.as_u16();
    assert_eq!([status().await, status().await], [200, 429]);
    server.app.set_rules(Rules { rate: Rate { requests: 3, tokens: 0 }, ..Rules::default() });
    assert_eq!([status().await, status().await, status().await], [200, 200, 429], "what is used stays used");
    server.app.set_rules(Rules::default());
    assert_eq!(status().await, 200);
}
