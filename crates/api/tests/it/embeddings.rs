//! Embeddings, rerank and score over fakes, beside a model that generates.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::Duration,
};

use axum::{body::Body, http::Request};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use vllm_api::encoder::{Overflow, ServedEncoder};
use vllm_platform::{
    EncoderInput, EncoderOutput,
    testing::{FakeEncoder, FakeEncoderConfig, FakeEncoderProbe},
};
use vllm_scheduler::{EncoderConfig, EncoderEngine};

use crate::support::{Server, server, tokenizer};

const EMBEDDING: EncoderOutput = EncoderOutput::Embedding { dimensions: 8, normalized: true };

fn fake(output: EncoderOutput) -> FakeEncoderConfig {
    FakeEncoderConfig { output, vocab_size: 258, ..Default::default() }
}

/// Adds an encoder of that name.
fn add(server: &Server, name: &str, fake: FakeEncoderConfig, overflow: Overflow) -> Arc<FakeEncoderProbe> {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let encoder = FakeEncoder::new(fake);
        sender.send(encoder.probe()).unwrap();
        Ok(Box::new(encoder) as Box<_>)
    };
    let engine = EncoderEngine::start(make, EncoderConfig::default()).unwrap();
    let encoder = ServedEncoder::new(vec![name.into()], tokenizer(), overflow, engine);
    server.app.add_encoder(Arc::new(encoder));
    probe.recv().unwrap()
}

/// `tiny`, which generates; `embed` and `strict`, which make embeddings; `rank`, which scores pairs.
fn everything() -> Server {
    let server = server("hello");
    add(&server, "embed", fake(EMBEDDING), Overflow::Truncate);
    add(&server, "strict", fake(EMBEDDING), Overflow::Error);
    add(&server, "rank", fake(EncoderOutput::Score), Overflow::Truncate);
    server
}

async fn embed(server: &Server, fields: Value) -> crate::support::Reply {
    let body = crate::support::merged(json!({ "model": "embed", "input": "hi" }), fields);
    server.post("/v1/embeddings", &body.to_string()).await
}

/// What the fake gives for a text.
fn vector(text: &str) -> Vec<f32> {
    let tokens: Vec<u32> = text.bytes().map(u32::from).collect();
    FakeEncoder::new(fake(EMBEDDING)).answer(&EncoderInput { tokens: &tokens, types: &[] })
}

fn numbers(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
}

#[tokio::test]
async fn every_form_of_input() {
    let server = everything();
    let hi: Vec<u8> = b"hi".to_vec();
    // (input, the texts it stands for)
    let cases: [(Value, &[&str]); 5] = [
        (json!("hi"), &["hi"]),
        (json!(["a", "bc", "hi"]), &["a", "bc", "hi"]),
        (json!(hi), &["hi"]),
        (json!([hi, [99]]), &["hi", "c"]),
        (json!(["hi", [99]]), &["hi", "c"]),
    ];
    for (input, texts) in cases {
        let reply = embed(&server, json!({ "input": input, "user": "me" })).await.json();
        let tokens = texts.concat().len();
        assert_eq!(reply["usage"], json!({ "prompt_tokens": tokens, "total_tokens": tokens }), "{input}");
        assert_eq!((&reply["object"], &reply["model"]), (&json!("list"), &json!("embed")));
        let data = reply["data"].as_array().unwrap();
        assert_eq!(data.len(), texts.len(), "{input}");
        for (index, (item, text)) in data.iter().zip(texts).enumerate() {
            assert_eq!((&item["object"], &item["index"]), (&json!("embedding"), &json!(index)));
            assert_eq!(numbers(&item["embedding"]), vector(text), "{input}: {text}");
        }
    }
}

#[tokio::test]
async fn base64_and_fewer_dimensions() {
    let server = everything();
    let reply = embed(&server, json!({ "encoding_format": "base64" })).await.json();
    let bytes = BASE64_STANDARD.decode(reply["data"][0]["embedding"].as_str().unwrap()).unwrap();
    let found: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(found, vector("hi"));

    let reply = embed(&server, json!({ "dimensions": 3 })).await.json();
    let found = numbers(&reply["data"][0]["embedding"]);
    let length = |x: &[f32]| x.iter().map(|x| x * x).sum::<f32>().sqrt();
    let wanted: Vec<f32> = vector("hi")[..3].iter().map(|x| x / length(&vector("hi")[..3])).collect();
    assert!(found.iter().zip(&wanted).all(|(a, b)| (a - b).abs() < 1e-6), "{found:?} {wanted:?}");
    assert!((length(&found) - 1.0).abs() < 1e-6);
}

#[tokio::test]
async fn long_texts_are_cut_or_refused_as_the_operator_says() {
    let server = everything();
    let long = "x".repeat(65);
    let cut = |reply: Value| numbers(&reply["data"][0]["embedding"]);
    assert_eq!(cut(embed(&server, json!({ "input": long })).await.json()), vector(&long[..64]));
    let tokens = vec![120; 65];
    assert_eq!(cut(embed(&server, json!({ "input": tokens })).await.json()), vector(&long[..64]));
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("vllm_mlx_embedding_truncated_total{model=\"embed\"} 2"), "{metrics}");

    for input in [json!(["ok", long]), json!([[1], tokens])] {
        let reply = embed(&server, json!({ "model": "strict", "input": input })).await;
        let (message, param, code) = reply.error();
        assert_eq!((reply.status.as_u16(), param, code), (400, json!("input"), json!("context_length_exceeded")));
        assert_eq!(message, "input[1] has 65 tokens, and this model takes 64");
    }
    // Whoever says so gets it cut everywhere.
    for (model, most, kept) in [("embed", 2, 2), ("strict", 2, 2), ("strict", -1, 64)] {
        let fields = json!({ "model": model, "input": long, "truncate_prompt_tokens": most });
        let reply = embed(&server, fields).await.json();
        assert_eq!(reply["usage"]["prompt_tokens"], kept, "{model} {most}");
    }
}

#[tokio::test]
async fn bad_requests_are_named() {
    let server = everything();
    let huge: Vec<&str> = vec!["x"; 2049];
    // (fields, what the message says, param)
    let cases = [
        (json!({ "input": null }), "input is missing", "input"),
        (json!({ "input": [] }), "input is an empty list", "input"),
        (json!({ "input": "" }), "input[0] has no tokens", "input"),
        (json!({ "input": ["a", 3] }), "input[1] is 3", "input"),
        (json!({ "input": [1, "a"] }), "input has \"a\"", "input"),
        (json!({ "input": [1, -1] }), "input has -1", "input"),
        (json!({ "input": [[1], [2.5]] }), "input[1] has 2.5", "input"),
        (json!({ "input": { "text": "a" } }), "input is an object", "input"),
        (json!({ "input": huge }), "input has 2049 entries", "input"),
        (json!({ "dimensions": 9 }), "dimensions is 9: it must be a whole number from 1 to 8", "dimensions"),
        (json!({ "dimensions": 0 }), "dimensions is 0", "dimensions"),
        (json!({ "encoding_format": "int8" }), "encoding_format is \"int8\"", "encoding_format"),
        (json!({ "truncate_prompt_tokens": 65 }), "truncate_prompt_tokens is 65", "truncate_prompt_tokens"),
        (json!({ "truncate_prompt_tokens": 0 }), "truncate_prompt_tokens is 0", "truncate_prompt_tokens"),
        (json!({ "user": 7 }), "user is 7", "user"),
        (json!({ "timeout": 0 }), "timeout is 0", "timeout"),
        (json!({ "model": null }), "model is missing", "model"),
    ];
    for (fields, wanted, param) in cases {
        let reply = embed(&server, fields.clone()).await;
        let (message, found, _) = reply.error();
        assert_eq!((reply.status.as_u16(), found), (400, json!(param)), "{fields}: {message}");
        assert!(message.contains(wanted), "{fields}: {message}");
    }
    let reply = embed(&server, json!({ "input": [300] })).await;
    assert_eq!(reply.status, 400);
    assert!(reply.error().0.contains("token 300 is not in this model's vocabulary of 258"));
}

#[tokio::test]
async fn a_model_is_asked_for_what_it_does() {
    let server = everything();
    let pair = json!({ "query": "a", "documents": ["b"], "text_1": "a", "text_2": "b", "input": "a" });
    let chat = json!({ "messages": [{ "role": "user", "content": "hi" }], "prompt": "hi" });
    // (route, model, status, what the message says)
    let cases = [
        ("/v1/embeddings", "tiny", 400, "generates text and makes no embeddings"),
        ("/v1/embeddings", "rank", 400, "scores pairs of texts: it is served at /v1/rerank and /v1/score"),
        ("/v1/rerank", "embed", 400, "makes embeddings: it is served at /v1/embeddings"),
        ("/v1/score", "tiny", 400, "scores no pairs of texts"),
        ("/v1/chat/completions", "embed", 400, "makes embeddings: it is served at /v1/embeddings"),
        ("/v1/completions", "rank", 400, "it is served at /v1/rerank"),
        ("/v1/embeddings", "none", 404, "this server has tiny, org/tiny, embed, strict, rank"),
        ("/v1/rerank", "none", 404, "this server has tiny"),
        ("/v1/chat/completions", "none", 404, "this server has tiny, org/tiny, embed, strict, rank"),
    ];
    for (route, model, status, wanted) in cases {
        let fields = if route.contains("completions") { &chat } else { &pair };
        let reply =
            server.post(route, &crate::support::merged(fields.clone(), json!({ "model": model })).to_string()).await;
        let (message, param, _) = reply.error();
        assert_eq!((reply.status.as_u16(), param), (status, json!("model")), "{route} {model}: {message}");
        assert!(message.contains(wanted), "{route} {model}: {message}");
    }
    let listed = server.get("/v1/models").await.json();
    let ids: Vec<&str> = listed["data"].as_array().unwrap().iter().map(|m| m["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["tiny", "org/tiny", "embed", "strict", "rank"]);
    assert_eq!(server.get("/v1/models/embed").await.json()["max_model_len"], 64);
}

#[tokio::test]
async fn documents_come_back_best_first() {
    let server = everything();
    let body = json!({ "model": "rank", "query": "abcd", "documents": ["xyz", { "text": "abxy" }, "abcd", "ayyy"] });
    for route in ["/v1/rerank", "/v2/rerank", "/rerank"] {
        let reply = server.post(route, &body.to_string()).await.json();
        let results = json!([
            { "index": 2, "relevance_score": 1.0, "document": { "text": "abcd" } },
            { "index": 1, "relevance_score": 0.5, "document": { "text": "abxy" } },
            { "index": 3, "relevance_score": 0.25, "document": { "text": "ayyy" } },
            { "index": 0, "relevance_score": 0.0, "document": { "text": "xyz" } },
        ]);
        assert_eq!((&reply["results"], &reply["model"]), (&results, &json!("rank")), "{route}");
        assert_eq!(reply["usage"]["total_tokens"], 4 * 4 + 15, "{route}");
        assert!(reply["id"].as_str().unwrap().starts_with("rerank-"));
    }
    let few = crate::support::merged(body.clone(), json!({ "top_n": 2, "return_documents": false }));
    let reply = server.post("/v1/rerank", &few.to_string()).await.json();
    let results = json!([{ "index": 2, "relevance_score": 1.0 }, { "index": 1, "relevance_score": 0.5 }]);
    assert_eq!(reply["results"], results);
    let all = crate::support::merged(body.clone(), json!({ "top_n": 9 }));
    assert_eq!(server.post("/v1/rerank", &all.to_string()).await.json()["results"].as_array().unwrap().len(), 4);
    // The longer text of a pair gives way.
    let cut = json!({ "query": "ab", "documents": ["abcdef"], "truncate_prompt_tokens": 4 });
    let reply = server.post("/v1/rerank", &crate::support::merged(body, cut).to_string()).await.json();
    assert_eq!(reply["usage"]["total_tokens"], 4);
}

#[tokio::test]
async fn pairs_are_scored_one_to_one_and_one_to_many() {
    let server = everything();
    // (text_1, text_2, scores)
    let cases = [
        (json!("ab"), json!("ax"), json!([0.5])),
        (json!("ab"), json!(["ab", "ax", "xy"]), json!([1.0, 0.5, 0.0])),
        (json!(["ab"]), json!(["ab", "ax"]), json!([1.0, 0.5])),
        (json!(["ab", "xy"]), json!(["ax", "ax"]), json!([0.5, 0.5])),
    ];
    for (first, second, wanted) in cases {
        let body = json!({ "model": "rank", "text_1": first, "text_2": second });
        for route in ["/v1/score", "/score"] {
            let reply = server.post(route, &body.to_string()).await.json();
            let data = reply["data"].as_array().unwrap();
            let scores: Vec<&Value> = data.iter().map(|item| &item["score"]).collect();
            assert_eq!(json!(scores), wanted, "{body}");
            let indices: Vec<&Value> = data.iter().map(|item| &item["index"]).collect();
            assert_eq!(json!(indices), json!((0..data.len()).collect::<Vec<_>>()));
            assert_eq!((&reply["object"], &data[0]["object"]), (&json!("list"), &json!("score")));
        }
    }
}

#[tokio::test]
async fn bad_pairs_are_named() {
    let server = everything();
    let rerank = json!({ "model": "rank", "query": "a", "documents": ["b"] });
    let score = json!({ "model": "rank", "text_1": "a", "text_2": "b" });
    let cases = [
        ("/v1/rerank", &rerank, json!({ "query": null }), "query is missing", "query"),
        ("/v1/rerank", &rerank, json!({ "query": " \n" }), "query is blank", "query"),
        ("/v1/rerank", &rerank, json!({ "query": ["a"] }), "query is an array", "query"),
        ("/v1/rerank", &rerank, json!({ "documents": null }), "documents is missing", "documents"),
        ("/v1/rerank", &rerank, json!({ "documents": [] }), "documents is an empty list", "documents"),
        ("/v1/rerank", &rerank, json!({ "documents": ["a", { "title": "b" }] }), "documents[1] is", "documents"),
        ("/v1/rerank", &rerank, json!({ "documents": [3] }), "documents[0] is 3", "documents"),
        ("/v1/rerank", &rerank, json!({ "top_n": 0 }), "top_n is 0", "top_n"),
        ("/v1/rerank", &rerank, json!({ "instruction": "rank" }), "reads the two texts", "instruction"),
        ("/v1/score", &score, json!({ "text_1": null }), "text_1 is missing", "text_1"),
        ("/v1/score", &score, json!({ "text_2": [] }), "text_2 is an empty list", "text_2"),
        ("/v1/score", &score, json!({ "text_2": ["a", 1] }), "text_2[1] is 1", "text_2"),
        ("/v1/score", &score, json!({ "text_1": ["a", "b"] }), "text_1 has 2 texts and text_2 1", "text_1"),
    ];
    for (route, body, fields, wanted, param) in cases {
        let reply = server.post(route, &crate::support::merged(body.clone(), fields.clone()).to_string()).await;
        let (message, found, _) = reply.error();
        assert_eq!((reply.status.as_u16(), found), (400, json!(param)), "{route} {fields}: {message}");
        assert!(message.contains(wanted), "{route} {fields}: {message}");
    }
}

#[tokio::test]
async fn failures_and_timeouts_reach_the_client_and_the_books() {
    let server = server("hello");
    let failing = FakeEncoderConfig { fail_at: HashSet::from([0]), ..fake(EMBEDDING) };
    add(&server, "embed", failing, Overflow::Truncate);
    let slow = FakeEncoderConfig { delay: Duration::from_millis(30), ..fake(EMBEDDING) };
    add(&server, "slow", slow, Overflow::Truncate);
    let reply = embed(&server, json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (500, json!("engine_error")));
    assert_eq!(embed(&server, json!({})).await.status, 200);
    let many: Vec<String> = (0..100).map(|i| format!("{i:060}")).collect();
    let reply = embed(&server, json!({ "model": "slow", "input": many, "timeout": 0.05 })).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (504, json!("timeout")));
    let metrics = server.get("/metrics").await.body;
    for result in ["error", "success", "timeout"] {
        let line = format!("endpoint=\"embeddings\",stream=\"false\",result=\"{result}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    let status = server.get("/v1/status").await.json();
    assert_eq!(status["encoders"][0]["total_requests_failed"], 1);
}

#[tokio::test]
async fn a_client_that_goes_away_is_not_computed_for() {
    let server = server("hello");
    let slow = FakeEncoderConfig { delay: Duration::from_millis(10), ..fake(EMBEDDING) };
    let probe = add(&server, "embed", slow, Overflow::Truncate);
    let many: Vec<String> = (0..2000).map(|i| format!("{i:060}")).collect();
    let body = json!({ "model": "embed", "input": many }).to_string();
    let request = Request::post("/v1/embeddings").body(Body::from(body)).unwrap();
    let encoder = server.app.encoders().remove(0);
    let under_way = async {
        while encoder.engine.stats().steps == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        _ = server.send(request) => panic!("it takes seconds"),
        () = under_way => {}
    }
    while encoder.engine.stats().waiting > 0 {
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(encoder.engine.stats().cancelled, 1);
    assert!(probe.tokens.load(Relaxed) < 60_000, "half of it at most");
    assert_eq!(embed(&server, json!({})).await.status, 200);
}
