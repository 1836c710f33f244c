//! Asking for responses.

use std::time::Duration;

use axum::{body::Body, http::Request};
use serde_json::{Value, json};
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use super::{EOS, Reply, Server, fake, merged, serve, server_with, tags::formats};

impl Server {
    /// A response to one text, with further fields.
    pub async fn respond(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "input": "hi" });
        self.post("/v1/responses", &merged(body, fields).to_string()).await
    }

    /// The same as events, each with its name, checked: numbered from 0, the name as the type.
    pub async fn stream(&self, fields: Value) -> Vec<Value> {
        events(&self.respond(merged(fields, json!({ "stream": true }))).await.body)
    }

    pub async fn as_client(&self, method: &str, path: &str, key: &str, body: Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

/// The events of a stream, checked: each has its name as its type, and is numbered.
pub fn events(body: &str) -> Vec<Value> {
    let frames = body.split("\n\n").filter(|frame| !frame.is_empty() && !frame.starts_with(':'));
    let event = |(number, frame): (usize, &str)| {
        let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        let event: Value = serde_json::from_str(data).unwrap();
        assert_eq!((&event["type"], &event["sequence_number"]), (&json!(name), &json!(number)), "{body}");
        event
    };
    frames.enumerate().map(event).collect()
}

/// One whose model reasons and calls tools.
pub fn thinker(answer: &str) -> Server {
    let script = answer.bytes().map(u32::from).chain([EOS]).collect();
    let fake = FakeConfig { script, context_length: 1000, ..fake() };
    serve(fake, EngineConfig::default(), App::new(HttpConfig::default()), formats())
}

/// One whose steps take a while.
pub fn slow() -> Server {
    let fake = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    server_with(fake, EngineConfig::default(), HttpConfig::default())
}

/// Takes ids out, checking their prefixes.
pub fn without_ids(mut item: Value) -> Value {
    let id = item.as_object_mut().unwrap().remove("id").unwrap();
    let prefix = match item["type"].as_str().unwrap() {
        "message" => "msg_",
        "reasoning" => "rs_",
        "function_call" => "fc_",
        "custom_tool_call" => "ctc_",
        "function_call_output" => "fco_",
        other => panic!("{other}"),
    };
    assert!(id.as_str().unwrap().starts_with(prefix), "{id}");
    item
}
