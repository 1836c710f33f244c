//! `/tokenize`, `/detokenize`, `/version` and `/ping`.

use serde_json::{Value, json};

use crate::support::server;

#[tokio::test]
async fn texts_and_conversations_become_tokens() {
    let server = server("x");
    let tool = json!({ "type": "function", "function": { "name": "f" } });
    let messages = json!([{ "role": "user", "content": "hi" }]);
    let cases = [
        ("text", json!({ "prompt": "hé" }), b"h\xC3\xA9".to_vec()),
        ("empty", json!({ "prompt": "" }), vec![]),
        ("no special tokens", json!({ "prompt": "a", "add_special_tokens": false }), b"a".to_vec()),
        ("its model", json!({ "model": "org/tiny", "prompt": "a" }), b"a".to_vec()),
        ("conversation", json!({ "messages": messages }), b"user:hi;>".to_vec()),
        ("no generation prompt", json!({ "messages": messages, "add_generation_prompt": false }), b"user:hi;".to_vec()),
        ("continued", json!({ "messages": messages, "continue_final_message": true }), b"user:hi".to_vec()),
        ("tools", json!({ "messages": messages, "tools": [tool] }), b"user:hi;[f]>".to_vec()),
        (
            "template variables",
            json!({ "messages": messages, "chat_template_kwargs": { "mood": "sad" } }),
            b"user:hi;(sad)>".to_vec(),
        ),
        // Longer than the context: what is counted need not fit.
        ("long", json!({ "prompt": "y".repeat(500) }), vec![b'y'; 500]),
    ];
    for (name, body, tokens) in cases {
        for path in ["/tokenize", "/v1/tokenize"] {
            let reply = server.post(path, &body.to_string()).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.body);
            let wanted = json!({ "count": tokens.len(), "max_model_len": 200, "tokens": tokens, "token_strs": null });
            assert_eq!(reply.json(), wanted, "{name}");
        }
    }
    let reply = server.post("/tokenize", r#"{"prompt":"a b<eos>","return_token_strs":true}"#).await.json();
    assert_eq!(
        (&reply["token_strs"], &reply["tokens"][3]),
        (&json!(["a", "Ġ", "b", "<eos>"]), &json!(crate::support::EOS))
    );
}

#[tokio::test]
async fn tokens_become_text() {
    let server = server("x");
    for (tokens, text) in [(json!([104, 105]), "hi"), (json!([]), ""), (json!([0xC3, 0xA9, 256]), "é<eos>")] {
        for path in ["/detokenize", "/v1/detokenize"] {
            let reply = server.post(path, &json!({ "tokens": tokens }).to_string()).await;
            assert_eq!(reply.json(), json!({ "prompt": text }));
        }
    }
}

#[tokio::test]
async fn bad_requests_are_named() {
    let server = server("x");
    let cases = [
        ("/tokenize", json!({}), "prompt and messages are both missing: give one", json!("prompt")),
        ("/tokenize", json!({ "prompt": 3 }), "prompt is 3: it must be a string", json!("prompt")),
        (
            "/tokenize",
            json!({ "prompt": "a", "messages": [] }),
            "prompt and messages are both given: give one",
            json!("messages"),
        ),
        (
            "/tokenize",
            json!({ "messages": [{ "role": "user" }] }),
            "messages[0].content is missing",
            json!("messages[0].content"),
        ),
        ("/detokenize", json!({}), "tokens is missing: it must be a list of token ids", json!("tokens")),
        ("/detokenize", json!({ "tokens": [-1] }), "tokens has -1: it must be a list of token ids", json!("tokens")),
        (
            "/detokenize",
            json!({ "tokens": [258] }),
            "tokens has 258: this model's vocabulary has 258 tokens",
            json!("tokens"),
        ),
    ];
    for (path, body, message, param) in cases {
        let reply = server.post(path, &body.to_string()).await;
        let error = reply.error();
        assert_eq!((reply.status.as_u16(), error.0.as_str(), error.1), (400, message, param), "{body}");
    }
    let reply = server.post("/tokenize", r#"{"model":"gpt-9","prompt":"a"}"#).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (404, json!("model_not_found")));
}

#[tokio::test]
async fn versions_and_pings() {
    let server = server("x");
    assert_eq!(server.get("/version").await.json(), json!({ "version": env!("CARGO_PKG_VERSION") }));
    for reply in [server.get("/ping").await, server.post("/ping", "").await] {
        assert_eq!((reply.status.as_u16(), &reply.json()["status"]), (200, &Value::from("ok")));
    }
}
