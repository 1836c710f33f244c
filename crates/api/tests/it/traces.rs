//! Traces over OTLP, received by a collector of a few lines.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use axum::{body::Body, http::Request};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::Span,
};
use prost::Message as _;
use serde_json::json;
use vllm_api::{http::App, telemetry::Tracer};
use vllm_platform::testing::{FakeConfig, FakeVisionConfig};
use vllm_scheduler::EngineConfig;

use crate::support::{
    EOS, Server, fake,
    seeing::{Seeing, bmp, data_url, image_url, seeing_in, user},
    server_of,
};

/// Answers 200 to every POST and hands their paths and bodies on.
fn collector() -> (String, Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut reader = BufReader::new(stream);
            loop {
                let mut head = Vec::new();
                let mut line = String::new();
                while reader.read_line(&mut line).is_ok_and(|read| read > 0) && line != "\r\n" {
                    head.push(std::mem::take(&mut line).trim().to_ascii_lowercase());
                }
                let Some(path) = head.first().and_then(|line| line.split(' ').nth(1)).map(str::to_owned) else { break };
                let length = head.iter().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                let mut body = vec![0; length.parse().unwrap()];
                reader.read_exact(&mut body).unwrap();
                reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
                sender.send((path, body)).unwrap();
            }
        }
    });
    (endpoint, receiver)
}

fn traced(endpoint: &str, fake: FakeConfig) -> Server {
    let tracer = Tracer::start(endpoint).unwrap();
    server_of(fake, EngineConfig::default(), App::with_tracer(Default::default(), Some(tracer)))
}

/// Sends what waits. Not on this thread, which runs tasks.
fn flush(server: &Server) {
    let app = server.app.clone();
    thread::spawn(move || app.flush_traces()).join().unwrap();
}

fn attribute<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a Value> {
    attributes.iter().find(|attribute| attribute.key == key)?.value.as_ref()?.value.as_ref()
}

fn spans(receiver: &Receiver<(String, Vec<u8>)>) -> Vec<Span> {
    let (path, body) = receiver.recv_timeout(Duration::from_secs(20)).unwrap();
    assert_eq!(path, "/v1/traces");
    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    let resource = request.resource_spans[0].resource.as_ref().unwrap();
    assert_eq!(attribute(&resource.attributes, "service.name"), Some(&Value::StringValue("vllm-mlx".into())));
    request.resource_spans.into_iter().flat_map(|of| of.scope_spans).flat_map(|of| of.spans).collect()
}

#[tokio::test]
async fn images_have_spans_of_their_own() {
    let (endpoint, receiver) = collector();
    let app = App::with_tracer(Default::default(), Some(Tracer::start(&endpoint).unwrap()));
    let Seeing { server, .. } = seeing_in(FakeVisionConfig::default(), app, None);
    let image = image_url(&data_url(&bmp(16, 24, [255, 0, 0])));
    assert_eq!(server.chat(user(json!([image]))).await.status, 200);
    flush(&server);
    let spans = spans(&receiver);
    let root = spans.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
    assert_eq!(attribute(&root.attributes, "vllm_mlx.usage.image_tokens"), Some(&Value::IntValue(6)));
    for (name, key) in [("media_load", "vllm_mlx.media"), ("media_wait", "vllm_mlx.media_spans")] {
        let span = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(attribute(&span.attributes, key), Some(&Value::IntValue(1)), "{name}");
        assert_eq!(span.parent_span_id, root.span_id, "{name}");
    }
}

#[tokio::test]
async fn a_request_is_one_trace_that_continues_its_callers() {
    let (endpoint, receiver) = collector();
    let script = b"hello".iter().map(|&byte| u32::from(byte)).chain([EOS]).collect();
    let server = traced(&endpoint, FakeConfig { script, step_delay: Duration::from_millis(2), ..fake() });
    let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
    let request = Request::post("/v1/chat/completions")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-id", "mine")
        .body(Body::from(body.to_string()))
        .unwrap();
    let id = server.send(request).await.json()["id"].as_str().unwrap().to_owned();
    flush(&server);

    let spans = spans(&receiver);
    let trace: Vec<u8> =
        (0..16).map(|i| u8::from_str_radix(&"0af7651916cd43dd8448eb211c80319c"[2 * i..][..2], 16).unwrap()).collect();
    assert!(spans.iter().all(|span| span.trace_id == trace));
    let root = spans.iter().find(|span| span.name == "chat tiny").unwrap();
    assert_eq!(root.parent_span_id, [0xb7, 0xad, 0x6b, 0x71, 0x69, 0x20, 0x33, 0x31]);
    let text = |text: &str| Some(Value::StringValue(text.into()));
    let wanted = [
        ("gen_ai.operation.name", text("chat")),
        ("gen_ai.request.model", text("tiny")),
        ("gen_ai.response.id", text(&id)),
        ("vllm_mlx.request_id", text("mine")),
        ("gen_ai.usage.input_tokens", Some(Value::IntValue(9))),
        ("gen_ai.usage.output_tokens", Some(Value::IntValue(6))),
    ];
    for (key, value) in wanted {
        assert_eq!(attribute(&root.attributes, key), value.as_ref(), "{key}");
    }
    for name in ["queue", "cache_lookup", "prefill", "decode", "detokenize"] {
        let span = spans.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {spans:#?}"));
        assert_eq!(span.parent_span_id, root.span_id, "{name}");
        assert!(root.start_time_unix_nano <= span.start_time_unix_nano, "{name}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{name}");
        assert!(span.end_time_unix_nano <= root.end_time_unix_nano, "{name}");
    }
    let prefill = spans.iter().find(|span| span.name == "prefill").unwrap();
    assert!(prefill.end_time_unix_nano - prefill.start_time_unix_nano >= 2_000_000, "a step takes 2 ms");
    assert_eq!(attribute(&prefill.attributes, "vllm_mlx.tokens"), Some(&Value::IntValue(9)));
}

#[tokio::test]
async fn a_caller_that_samples_nothing_gets_no_trace() {
    let (endpoint, receiver) = collector();
    let server = traced(&endpoint, fake());
    let ask = |header: &'static str| {
        let body = json!({ "model": "tiny", "prompt": "x", "max_tokens": 1 }).to_string();
        let request = Request::post("/v1/completions").header("traceparent", header);
        server.send(request.body(Body::from(body)).unwrap())
    };
    ask("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00").await;
    ask("nonsense").await;
    flush(&server);
    let spans = spans(&receiver);
    let roots: Vec<_> = spans.iter().filter(|span| span.parent_span_id.is_empty()).collect();
    assert_eq!((roots.len(), roots[0].name.as_str()), (1, "text_completion tiny"));
    assert!(spans.iter().all(|span| span.trace_id == roots[0].trace_id));
}

#[tokio::test]
async fn a_collector_that_is_gone_disturbs_nobody() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = traced(&format!("http://127.0.0.1:{port}"), fake());
    for _ in 0..3 {
        assert_eq!(server.complete(json!({ "max_tokens": 2 })).await.status, 200);
    }
    flush(&server);
    assert_eq!(server.complete(json!({ "max_tokens": 2 })).await.status, 200, "even when no trace can be made");
}

#[test]
fn an_endpoint_that_is_no_url_is_refused() {
    let error = Tracer::start("not a url").unwrap_err();
    assert!(error.to_string().contains("not a url"), "{error:#}");
}
