//! What operators use, on a real model: cancelling, status, metrics, cache, logs.

use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vllm_tests::{Server, python};

fn server(args: &[&str]) -> Server {
    Server::smollm2(&[&["--served-model-name", "smollm2"], args].concat())
}

/// An answer that takes minutes if nobody stops it.
fn long(stream: bool) -> Value {
    json!({"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 6000, "temperature": 0,
        "ignore_eos": true, "stream": stream})
}

/// Waits until `/v1/status` pleases.
fn wait_status(server: &Server, what: &str, pleases: impl Fn(&Value) -> bool) -> Value {
    let start = Instant::now();
    loop {
        let (_, body) = server.get("/v1/status").expect("an answer");
        if pleases(&body) {
            return body;
        }
        assert!(start.elapsed() < Duration::from_secs(30), "no {what}: {body}\n{}", server.log());
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn cancelling_stops_the_work_and_frees_its_blocks() {
    let server = server(&["--log-format", "json"]);
    thread::scope(|scope| {
        let whole = scope.spawn(|| server.post("/v1/completions", &long(false)));
        let stream = scope.spawn(|| server.stream("/v1/completions", &long(true)));
        let two_at_work = |body: &Value| {
            let generating = |request: &Value| request["phase"] == "generation";
            body["requests"].as_array().is_some_and(|all| all.len() == 2 && all.iter().all(generating))
        };
        let status = wait_status(&server, "two requests at work", two_at_work);
        let used = status["cache"]["in_use_memory_mb"].as_f64();
        assert!(used > Some(0.0), "{status}");
        for request in status["requests"].as_array().expect("requests") {
            let id = request["request_id"].as_str().expect("an id");
            assert!(id.starts_with("cmpl-"), "{id}");
            let (code, body) = server.post(&format!("/v1/requests/{id}/cancel"), &json!({}));
            assert_eq!((code, &body["cancelled"], &body["id"]), (200, &json!(true), &json!(id)), "{body}");
        }
        let (code, body) = whole.join().expect("an ended request");
        assert_eq!((code, body["error"]["code"].as_str()), (499, Some("request_cancelled")), "{body}");
        let events = stream.join().expect("an ended stream");
        let last: Value = serde_json::from_str(&events[events.len() - 2]).expect("JSON");
        assert_eq!(last["choices"][0]["finish_reason"], "abort", "{last}");
    });
    let status = wait_status(&server, "rest", |body| body["num_running"] == 0);
    assert_eq!((&status["cache"]["in_use_memory_mb"], &status["requests"]), (&json!(0.0), &json!([])), "{status}");
    let lines: Vec<Value> = server.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let ended: Vec<&Value> = lines.iter().filter(|line| line["message"] == "request finished").collect();
    assert_eq!(ended.len(), 2, "{}", server.log());
    assert!(ended.iter().all(|line| line["result"] == "cancelled" && line["completion_tokens"].as_u64() > Some(0)));
}

#[test]
fn a_request_over_its_time_is_a_504() {
    let server = server(&["--timeout", "1"]);
    let (code, body) = server.post("/v1/completions", &long(false));
    assert_eq!((code, body["error"]["type"].as_str()), (504, Some("timeout_error")), "{body}");
    wait_status(&server, "rest", |body| body["num_running"] == 0);
}

#[test]
fn metrics_are_what_prometheus_reads() {
    let server = server(&[]);
    let request = json!({"model": "smollm2", "prompt": "The capital of France is", "max_tokens": 4});
    assert_eq!(server.post("/v1/completions", &request).0, 200);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/prometheus.py");
    let out = Command::new(python()).arg(script).arg(server.url("/metrics")).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success() && stdout.contains("parsed"), "{stdout}{stderr}");
}

#[test]
fn the_prefix_cache_is_counted_and_cleared() {
    let server = server(&[]);
    let prompt = "All work and no play makes Jack a dull boy. ".repeat(20);
    let request = json!({"model": "smollm2", "prompt": prompt, "max_tokens": 2, "temperature": 0});
    let cached = || {
        let (code, body) = server.post("/v1/completions", &request);
        assert_eq!(code, 200, "{body}");
        let usage = &body["usage"];
        let cached = usage["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
        (cached, usage["prompt_tokens"].as_u64().expect("a count"))
    };
    assert_eq!(cached().0, 0);
    let (again, prompt) = cached();
    assert_eq!(again, prompt - 1, "an exact repeat computes one token");
    let (_, stats) = server.get("/v1/cache/stats").expect("an answer");
    assert_eq!(stats["engine_cache"]["tokens_saved"], json!(prompt - 1), "{stats}");
    let (code, body) = server.delete("/v1/cache").expect("an answer");
    assert_eq!((code, body["status"].as_str()), (200, Some("cleared")), "{body}");
    assert_eq!(cached().0, 0, "what was cleared is gone");
}

#[test]
fn without_a_prefix_cache_nothing_is_cached() {
    let server = server(&["--disable-prefix-cache"]);
    let request = json!({"model": "smollm2", "prompt": "again and again and again", "max_tokens": 2});
    for _ in 0..2 {
        let (code, body) = server.post("/v1/completions", &request);
        assert_eq!((code, &body["usage"]["prompt_tokens_details"]["cached_tokens"]), (200, &json!(0)), "{body}");
    }
}
