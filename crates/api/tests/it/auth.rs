//! API keys, what they protect, and cross-origin requests, over a fake engine.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use vllm_api::http::{KeyRing, Origins, Rate, Rules};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{Reply, Server, fake, server, server_with};

type Headers<'a> = &'a [(&'a str, &'a str)];

fn rules(keys: &str, origins: &[&str]) -> Rules {
    let mut rules = Rules::default();
    if !keys.is_empty() {
        rules.keys.add_lines(keys).unwrap();
    }
    origins.iter().try_for_each(|origin| rules.origins.add(origin)).unwrap();
    rules
}

fn closed() -> Server {
    let server = server("hello");
    server.app.set_rules(rules("alice one\nbob two\nalice three", &[]));
    server
}

async fn ask(server: &Server, method: &str, path: &str, headers: Headers<'_>, body: &Value) -> Reply {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    server.send(request.body(Body::from(body.to_string())).unwrap()).await
}

fn completion(fields: Value) -> Value {
    crate::support::merged(json!({ "model": "tiny", "prompt": "hi", "max_tokens": 3 }), fields)
}

#[tokio::test]
async fn keys_open_the_server() {
    let server = closed();
    let cases: [(&str, Headers, u16); 13] = [
        ("a bearer", &[("authorization", "Bearer one")], 200),
        ("another", &[("authorization", "Bearer two")], 200),
        ("in small letters", &[("authorization", "bearer two")], 200),
        ("as Anthropic has it", &[("x-api-key", "three")], 200),
        ("one good of two", &[("authorization", "Bearer nine"), ("x-api-key", "one")], 200),
        ("none", &[], 401),
        ("an empty one", &[("authorization", "Bearer ")], 401),
        ("a wrong one", &[("authorization", "Bearer nine")], 401),
        ("a name", &[("authorization", "Bearer alice")], 401),
        ("a beginning", &[("authorization", "Bearer thre")], 401),
        ("one with more", &[("x-api-key", "one1")], 401),
        ("another scheme", &[("authorization", "Basic one")], 401),
        ("another header", &[("api-key", "one")], 401),
    ];
    for (name, headers, wanted) in cases {
        let reply = ask(&server, "POST", "/v1/completions", headers, &completion(json!({}))).await;
        assert_eq!(reply.status.as_u16(), wanted, "{name}: {}", reply.body);
        if wanted == 401 {
            assert_eq!(reply.error().2, "invalid_api_key", "{name}");
            assert_eq!(reply.json()["error"]["type"], "invalid_request_error", "{name}");
            assert_eq!(reply.headers["www-authenticate"], "Bearer", "{name}");
            assert!(reply.headers.contains_key("x-request-id"), "{name}");
        }
    }
}

#[tokio::test]
async fn anthropics_clients_hear_it_in_their_schema() {
    let server = closed();
    let limited = Rules { rate: Rate { requests: 1, tokens: 0 }, ..rules("alice one", &[]) };
    server.app.set_rules(limited);
    let body = json!({ "model": "tiny", "max_tokens": 3, "messages": [{ "role": "user", "content": "hi" }] });
    let asked = async |key| ask(&server, "POST", "/v1/messages", &[("x-api-key", key)], &body).await;
    let reply = asked("nine").await;
    assert_eq!((reply.status.as_u16(), &reply.headers["www-authenticate"]), (401, &"Bearer".parse().unwrap()));
    assert_eq!(reply.json()["error"]["type"], "authentication_error", "{}", reply.body);
    assert_eq!(asked("one").await.status, 200);
    let reply = asked("one").await;
    assert_eq!((reply.status.as_u16(), reply.headers.contains_key("retry-after")), (429, true));
    assert!(reply.headers.contains_key("x-ratelimit-reset-requests"));
    assert_eq!(reply.json()["error"]["type"], "rate_limit_error", "{}", reply.body);
}

#[tokio::test]
async fn everything_but_probes_is_protected() {
    let server = closed();
    for path in ["/health", "/live", "/metrics", "/ping", "/ready"] {
        assert_eq!(server.get(path).await.status, 200, "{path}");
    }
    let protected = [
        ("GET", "/v1/models"),
        ("GET", "/v1/models/tiny"),
        ("GET", "/v1/status"),
        ("GET", "/v1/cache/stats"),
        ("DELETE", "/v1/cache"),
        ("DELETE", "/v1/cache/prefix"),
        ("DELETE", "/v1/requests/x"),
        ("POST", "/v1/requests/x/cancel"),
        ("POST", "/v1/chat/completions"),
        ("OPTIONS", "/v1/completions"),
        ("GET", "/v1/completions"),
        ("GET", "/nothing/here"),
        ("GET", "/health/"),
        ("GET", "//health"),
        ("GET", "/%68ealth"),
        ("GET", "/v1/models/../../health"),
    ];
    for (method, path) in protected {
        let reply = ask(&server, method, path, &[], &json!({})).await;
        assert_eq!(reply.status, 401, "{method} {path}");
        let reply = ask(&server, method, path, &[("x-api-key", "one")], &json!({})).await;
        assert_ne!(reply.status, 401, "{method} {path}");
    }
}

#[tokio::test]
async fn new_keys_hold_at_once() {
    let server = closed();
    let status = async |key: &str| ask(&server, "GET", "/v1/models", &[("x-api-key", key)], &json!({})).await.status;
    assert_eq!((status("one").await, status("new").await), (200.try_into().unwrap(), 401.try_into().unwrap()));
    server.app.set_rules(rules("new", &[]));
    assert_eq!((status("one").await, status("new").await), (401.try_into().unwrap(), 200.try_into().unwrap()));
    server.app.set_rules(Rules { keys: KeyRing::default(), ..Default::default() });
    assert_eq!(server.get("/v1/models").await.status, 200);
}

#[tokio::test]
async fn only_its_owner_cancels_a_request() {
    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let server = server_with(slow, EngineConfig::default(), Default::default());
    let as_owner = [("authorization", "Bearer one"), ("x-request-id", "mine")];
    let cancel = async |key: &str| {
        let reply = ask(&server, "DELETE", "/v1/requests/mine", &[("x-api-key", key)], &json!({})).await;
        (reply.status.as_u16(), reply.body)
    };
    for (owners, canceller, cancels) in [
        ("alice one\nbob two\nalice three", "two", false),
        ("alice one\nbob two\nalice three", "one", true),
        ("alice one\nbob two\nalice three", "three", true),
        // Where no keys are wanted, nobody owns anything.
        ("", "two", true),
    ] {
        server.app.set_rules(rules(owners, &[]));
        let long = completion(json!({ "max_tokens": 150, "ignore_eos": true }));
        let (reply, ()) = tokio::join!(ask(&server, "POST", "/v1/completions", &as_owner, &long), async {
            while server.model.engine.stats().running < 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let (status, body) = cancel(canceller).await;
            assert_eq!(status, if cancels { 200 } else { 404 }, "{owners:?} {canceller}: {body}");
        });
        assert_eq!(reply.status.as_u16(), if cancels { 499 } else { 200 }, "{owners:?} {canceller}");
        server.idle().await;
    }
}

const PAGE: &str = "https://chat.example.com";

#[tokio::test]
async fn pages_that_are_allowed_may_ask() {
    let server = server("hello");
    let preflight = [
        ("origin", PAGE),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "authorization,content-type"),
    ];
    let origins: [(&[&str], Option<&str>); 4] =
        [(&[], None), (&["http://localhost:3000"], None), (&[PAGE, "http://a"], Some(PAGE)), (&["*"], Some("*"))];
    for keys in ["", "alice one"] {
        for (list, allowed) in origins {
            server.app.set_rules(rules(keys, list));
            let reply = ask(&server, "OPTIONS", "/v1/completions", &preflight, &json!({})).await;
            let header = |reply: &Reply, name: &str| reply.headers.get(name).map(|v| v.to_str().unwrap().to_owned());
            let refused = if keys.is_empty() { 405 } else { 401 };
            assert_eq!(reply.status.as_u16(), if allowed.is_some() { 204 } else { refused }, "{list:?}");
            assert_eq!(header(&reply, "access-control-allow-origin").as_deref(), allowed, "{list:?}");
            if allowed.is_some() {
                assert_eq!(header(&reply, "access-control-allow-methods").as_deref(), Some("GET, POST, DELETE"));
                let headers = header(&reply, "access-control-allow-headers");
                assert_eq!(headers.as_deref(), Some("authorization,content-type"));
            }
            // The page may read errors, too: here, that it has no key.
            let reply = ask(&server, "GET", "/v1/models", &[("origin", PAGE)], &json!({})).await;
            assert_eq!(reply.status.as_u16(), if keys.is_empty() { 200 } else { 401 });
            assert_eq!(header(&reply, "access-control-allow-origin").as_deref(), allowed, "{list:?}");
            assert_eq!(
                header(&reply, "access-control-expose-headers").is_some_and(|names| names.contains("x-request-id")),
                allowed.is_some()
            );
            let varies = header(&reply, "vary").is_some();
            assert_eq!(varies, !list.is_empty() && allowed != Some("*"), "{list:?}");
        }
    }
    server.app.set_rules(Rules { origins: Origins::default(), ..Default::default() });
}
