//! What `/v1/messages` and `/v1/messages/count_tokens` take and refuse, over a fake engine.

use serde_json::json;
use vllm_api::http::HttpConfig;
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{
    fake,
    formats::{agent, tools},
    merged, server, server_with,
};

#[tokio::test]
async fn a_prompt_that_is_too_long_is_refused_in_the_words_agents_wait_for() {
    let messages = json!([{ "role": "user", "content": "x".repeat(300) }]);
    let server = server("hello");
    let reply = server.message(json!({ "messages": messages })).await;
    assert_eq!(reply.status, 400);
    assert_eq!(reply.anthropic_error().0, "prompt is too long: 307 tokens > 199 maximum");
    // Counting is what tells how much too long it is.
    let body = json!({ "model": "tiny", "messages": messages });
    let counted = server.post("/v1/messages/count_tokens", &body.to_string()).await;
    assert_eq!((counted.status.as_u16(), counted.json()), (200, json!({ "input_tokens": 307 })));

    // So too if it is the cache that has no room for it.
    let small = FakeConfig { num_blocks: 10, ..fake() };
    let server = agent("hello", small);
    let reply = server.message(json!({ "messages": [{ "role": "user", "content": "x".repeat(100) }] })).await;
    let message = reply.anthropic_error().0;
    assert!(reply.status == 400 && message.starts_with("prompt is too long: "), "{message}");
}

#[tokio::test]
async fn counts_are_those_of_the_answer() {
    let tool_use = json!({ "type": "tool_use", "id": "t", "name": "look", "input": { "a": 1 } });
    let cases = [
        ("a word", json!({}), Some("<user>hi;<assistant>")),
        ("system", json!({ "system": "Be kind." }), Some("<system>Be kind.;<user>hi;<assistant>")),
        (
            "without the billing header",
            json!({ "system": [{ "type": "text", "text": "x-anthropic-billing-header: cch=1;" },
                { "type": "text", "text": "Be kind." }] }),
            Some("<system>Be kind.;<user>hi;<assistant>"),
        ),
        (
            "a beginning of the answer",
            json!({ "messages": [{ "role": "user", "content": "hi" }, { "role": "assistant", "content": "He" }] }),
            Some("<user>hi;<assistant>He"),
        ),
        ("tools", json!({ "tools": tools() }), None),
        (
            "tools not to be used",
            json!({ "tools": tools(), "tool_choice": { "type": "none" } }),
            Some("<user>hi;<assistant>"),
        ),
        (
            "a conversation",
            json!({ "tools": tools(), "thinking": { "type": "enabled" }, "messages": [
                { "role": "user", "content": "hi" },
                { "role": "assistant", "content": [{ "type": "thinking", "thinking": "hm", "signature": "s" }, tool_use] },
                { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "4" }] },
                { "role": "system", "content": "Hurry." },
            ] }),
            None,
        ),
    ];
    let server = agent("ok", FakeConfig { context_length: 1000, ..fake() });
    for (name, fields, wanted) in cases {
        let answer = server.message(fields.clone()).await.json();
        let usage = &answer["usage"];
        let input: u64 = ["input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens"]
            .map(|field| usage[field].as_u64().unwrap_or_else(|| panic!("{name}: {answer}")))
            .iter()
            .sum();
        let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
        let counted = server.post("/v1/messages/count_tokens", &merged(body, fields).to_string()).await;
        assert_eq!(counted.json(), json!({ "input_tokens": input }), "{name}");
        if let Some(wanted) = wanted {
            // <user> is one token.
            assert_eq!(input, (wanted.len() - "user>".len()) as u64, "{name}");
        }
    }
}

#[tokio::test]
async fn fields_without_effect() {
    let server = agent("ok", fake());
    let fields = json!({
        "temperature": 1, "top_p": 0.9, "top_k": 40, "metadata": { "user_id": "u" }, "service_tier": "auto",
        "speed": "standard", "inference_geo": "eu", "cache_control": { "type": "ephemeral" }, "mcp_servers": [],
        "context_management": { "edits": [] }, "thinking": { "type": "disabled" }, "no_such_field": 1,
        "output_config": { "effort": "max" }, "chat_template_kwargs": { "mood": "sad" }, "seed": 7,
    });
    let plain = server.message(json!({ "seed": 7 })).await.json();
    let reply = server.message(fields).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let answer = reply.json();
    assert_eq!((&answer["content"], &answer["stop_reason"]), (&plain["content"], &plain["stop_reason"]));
}

#[tokio::test]
async fn bad_requests_are_named() {
    let cases = [
        (json!({ "max_tokens": null }), "max_tokens is missing"),
        (json!({ "max_tokens": 0 }), "max_tokens is 0: it must be a whole number of at least 1"),
        (json!({ "messages": null }), "messages is missing: it must be an array of messages"),
        (json!({ "messages": [] }), "messages is empty: there must be at least one"),
        (json!({ "model": null }), "model is missing: it must name the model to use"),
        (json!({ "temperature": 1.5 }), "temperature is 1.5: it must be from 0 to 1"),
        (json!({ "temperature": -1 }), "temperature is -1: it must be from 0 to 2"),
        (json!({ "top_p": 7 }), "top_p is 7: it must be from 0 to 1"),
        (json!({ "stop_sequences": [1] }), "stop_sequences has 1: it must be a string or a list of strings"),
        (json!({ "stream": "yes" }), "stream is \"yes\": it must be true or false"),
        (json!({ "container": "c" }), "container: this server runs no code"),
        (
            json!({ "mcp_servers": [{ "type": "url", "url": "x", "name": "n" }] }),
            "mcp_servers: this server calls no others for a request",
        ),
        (json!({ "thread": {} }), "thread: this server keeps no conversations: send all messages"),
        (json!({ "service_tier": "gold" }), "service_tier: \"gold\" is not supported: use auto or standard_only"),
        (json!({ "speed": "fast" }), "speed: \"fast\" is not supported: use standard"),
        (json!({ "metadata": { "user_id": 3 } }), "metadata.user_id is 3: it must be a string"),
        (json!({ "thinking": {} }), "thinking.type is missing"),
        (
            json!({ "thinking": { "type": "between_tools" } }),
            "thinking.type is \"between_tools\": it must be enabled, adaptive or disabled",
        ),
        (
            json!({ "thinking": { "type": "enabled", "budget_tokens": 0 } }),
            "thinking.budget_tokens is 0: it must be a whole number of at least 1",
        ),
        (
            json!({ "thinking": { "type": "adaptive", "display": "blurred" } }),
            "thinking.display is \"blurred\": it must be summarized or omitted",
        ),
        (
            json!({ "output_config": { "effort": "heroic" } }),
            "output_config.effort is \"heroic\": it must be low, medium, high, xhigh or max",
        ),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice is any: there are no tools"),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image", "source": {} }] }] }),
            "messages[0].content[0] is of type \"image\": this model takes text only",
        ),
    ];
    let server = agent("ok", fake());
    for (fields, wanted) in cases {
        let reply = server.message(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.body);
        assert_eq!(reply.anthropic_error(), (wanted.to_owned(), "invalid_request_error".to_owned()), "{fields}");
    }
    assert_eq!(server.model.engine.stats().steps, 0, "a bad request reached the engine");
}

#[tokio::test]
async fn more_tokens_than_the_operator_allows_are_refused() {
    let http = HttpConfig { max_request_tokens: Some(20), ..HttpConfig::default() };
    let server = server_with(fake(), EngineConfig::default(), http);
    let reply = server.message(json!({ "max_tokens": 21 })).await;
    let wanted = "max_tokens is 21: this server allows at most 20 (--max-request-tokens)";
    assert_eq!((reply.status.as_u16(), reply.anthropic_error().0.as_str()), (400, wanted));
    assert_eq!(
        server.message(json!({ "max_tokens": 20, "ignore_eos": true })).await.json()["stop_reason"],
        "max_tokens"
    );
}
