//! Embeddings by MiniLM's real weights under OpenAI's own Python SDK; rerank and score by tiny checkpoints in the real
//! layouts, over plain HTTP.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use vllm_tests::{Server, minilm, python};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/models-embed/tests/fixtures").join(name)
}

/// Pairs of texts with transformers' scores.
fn reference(name: &str) -> Vec<(String, String, f64)> {
    let text = std::fs::read(fixture(name).join("reference.json")).expect("a committed file");
    let cases: Vec<Value> = serde_json::from_slice(&text).expect("JSON");
    let text = |case: &Value, i: usize| case["texts"][i].as_str().expect("a text").to_owned();
    cases.iter().map(|case| (text(case, 0), text(case, 1), case["vector"][0].as_f64().expect("a score"))).collect()
}

#[test]
fn the_official_python_sdk_gets_minilm_s_embeddings() {
    let server = Server::start(minilm().to_str().expect("a UTF-8 path"), &["--served-model-name", "minilm"]);
    server.wait_ready();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/embeddings.py");
    let out = Command::new(python()).arg(script).arg(server.url("/v1")).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}

/// From text to score: the tokenizer's pairs, the networks, the sigmoid; and what is asked of Qwen3-Reranker word for word.
#[test]
fn rerankers_give_the_reference_scores() {
    for name in ["bert_scores", "xlm_roberta_scores", "qwen3_reranker"] {
        let model = fixture(name);
        let model = model.to_str().expect("a UTF-8 path");
        let server = Server::start("", &["--rerank-model", model]);
        server.wait_ready();
        let cases = reference(name);
        for (query, document, wanted) in &cases {
            let body = json!({ "model": model, "text_1": query, "text_2": document });
            let (status, answer) = server.post("/v1/score", &body);
            let found = answer["data"][0]["score"].as_f64().unwrap_or_else(|| panic!("{status}: {answer}"));
            assert!((found - wanted).abs() < 1e-4, "{name}, {query:?} and {document:?}: {found}, not {wanted}");
        }
        // The first two have one query.
        let documents: Vec<&str> = cases[..2].iter().map(|case| case.1.as_str()).collect();
        let body = json!({ "model": model, "query": cases[0].0, "documents": documents });
        let (_, answer) = server.post("/v1/rerank", &body);
        let best = usize::from(cases[1].2 > cases[0].2);
        assert_eq!(answer["results"][0]["index"], best, "{name}: {answer}");
        assert_eq!(answer["results"][0]["document"]["text"], documents[best], "{name}");
    }
}

#[test]
fn a_model_that_generates_and_one_that_embeds_in_one_server() {
    let minilm = minilm();
    let minilm = minilm.to_str().expect("a UTF-8 path");
    let server = Server::smollm2(&["--served-model-name", "smollm2", "--embedding-model", minilm]);
    let (status, answer) = server.post("/v1/embeddings", &json!({ "model": minilm, "input": ["a", "b"] }));
    assert_eq!((status, answer["data"].as_array().map(Vec::len)), (200, Some(2)), "{answer}");
    let chat = json!({ "model": "smollm2", "max_tokens": 4, "messages": [{ "role": "user", "content": "hi" }] });
    assert_eq!(server.post("/v1/chat/completions", &chat).0, 200);
    let (status, answer) = server.post("/v1/embeddings", &json!({ "model": "smollm2", "input": "a" }));
    assert_eq!((status, &answer["error"]["param"]), (400, &json!("model")), "{answer}");
    let (_, models) = server.get("/v1/models").expect("an answer");
    let ids: Vec<&Value> = models["data"].as_array().expect("a list").iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, ["smollm2", minilm]);
}

#[test]
fn flags_that_name_the_wrong_kind_of_model_are_refused() {
    let (minilm, scores) = (minilm(), fixture("bert_scores"));
    let cases = [
        ("--rerank-model", &minilm, "makes embeddings: it is no reranker"),
        ("--embedding-model", &scores, "scores pairs of texts: it is no embedding model"),
    ];
    for (flag, model, wanted) in cases {
        let mut server = Server::start("", &[flag, model.to_str().expect("a UTF-8 path")]);
        assert_eq!(server.wait_exit(), Some(1), "{flag}");
        assert!(server.log().contains(wanted), "{flag}: {}", server.log());
    }
}
