//! `/v1/chat/completions` over a fake engine.

use std::time::Duration;

use serde_json::{Value, json};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{fake, merged, server, server_with};

#[tokio::test]
async fn an_answer() {
    let server = server("hello");
    let reply = server.chat(json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut body = reply.json();
    assert!(body["id"].as_str().unwrap().starts_with("chatcmpl-"));
    assert!(body["created"].as_u64().unwrap() > 1_600_000_000);
    for field in ["id", "created"] {
        body.as_object_mut().unwrap().remove(field);
    }
    let wanted = json!({
        "object": "chat.completion",
        "model": "tiny",
        "choices": [{
            "index": 0,
            "message": { "role": "assistant", "content": "hello", "refusal": null },
            "logprobs": null,
            "finish_reason": "stop",
        }],
        // "user:hi;>", and the five letters with <eos>.
        "usage": { "prompt_tokens": 9, "completion_tokens": 6, "total_tokens": 15,
            "prompt_tokens_details": { "cached_tokens": 0 } },
    });
    assert_eq!(body, wanted);
    server.idle().await;
}

#[tokio::test]
async fn a_stream() {
    let server = server("héllo");
    let events = server.chat(json!({ "stream": true, "stream_options": { "include_usage": true } })).await.events();
    let (last, chunks) = events.split_last().unwrap();
    let mut text = String::new();
    for (number, chunk) in chunks.iter().enumerate() {
        assert_eq!((&chunk["object"], &chunk["id"]), (&json!("chat.completion.chunk"), &last["id"]));
        assert_eq!(chunk["usage"], Value::Null);
        let choice = &chunk["choices"][0];
        match number {
            0 => assert_eq!(choice["delta"], json!({ "role": "assistant", "content": "" })),
            n if n == chunks.len() - 1 => {
                assert_eq!((&choice["delta"], &choice["finish_reason"]), (&json!({}), &json!("stop")));
            }
            _ => {
                assert_eq!(choice["finish_reason"], Value::Null);
                text.push_str(choice["delta"]["content"].as_str().unwrap());
            }
        }
    }
    // The two bytes of é make one chunk.
    assert_eq!((text.as_str(), chunks.len()), ("héllo", 7));
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(7)));
}

#[tokio::test]
async fn fields_that_change_the_answer() {
    // Prompt tokens tell what the template was given: "user:hi;>" has 9.
    let cases = [
        ("length", json!({ "max_tokens": 3 }), "hel", "length", 9),
        ("the newer name wins", json!({ "max_tokens": 3, "max_completion_tokens": 2 }), "he", "length", 9),
        ("stop string", json!({ "stop": "lo" }), "hel", "stop", 9),
        ("stop strings", json!({ "stop": ["zz", "el"] }), "h", "stop", 9),
        ("stop string kept", json!({ "stop": "ll", "include_stop_str_in_output": true }), "hell", "stop", 9),
        ("stop token", json!({ "stop_token_ids": [b'o'] }), "hell", "stop", 9),
        ("ignore_eos", json!({ "ignore_eos": true, "max_tokens": 8 }), "hellohe", "length", 9),
        (
            "special tokens kept",
            json!({ "ignore_eos": true, "max_tokens": 7, "skip_special_tokens": false }),
            "hello<eos>h",
            "length",
            9,
        ),
        ("bias", json!({ "logit_bias": { "104": -100.0, "120": 100 }, "max_tokens": 1 }), "x", "length", 9),
        (
            "parts and developer",
            json!({ "messages": [{ "role": "developer", "content": [{ "type": "text", "text": "ab" }] }] }),
            "hello",
            "stop",
            "system:ab;>".len(),
        ),
        (
            "template variables",
            json!({ "chat_template_kwargs": { "mood": "sad" } }),
            "hello",
            "stop",
            "user:hi;(sad)>".len(),
        ),
        ("no generation prompt", json!({ "add_generation_prompt": false }), "hello", "stop", 8),
        (
            "tools",
            json!({ "tools": [{ "type": "function", "function": { "name": "f" } }], "tool_choice": "auto" }),
            "hello",
            "stop",
            "user:hi;[f]>".len(),
        ),
        (
            "tools not to be used",
            json!({ "tools": [{ "type": "function", "function": { "name": "f" } }], "tool_choice": "none" }),
            "hello",
            "stop",
            9,
        ),
        (
            "fields without effect",
            json!({ "user": "u", "metadata": { "a": "b" }, "store": false, "service_tier": "auto", "n": null,
                "response_format": { "type": "text" }, "modalities": ["text"], "parallel_tool_calls": true,
                "prediction": { "type": "content", "content": "x" }, "no_such_field": 1, "seed": -5,
                "verbosity": "medium", "top_k": -1, "safety_identifier": "s", "reasoning_effort": "low" }),
            "hello",
            "stop",
            9,
        ),
    ];
    let server = server("hello");
    for (name, fields, text, reason, prompt_tokens) in cases {
        let reply = server.chat(fields).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        let body = reply.json();
        let choice = &body["choices"][0];
        assert_eq!((&choice["message"]["content"], &choice["finish_reason"]), (&json!(text), &json!(reason)), "{name}");
        assert_eq!(body["usage"]["prompt_tokens"], prompt_tokens, "{name}");
    }
    server.idle().await;
}

#[tokio::test]
async fn several_answers_to_one_prompt() {
    let hot = |n: usize| json!({ "n": n, "temperature": 2.0, "seed": 7, "max_tokens": 12, "ignore_eos": true });
    let server = server_with(fake(), EngineConfig::default(), Default::default());
    let body = server.chat(hot(3)).await.json();
    let texts = |body: &Value| -> Vec<String> {
        let choices = body["choices"].as_array().unwrap();
        choices.iter().map(|choice| choice["message"]["content"].as_str().unwrap().to_owned()).collect()
    };
    let three = texts(&body);
    assert_eq!(three.len(), 3);
    assert_ne!(three[0], three[1]);
    assert_eq!(three, texts(&server.chat(hot(3)).await.json()), "a seed repeats the answers");
    assert_eq!(body["usage"]["completion_tokens"], 36);
    assert_eq!(body["usage"]["prompt_tokens"], 9, "the prompt counts once");

    let events = server.chat(merged(hot(3), json!({ "stream": true }))).await.events();
    let mut streamed = vec![String::new(); 3];
    let mut ends = 0;
    for event in &events {
        let choice = &event["choices"][0];
        let text = choice["delta"]["content"].as_str().unwrap_or_default();
        streamed[choice["index"].as_u64().unwrap() as usize].push_str(text);
        ends += usize::from(!choice["finish_reason"].is_null());
    }
    assert_eq!((streamed, ends), (three, 3));
}

#[tokio::test]
async fn log_probabilities() {
    let server = server("hi");
    let fields = json!({ "logprobs": true, "top_logprobs": 2 });
    let body = server.chat(fields.clone()).await.json();
    let content = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    assert_eq!(content.len(), 2);
    assert_eq!((&content[0]["token"], &content[0]["bytes"]), (&json!("h"), &json!([104])));
    assert_eq!(content[0]["top_logprobs"].as_array().unwrap().len(), 2);
    assert_eq!(content[0]["top_logprobs"][0]["logprob"], content[0]["logprob"]);

    let events = server.chat(merged(fields, json!({ "stream": true }))).await.events();
    let streamed: Vec<Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["logprobs"]["content"].as_array())
        .flat_map(|entries| entries.clone())
        .collect();
    assert_eq!(&streamed, content);
}

#[tokio::test]
async fn bad_requests_are_named() {
    let tool = json!({ "type": "function", "function": { "name": "f" } });
    let cases = [
        (json!({ "temperature": "hot" }), "temperature is \"hot\": it must be a number", "temperature"),
        (json!({ "temperature": 2.5 }), "temperature is 2.5: it must be from 0 to 2", "temperature"),
        (json!({ "temperature": -1 }), "temperature is -1: it must be from 0 to 2", "temperature"),
        (json!({ "top_p": 7 }), "top_p is 7: it must be from 0 to 1", "top_p"),
        (json!({ "top_k": -2 }), "top_k is -2: it must be a whole number of at least -1", "top_k"),
        (json!({ "presence_penalty": 9 }), "presence_penalty is 9: it must be from -2 to 2", "presence_penalty"),
        (json!({ "max_tokens": 0 }), "max_tokens is 0: it must be a whole number of at least 1", "max_tokens"),
        (json!({ "max_tokens": 1.5 }), "max_tokens is 1.5: it must be a whole number of at least 1", "max_tokens"),
        (json!({ "n": 0 }), "n is 0: it must be a whole number from 1 to 128", "n"),
        (json!({ "n": 1e9 }), "n is 1000000000.0: it must be a whole number from 1 to 128", "n"),
        (json!({ "stream": "yes" }), "stream is \"yes\": it must be true or false", "stream"),
        (json!({ "stop": [1] }), "stop has 1: it must be a string or a list of strings", "stop"),
        (json!({ "stop": "" }), "stop has an empty string", "stop"),
        (json!({ "messages": [] }), "messages is empty: there must be at least one", "messages"),
        (json!({ "messages": "hi" }), "messages is \"hi\": it must be an array", "messages"),
        (json!({ "messages": null }), "messages is missing: it must be an array of messages", "messages"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url", "image_url": {} }] }] }),
            "messages[0].content[0] is of type image_url: this model takes text only",
            "messages[0].content[0]",
        ),
        (json!({ "logit_bias": { "x": 1 } }), "logit_bias has a key \"x\": keys must be token ids", "logit_bias"),
        (
            json!({ "logit_bias": { "9999": 1 } }),
            "logit_bias is for token 9999: it must be for tokens below 258, the size of the vocabulary",
            "logit_bias",
        ),
        (json!({ "top_logprobs": 2 }), "top_logprobs is only allowed with logprobs: true", "top_logprobs"),
        (
            json!({ "logprobs": true, "top_logprobs": 21 }),
            "top_logprobs is 21: it must be a whole number from 0 to 20",
            "top_logprobs",
        ),
        (
            json!({ "stream_options": { "include_usage": true } }),
            "stream_options is only allowed with stream: true",
            "stream_options",
        ),
        (
            json!({ "stream": true, "stream_options": { "include_usage": 1 } }),
            "stream_options.include_usage is 1: it must be true or false",
            "stream_options.include_usage",
        ),
        (json!({ "tools": [{}] }), "tools[0] has no type: it must be function", "tools[0]"),
        (json!({ "tools": [tool, tool] }), "tools has \"f\" twice: each needs a name of its own", "tools"),
        (json!({ "tool_choice": "required" }), "tool_choice is required: there are no tools", "tool_choice"),
        (
            json!({ "tools": [tool], "tool_choice": { "type": "function", "function": { "name": "g" } } }),
            "tool_choice names \"g\": there is no such tool in tools",
            "tool_choice",
        ),
        (
            json!({ "tools": [tool], "tool_choice": "maybe" }),
            "tool_choice is \"maybe\": it must be none, auto, required or a function",
            "tool_choice",
        ),
        (
            json!({ "response_format": { "type": "yaml" } }),
            "response_format is of type \"yaml\": it must be text, json_object or json_schema",
            "response_format",
        ),
        (json!({ "guided_choice": [] }), "guided_choice is empty: there must be at least one", "guided_choice"),
        (
            json!({ "guided_regex": "a", "structured_outputs": { "json": {} } }),
            "structured_outputs.json and guided_regex can't both be kept: give one",
            "guided_regex",
        ),
        (json!({ "store": true }), "store: this server stores nothing: leave it out or set it to false", "store"),
        (json!({ "audio": {} }), "audio: this model takes and gives text only", "audio"),
        (json!({ "functions": [] }), "functions: is the old form: use tools and tool_choice", "functions"),
        (json!({ "model": null }), "model is missing: it must name the model to use", "model"),
        (json!({ "model": 3 }), "model is 3: it must be a string", "model"),
    ];
    let server = server("hello");
    for (fields, message, param) in cases {
        let reply = server.chat(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.body);
        let error = reply.error();
        assert_eq!((error.0.as_str(), &error.1), (message, &json!(param)), "{fields}");
    }
    assert_eq!(server.model.engine.stats().steps, 0, "a bad request reached the engine");
}

#[tokio::test]
async fn a_template_error_is_quoted() {
    let server = server("hello");
    let reply = server.chat(json!({ "messages": [{ "role": "function", "content": "x" }] })).await;
    let (message, param, code) = reply.error();
    assert_eq!((reply.status.as_u16(), param, code), (400, json!("messages"), json!("chat_template_error")));
    assert!(message.contains("no functions here"), "{message}");
}

#[tokio::test]
async fn more_than_the_context_is_refused_with_the_numbers() {
    let server = server("hello");
    let long = |len: usize| json!([{ "role": "user", "content": "x".repeat(len) }]);
    let cases = [
        (
            json!({ "messages": long(300) }),
            "the prompt has 307 tokens: this model's context is 200 tokens, prompt and answer together",
        ),
        (
            json!({ "messages": long(100), "max_tokens": 94 }),
            "this model's context is 200 tokens: 107 in the prompt and 94 asked for are 201",
        ),
    ];
    for (fields, wanted) in cases {
        let reply = server.chat(fields).await;
        let (message, param, code) = reply.error();
        assert_eq!((reply.status.as_u16(), message.as_str()), (400, wanted));
        assert_eq!((param, code), (json!("messages"), json!("context_length_exceeded")));
    }
    // Without max_tokens the answer has what is left.
    let reply = server.chat(json!({ "messages": long(100), "ignore_eos": true })).await;
    assert_eq!(reply.json()["usage"]["total_tokens"], 200);
}

#[tokio::test]
async fn an_engine_failure_is_a_500_or_an_event_and_the_server_lives_on() {
    let config = FakeConfig { fail_at: [2, 5].into(), script: vec![104, 105], ..fake() };
    let server = server_with(config, EngineConfig::default(), Default::default());
    let reply = server.chat(json!({ "max_tokens": 9 })).await;
    let (message, _, code) = reply.error();
    assert_eq!((reply.status.as_u16(), code), (500, json!("engine_error")));
    assert_eq!(message, "the fake was told to fail at step 2");

    let reply = server.chat(json!({ "max_tokens": 9, "stream": true })).await;
    let events = reply.events();
    assert_eq!(reply.status, 200);
    assert_eq!(events.last().unwrap()["error"]["message"], "the fake was told to fail at step 5");
    assert_eq!(server.chat(json!({ "max_tokens": 2 })).await.status, 200);
    server.idle().await;
}

#[tokio::test]
async fn a_full_queue_is_a_503() {
    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let engine = EngineConfig { max_num_seqs: 1, max_waiting: 1, ..Default::default() };
    let server = server_with(slow, engine, Default::default());
    let reply = server.chat(json!({ "n": 5, "ignore_eos": true, "max_tokens": 100 })).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (503, json!("overloaded")));
    assert_eq!(reply.headers["retry-after"], "1");
    // Those submitted before the refusal are gone too.
    server.idle().await;
    assert!(server.probe.steps.load(std::sync::atomic::Ordering::Relaxed) < 100);
}
