//! Status, metrics, cache and health, over a fake engine.

use std::time::Duration;

use serde_json::json;
use vllm_api::http::HttpConfig;
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{Server, fake, server, server_with};

fn slow(delay: u64, http: HttpConfig) -> Server {
    let fake = FakeConfig { step_delay: Duration::from_millis(delay), ..fake() };
    server_with(fake, EngineConfig { max_num_seqs: 1, ..Default::default() }, http)
}

/// The value of a series, by how its line begins.
fn value(text: &str, series: &str) -> f64 {
    let line = text.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let server = server("hello");
    server.chat(json!({})).await;
    server.complete(json!({ "stream": true, "max_tokens": 3 })).await;
    server.chat(json!({ "temperature": -1 })).await;
    server.idle().await;
    let reply = server.get("/metrics").await;
    assert_eq!(reply.headers["content-type"], "text/plain; version=0.0.4; charset=utf-8");
    let text = reply.body;
    let labels = r#"model_name="tiny",engine="0""#;
    let cases = [
        (format!("vllm:num_requests_running{{{labels}}}"), 0.0),
        (format!("vllm:num_requests_waiting{{{labels}}}"), 0.0),
        (format!("vllm:kv_cache_usage_perc{{{labels}}}"), 0.0),
        (format!("vllm:generation_tokens_total{{{labels}}}"), 9.0),
        (format!("vllm:request_success_total{{{labels},finished_reason=\"stop\"}}"), 1.0),
        (format!("vllm:request_success_total{{{labels},finished_reason=\"length\"}}"), 1.0),
        (format!("vllm:time_to_first_token_seconds_count{{{labels}}}"), 2.0),
        (format!("vllm:request_generation_tokens_sum{{{labels}}}"), 9.0),
        (format!("vllm:e2e_request_latency_seconds_bucket{{{labels},le=\"+Inf\"}}"), 2.0),
        ("vllm_mlx_model_loaded".into(), 1.0),
        ("vllm_mlx_engine_stalled".into(), 0.0),
        (
            r#"vllm_mlx_inference_requests_total{endpoint="chat_completions",stream="false",result="success"}"#.into(),
            1.0,
        ),
        (
            r#"vllm_mlx_inference_requests_total{endpoint="chat_completions",stream="false",result="rejected"}"#.into(),
            1.0,
        ),
        (r#"vllm_mlx_inference_requests_total{endpoint="completions",stream="true",result="success"}"#.into(), 1.0),
        (r#"vllm_mlx_completion_tokens_total{endpoint="completions",stream="true"}"#.into(), 3.0),
        (r#"vllm_mlx_http_requests_total{method="POST",path="/v1/chat/completions",status_code="400"}"#.into(), 1.0),
        (r#"vllm_mlx_http_requests_in_flight{method="POST",path="/v1/chat/completions"}"#.into(), 0.0),
        (r#"vllm_mlx_http_requests_in_flight{method="GET",path="/metrics"}"#.into(), 1.0),
    ];
    for (series, wanted) in cases {
        assert_eq!(value(&text, &series), wanted, "{series}");
    }
    let info = text.lines().find(|line| line.starts_with("vllm:cache_config_info{")).unwrap();
    assert!(info.contains(r#"block_size="4",num_gpu_blocks="1000""#) && info.ends_with(" 1"), "{info}");
}

/// What an endpoint picker reads of a server that is busy: one request runs, one waits.
#[tokio::test]
async fn endpoint_pickers_find_what_they_go_by() {
    let server = slow(5, Default::default());
    let work = server.complete(json!({ "n": 2, "max_tokens": 190, "ignore_eos": true }));
    let look = async {
        loop {
            let text = server.get("/metrics").await.body;
            let labels = r#"model_name="tiny",engine="0""#;
            let running = value(&text, &format!("vllm:num_requests_running{{{labels}}}"));
            let waiting = value(&text, &format!("vllm:num_requests_waiting{{{labels}}}"));
            let [used, old] =
                ["kv", "gpu"].map(|kind| value(&text, &format!("vllm:{kind}_cache_usage_perc{{{labels}}}")));
            if (running, waiting) == (1.0, 1.0) && used > 0.0 {
                let blocks = used * 1000.0;
                assert!(used < 1.0 && (blocks - blocks.round()).abs() < 1e-9, "{used} is so many of a thousand blocks");
                assert_eq!(used, old);
                let lora = r#",max_lora="0",running_lora_adapters="",waiting_lora_adapters="""#;
                let updated = value(&text, &format!("vllm:lora_requests_info{{{labels}{lora}}}"));
                assert!(updated > 1.7e9, "{updated} is a time");
                let status = server.get("/v1/status").await.json();
                let id = status["requests"][0]["request_id"].as_str().unwrap().to_owned();
                assert_eq!(server.delete(&format!("/v1/requests/{id}")).await.status, 200);
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::join!(work, look);
}

#[tokio::test]
async fn made_up_paths_and_methods_make_no_series() {
    let server = server("x");
    for path in ["/a", "/b", "/v1/requests/one", "/v1/requests/two"] {
        server.delete(path).await;
    }
    let text = server.get("/metrics").await.body;
    let count = |path: &str| {
        value(&text, &format!(r#"vllm_mlx_http_requests_total{{method="DELETE",path="{path}",status_code="404"}}"#))
    };
    assert_eq!((count("other"), count("/v1/requests/{id}")), (2.0, 2.0));
}

#[tokio::test]
async fn metrics_can_be_turned_off() {
    let http = HttpConfig { metrics: false, ..Default::default() };
    let server = server_with(fake(), EngineConfig::default(), http);
    assert_eq!(server.get("/metrics").await.status, 404);
}

#[tokio::test]
async fn status_shows_each_request_under_its_own_id() {
    let server = slow(5, Default::default());
    let work = server.complete(json!({ "n": 2, "max_tokens": 190, "ignore_eos": true, "priority": 4 }));
    let look = async {
        loop {
            let body = server.get("/v1/status").await.json();
            if body["requests"][0]["completion_tokens"].as_u64().is_some_and(|tokens| tokens > 1) {
                let id = body["requests"][0]["request_id"].as_str().unwrap().to_owned();
                assert_eq!(server.delete(&format!("/v1/requests/{id}")).await.status, 200);
                return body;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let (reply, body) = tokio::join!(work, look);
    assert_eq!(reply.status.as_u16(), 499);
    assert_eq!((&body["status"], &body["model"]), (&json!("running"), &json!("tiny")));
    assert_eq!((&body["num_running"], &body["num_waiting"]), (&json!(1), &json!(1)));
    let (first, second) = (&body["requests"][0], &body["requests"][1]);
    assert_eq!((&first["phase"], &second["phase"]), (&json!("generation"), &json!("queued")));
    assert_eq!(
        (&first["prompt_tokens"], &first["max_tokens"], &first["priority"]),
        (&json!(2), &json!(190), &json!(4))
    );
    assert!(first["ttft_s"].as_f64().unwrap() > 0.0 && second["ttft_s"].is_null());
    assert!(first["request_id"].as_str().unwrap().starts_with("cmpl-"));
    server.idle().await;
    let body = server.get("/v1/status").await.json();
    assert_eq!((&body["requests"], &body["total_requests_cancelled"]), (&json!([]), &json!(2)));
}

#[tokio::test]
async fn the_cache_is_shown_and_cleared() {
    let server = server("hello");
    let content = "a beginning that is long enough to fill some blocks";
    let ask = || server.chat(json!({ "messages": [{ "role": "user", "content": content }] }));
    ask().await;
    ask().await;
    server.idle().await;
    let stats = server.get("/v1/cache/stats").await.json();
    let cache = &stats["engine_cache"];
    assert_eq!((&cache["enabled"], &cache["hits"], &cache["misses"]), (&json!(true), &json!(1), &json!(1)));
    assert!(cache["tokens_saved"].as_u64() > Some(40) && cache["entry_count"].as_u64() > Some(10), "{stats}");
    assert_eq!(stats["ssd"], json!(null));
    let cleared = server.delete("/v1/cache").await.json();
    assert_eq!((&cleared["status"], &cleared["engine_cache"]["entry_count"]), (&json!("cleared"), &json!(0)));
    let usage = ask().await.json();
    assert_eq!(usage["usage"]["prompt_tokens_details"]["cached_tokens"], 0, "what was cleared is gone");
    assert_eq!(server.delete("/v1/cache/prefix").await.json()["status"], "cleared");
}

#[tokio::test]
async fn a_silent_engine_is_seen() {
    let http = HttpConfig { stall: Some(Duration::from_millis(40)), ..Default::default() };
    let server = slow(3000, http);
    assert_eq!(server.get("/health").await.status, 200, "an idle engine is no silent one");
    let look = async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        (server.get("/health").await, server.get("/metrics").await.body, server.get("/v1/status").await.json())
    };
    let (_, (health, metrics, status)) = tokio::join!(server.complete(json!({ "max_tokens": 1 })), look);
    assert_eq!((health.status.as_u16(), &health.json()["status"]), (503, &json!("stalled")));
    // The list of requests can't be had while a step is stuck; the rest can.
    assert_eq!((&status["status"], &status["requests"]), (&json!("stalled"), &json!(null)));
    assert!(status["silence_s"].as_f64() > Some(0.2), "{status}");
    assert_eq!(value(&metrics, "vllm_mlx_engine_stalled"), 1.0);
    assert!(value(&metrics, "vllm_mlx_engine_silence_seconds") > 0.04);
    server.idle().await;
    assert_eq!(server.get("/health").await.status, 200);
}
