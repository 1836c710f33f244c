//! `/v1/completions` over a fake engine.

use serde_json::{Value, json};
use vllm_scheduler::EngineConfig;

use crate::support::{fake, merged, server, server_with};

fn texts(body: &Value) -> Vec<&str> {
    body["choices"].as_array().unwrap().iter().map(|choice| choice["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn prompts_in_every_form() {
    let server = server("yo");
    let cases = [
        ("text", json!("hi"), 1, 2),
        ("texts", json!(["hi", "you"]), 2, 5),
        ("tokens", json!([104, 105, 106]), 1, 3),
        ("lists of tokens", json!([[104], [105, 106]]), 2, 3),
        ("mixed", json!(["hi", [105, 106]]), 2, 4),
        ("special tokens in text", json!("<user>h"), 1, 2),
    ];
    for (name, prompt, answers, prompt_tokens) in cases {
        let reply = server.complete(json!({ "prompt": prompt })).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        let body = reply.json();
        assert_eq!(texts(&body), vec!["yo"; answers], "{name}");
        assert_eq!(body["object"], "text_completion");
        assert_eq!(body["choices"][0]["finish_reason"], "stop");
        assert_eq!(body["usage"]["prompt_tokens"], prompt_tokens, "{name}");
    }
}

#[tokio::test]
async fn fields_that_change_the_answer() {
    let server = server("abcdef");
    let cases = [
        ("echo", json!({ "echo": true }), vec!["hiabcdef"]),
        ("echo of tokens", json!({ "echo": true, "prompt": [120, 121] }), vec!["xyabcdef"]),
        (
            "n, by prompt",
            json!({ "n": 2, "prompt": ["x", "y"], "echo": true, "max_tokens": 1 }),
            vec!["xa", "xa", "ya", "ya"],
        ),
        ("best_of like n", json!({ "n": 2, "best_of": 2, "max_tokens": 1 }), vec!["a", "a"]),
        ("stop", json!({ "stop": ["de"] }), vec!["abc"]),
        ("empty suffix", json!({ "suffix": "" }), vec!["abcdef"]),
    ];
    for (name, fields, wanted) in cases {
        let whole = server.complete(fields.clone()).await.json();
        assert_eq!(texts(&whole), wanted, "{name}");
        let events = server.complete(merged(fields, json!({ "stream": true }))).await.events();
        let mut streamed = vec![String::new(); wanted.len()];
        for event in &events {
            let choice = &event["choices"][0];
            streamed[choice["index"].as_u64().unwrap() as usize].push_str(choice["text"].as_str().unwrap());
        }
        assert_eq!(streamed, wanted, "{name}, streamed");
    }
}

#[tokio::test]
async fn prompts_are_cut_and_words_are_banned() {
    let server = server("abcdef");
    let cases = [
        ("cut", json!({ "prompt": [1, 2, 3, 4], "truncate_prompt_tokens": 3 }), 3),
        ("short enough", json!({ "prompt": [1, 2], "truncate_prompt_tokens": 3 }), 2),
        ("to fit", json!({ "prompt": vec![1; 300], "truncate_prompt_tokens": -1, "max_tokens": 1 }), 199),
    ];
    for (name, fields, tokens) in cases {
        let reply = server.complete(fields).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        assert_eq!(reply.json()["usage"]["prompt_tokens"], tokens, "{name}");
    }
    let banned = server.complete(json!({ "bad_words_token_ids": [[97, 98]] })).await.json();
    let text = texts(&banned)[0];
    assert!(text.starts_with('a') && !text.contains("ab"), "{text:?}");
    for (fields, message) in [
        (json!({ "bad_words_token_ids": [7] }), "bad_words_token_ids has 7: it must be a list of lists of token ids"),
        (
            json!({ "bad_words_token_ids": [[]] }),
            "bad_words_token_ids has an empty list: each must have a token at least",
        ),
        (
            json!({ "bad_words_token_ids": [[300]] }),
            "bad_words_token_ids has 300: this model's vocabulary has 258 tokens",
        ),
        (
            json!({ "bad_words_token_ids": [[1]], "structured_outputs": { "choice": ["a"] } }),
            "bad_words_token_ids can't be kept together with structured output or forced tool calls",
        ),
    ] {
        let reply = server.complete(fields).await;
        let (said, param, _) = reply.error();
        assert_eq!((said.as_str(), param), (message, json!("bad_words_token_ids")));
    }
}

#[tokio::test]
async fn sixteen_tokens_if_not_said() {
    let server = server_with(fake(), EngineConfig::default(), Default::default());
    let reply = server.complete(json!({ "max_tokens": null, "ignore_eos": true })).await;
    assert_eq!(reply.json()["usage"]["completion_tokens"], 16);
}

#[tokio::test]
async fn log_probabilities() {
    let server = server("abc");
    let fields = json!({ "logprobs": 2 });
    let body = server.complete(fields.clone()).await.json();
    let lists = &body["choices"][0]["logprobs"];
    assert_eq!(lists["tokens"], json!(["a", "b", "c"]));
    assert_eq!(lists["text_offset"], json!([0, 1, 2]));
    assert_eq!(lists["token_logprobs"].as_array().unwrap().len(), 3);
    assert_eq!(lists["top_logprobs"][0]["a"], lists["token_logprobs"][0]);
    assert_eq!(lists["top_logprobs"][0].as_object().unwrap().len(), 2);

    let events = server.complete(merged(fields, json!({ "stream": true }))).await.events();
    let collect = |name: &str| -> Vec<Value> {
        let lists = events.iter().filter_map(|event| event["choices"][0]["logprobs"][name].as_array());
        lists.flatten().cloned().collect()
    };
    for name in ["tokens", "text_offset", "token_logprobs", "top_logprobs"] {
        assert_eq!(json!(collect(name)), lists[name], "{name}");
    }
}

#[tokio::test]
async fn bad_requests_are_named() {
    let cases = [
        (json!({ "prompt": null }), "prompt is missing: it must be a string, token ids, or a list of either", "prompt"),
        (json!({ "prompt": 3 }), "prompt is 3: it must be a string, token ids, or a list of either", "prompt"),
        (json!({ "prompt": [] }), "prompt is an empty list", "prompt"),
        (json!({ "prompt": [1, "x"] }), "prompt has \"x\": it must have token ids only", "prompt"),
        (json!({ "prompt": ["x", {}] }), "prompt[1] is an object: it must be a string or token ids", "prompt"),
        (json!({ "prompt": [[-1]] }), "prompt[0] has -1: it must have token ids only", "prompt"),
        (json!({ "suffix": "end" }), "suffix: this model does not fill in the middle", "suffix"),
        (json!({ "best_of": 3 }), "best_of is 3: it must be the same as n, 1", "best_of"),
        (json!({ "logprobs": 6 }), "logprobs is 6: it must be a whole number from 0 to 5", "logprobs"),
        (
            json!({ "echo": true, "logprobs": 1 }),
            "logprobs of an echoed prompt are not supported yet: leave out one of echo and logprobs",
            "echo",
        ),
    ];
    let server = server("abc");
    for (fields, message, param) in cases {
        let reply = server.complete(fields.clone()).await;
        let error = reply.error();
        assert_eq!((reply.status.as_u16(), error.0.as_str(), &error.1), (400, message, &json!(param)), "{fields}");
    }
    for (prompt, wanted) in
        [(json!(""), "the prompt is empty"), (json!([9999]), "token 9999 is not in this model's vocabulary of 258")]
    {
        let reply = server.complete(json!({ "prompt": prompt })).await;
        assert_eq!((reply.status.as_u16(), reply.error().0.as_str()), (400, wanted));
    }
    let reply = server.complete(json!({ "prompt": "x".repeat(200) })).await;
    assert_eq!(reply.error().2, "context_length_exceeded");
}
