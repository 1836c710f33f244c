//! Answers of `/v1/messages` over a fake engine.

use serde_json::{Value, json};

use crate::support::{
    fake,
    formats::{agent, tools},
    merged, server, server_in,
};

/// The message that events tell of, put together as the SDKs do.
fn accumulated(events: &[(String, Value)]) -> Value {
    let mut message = Value::Null;
    let mut inputs: Vec<String> = Vec::new();
    let mut open = None;
    for (name, data) in events {
        let index = data["index"].as_u64().map(|index| index as usize);
        match name.as_str() {
            "message_start" => message = data["message"].clone(),
            "content_block_start" => {
                assert_eq!((open, index), (None, Some(inputs.len())), "blocks come one after the other");
                open = index;
                message["content"].as_array_mut().unwrap().push(data["content_block"].clone());
                inputs.push(String::new());
            }
            "content_block_delta" => {
                assert_eq!(index, open);
                let (index, delta) = (index.unwrap(), &data["delta"]);
                let block = &mut message["content"][index];
                let (wanted, field) = match delta["type"].as_str().unwrap() {
                    "text_delta" => ("text", "text"),
                    "thinking_delta" => ("thinking", "thinking"),
                    "signature_delta" => ("thinking", "signature"),
                    "input_json_delta" => ("tool_use", "partial_json"),
                    other => panic!("{other}"),
                };
                assert_eq!(block["type"], wanted);
                let more = delta[field].as_str().unwrap();
                assert_ne!(more, "");
                match field {
                    "partial_json" => inputs[index].push_str(more),
                    field => block[field] = json!(block[field].as_str().unwrap().to_owned() + more),
                }
            }
            "content_block_stop" => {
                assert_eq!(index, open.take());
                let block = &mut message["content"][index.unwrap()];
                if let Ok(input) = serde_json::from_str(&inputs[index.unwrap()]) {
                    block["input"] = input;
                }
            }
            "message_delta" => {
                for (field, value) in data["delta"].as_object().unwrap() {
                    message[field] = value.clone();
                }
                for (field, value) in data["usage"].as_object().unwrap() {
                    message["usage"][field] = value.clone();
                }
            }
            "message_stop" => assert_eq!(open, None),
            other => panic!("{other}: {data}"),
        }
    }
    assert_eq!(events.last().unwrap().0, "message_stop");
    message
}

/// Removes what is different each time, after a look at it.
fn without_ids(mut message: Value) -> Value {
    let id = message.as_object_mut().unwrap().remove("id").unwrap();
    assert!(id.as_str().unwrap().starts_with("msg_"), "{id}");
    for block in message["content"].as_array_mut().unwrap() {
        if block["type"] == "tool_use" {
            assert!(block.as_object_mut().unwrap().remove("id").is_some_and(|id| id != ""));
        }
        if block["type"] == "thinking" {
            assert!(block.as_object_mut().unwrap().remove("signature").is_some_and(|signature| signature != ""));
        }
    }
    message
}

#[tokio::test]
async fn an_answer() {
    let server = server("hello");
    let reply = server.message(json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.headers["request-id"], reply.headers["x-request-id"]);
    let wanted = json!({
        "type": "message",
        "role": "assistant",
        "model": "tiny",
        "content": [{ "type": "text", "text": "hello" }],
        "stop_reason": "end_turn",
        "stop_sequence": null,
        // "user:hi;>", and the five letters with <eos>.
        "usage": {
            "input_tokens": 9,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
            "output_tokens": 6,
            "cache_creation": { "ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0 },
            "service_tier": "standard",
        },
    });
    assert_eq!(without_ids(reply.json()), wanted);
    server.idle().await;
    let metrics = server.get("/metrics").await.body;
    let series =
        "vllm_mlx_inference_requests_total{endpoint=\"anthropic_messages\",stream=\"false\",result=\"success\"} 1";
    assert!(metrics.contains(series), "{metrics}");
}

#[tokio::test]
async fn a_stream() {
    let server = server("hé");
    let reply = server.message(json!({ "stream": true })).await;
    let events = reply.named_events();
    let delta = |text: &str| json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": text } });
    let usage = |input: usize, output: usize| {
        json!({ "input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": output })
    };
    let wanted = [
        json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } }),
        delta("h"),
        delta("é"),
        json!({ "type": "content_block_stop", "index": 0 }),
        json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn", "stop_sequence": null },
            "usage": usage(9, 4) }),
        json!({ "type": "message_stop" }),
    ];
    let (first, rest) = events.split_first().unwrap();
    assert_eq!(rest.iter().map(|(_, data)| data.clone()).collect::<Vec<_>>(), wanted);
    assert_eq!(first.0, "message_start");
    let message = &first.1["message"];
    assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
    assert_eq!((&message["usage"]["input_tokens"], &message["usage"]["output_tokens"]), (&json!(9), &json!(0)));
    server.idle().await;
}

#[tokio::test]
async fn whole_and_streamed_answers_are_the_same_blocks() {
    let text = |text: &str| json!({ "type": "text", "text": text });
    let thinking = |text: &str| json!({ "type": "thinking", "thinking": text });
    let call = |input: Value| json!({ "type": "tool_use", "name": "look", "input": input });
    let with_tools = |fields: Value| merged(json!({ "tools": tools() }), fields);
    let look = "[look|{\"at\": 1}]";
    let cases = [
        ("thoughts and words", "~hm~yes", json!({}), json!([thinking("hm"), text("yes")]), "end_turn"),
        (
            "thoughts, blanks and a call",
            &format!("~hm~\n\n{look}"),
            with_tools(json!({})),
            json!([thinking("hm"), call(json!({ "at": 1 }))]),
            "tool_use",
        ),
        (
            "words and two calls",
            &format!(" Well.{look}{look}"),
            with_tools(json!({})),
            json!([text(" Well."), call(json!({ "at": 1 })), call(json!({ "at": 1 }))]),
            "tool_use",
        ),
        (
            "one call at a time",
            &format!("{look}{look}"),
            with_tools(json!({ "tool_choice": { "type": "auto", "disable_parallel_tool_use": true } })),
            json!([call(json!({ "at": 1 }))]),
            "tool_use",
        ),
        ("a call without input", "[look|]", with_tools(json!({})), json!([call(json!({}))]), "tool_use"),
        (
            "cut off inside a call",
            look,
            with_tools(json!({ "max_tokens": 10 })),
            json!([call(json!({}))]),
            "max_tokens",
        ),
        (
            "tools not to be used",
            look,
            with_tools(json!({ "tool_choice": { "type": "none" } })),
            json!([text(look)]),
            "end_turn",
        ),
        ("nothing", "", json!({}), json!([text("")]), "end_turn"),
        ("nothing but blanks", " \n", json!({}), json!([text("")]), "end_turn"),
        ("nothing but thoughts", "~hm~", json!({}), json!([thinking("hm")]), "end_turn"),
        (
            "thoughts left out",
            "~hm~yes",
            json!({ "thinking": { "type": "adaptive", "display": "omitted" } }),
            json!([thinking(""), text("yes")]),
            "end_turn",
        ),
        ("length", "hello", json!({ "max_tokens": 3 }), json!([text("hel")]), "max_tokens"),
        ("stop sequence", "hello", json!({ "stop_sequences": ["zz", "lo"] }), json!([text("hel")]), "stop_sequence"),
        ("a stop of the format", "hi<<no", with_tools(json!({})), json!([text("hi")]), "end_turn"),
        ("vLLM's fields", "hello", json!({ "stop_token_ids": [b'o'] }), json!([text("hell")]), "end_turn"),
    ];
    for (name, answer, fields, content, reason) in cases {
        let server = agent(answer, fake());
        let reply = server.message(fields.clone()).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        let whole = without_ids(reply.json());
        assert_eq!((&whole["content"], &whole["stop_reason"]), (&content, &json!(reason)), "{name}");
        let sequence = if reason == "stop_sequence" { json!("lo") } else { Value::Null };
        assert_eq!(whole["stop_sequence"], sequence, "{name}");
        let streamed = server.message(merged(fields, json!({ "stream": true }))).await.named_events();
        let mut streamed = without_ids(accumulated(&streamed));
        // The second finds the first one's prompt in the cache.
        streamed["usage"] = whole["usage"].clone();
        assert_eq!(streamed, whole, "{name}");
        server.idle().await;
    }
}

#[tokio::test]
async fn arguments_stream_as_they_come() {
    let server = agent("[look|{\"a\": 1}]", fake());
    let events = server.message(json!({ "tools": tools(), "stream": true })).await.named_events();
    let deltas = events.iter().filter(|(name, _)| name == "content_block_delta");
    let parts: Vec<&str> = deltas.map(|(_, data)| data["delta"]["partial_json"].as_str().unwrap()).collect();
    assert_eq!(parts, ["{", "\"", "a", "\"", ":", " ", "1", "}"]);
}

#[tokio::test]
async fn a_thought_left_out_is_not_lost() {
    let server = agent("~hm~yes", fake());
    let thinking = json!({ "type": "adaptive", "display": "omitted" });
    let hi = json!({ "role": "user", "content": "hi" });
    let first = server.message(json!({ "thinking": thinking, "messages": [hi] })).await.json();
    let answer = json!({ "role": "assistant", "content": first["content"] });
    let body = json!({ "model": "tiny", "messages": [hi, answer, hi] });
    let counted = server.post("/v1/messages/count_tokens", &body.to_string()).await.json();
    assert_eq!(counted["input_tokens"], "<user>hi;<assistant>~hm~yes;<user>hi;<assistant>".len() - "user>".len() * 2);
}

#[tokio::test]
async fn an_answer_ends_where_the_context_does() {
    let server = server("hello");
    let fields = json!({ "max_tokens": 32_000, "ignore_eos": true });
    let whole = server.message(fields.clone()).await.json();
    assert_eq!(whole["stop_reason"], "model_context_window_exceeded");
    // The context has 200.
    assert_eq!(whole["usage"]["output_tokens"], 191);
    let streamed = server.message(merged(fields, json!({ "stream": true }))).await.named_events();
    assert_eq!(accumulated(&streamed)["stop_reason"], whole["stop_reason"]);
    // Short of that, it is as long as the model likes.
    assert_eq!(server.message(json!({ "max_tokens": 32_000 })).await.json()["stop_reason"], "end_turn");
}

#[tokio::test]
async fn what_is_asked_for_is_kept_to_by_grammar() {
    // The model would rather say something else.
    let server = server_in("I would rather not, thank you very much. 7", Some("hermes"), Some("qwen3"));
    let schema = json!({ "type": "object", "required": ["n"], "additionalProperties": false,
        "properties": { "n": { "type": "integer", "minimum": 0, "maximum": 99 } } });
    let tools = json!([{ "name": "count", "input_schema": schema }, { "name": "look", "input_schema": schema }]);
    let forced = |choice: Value| json!({ "tools": tools, "tool_choice": choice, "max_tokens": 600, "stream": true });
    let named = forced(json!({ "type": "tool", "name": "count" }));
    let any = forced(json!({ "type": "any", "disable_parallel_tool_use": true }));
    for fields in [named, any] {
        let message = accumulated(&server.message(fields).await.named_events());
        let call = message["content"].as_array().unwrap().last().unwrap();
        assert_eq!((&message["stop_reason"], &call["type"]), (&json!("tool_use"), &json!("tool_use")), "{message}");
        assert!(call["input"]["n"].as_u64().is_some_and(|n| n <= 99), "{message}");
    }

    let format = json!({ "type": "json_schema", "schema": schema });
    for fields in [json!({ "output_config": { "format": format } }), json!({ "output_format": format })] {
        let reply = server.message(merged(fields, json!({ "max_tokens": 600 }))).await;
        let message = reply.json();
        let text = message["content"].as_array().unwrap().last().unwrap()["text"].as_str().unwrap();
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {message}"));
        assert!(value["n"].as_u64().is_some_and(|n| n <= 99), "{message}");
    }
    server.idle().await;
}
