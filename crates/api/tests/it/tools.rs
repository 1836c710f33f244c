//! Tool calls and chains of thought over a fake engine.

use serde_json::{Value, json};

use crate::support::server_in;

fn tools() -> Value {
    json!([
        { "type": "function", "function": { "name": "look", "parameters": {
            "type": "object", "properties": { "at": { "type": "string" } }, "required": ["at"] } } },
        { "type": "function", "function": { "name": "count", "parameters": {
            "type": "object", "properties": { "n": { "type": "integer", "minimum": 0, "maximum": 99 } },
            "required": ["n"], "additionalProperties": false } } },
    ])
}

const TWO_CALLS: &str = "<think>\nHm.\n</think>\n\nLet me see.\n<tool_call>\n{\"name\": \"look\", \"arguments\": \
    {\"at\": \"a <b>\"}}\n</tool_call>\n<tool_call>\n{\"name\": \"count\", \"arguments\": {\"n\": 3}}\n</tool_call>";

/// What a stream's chunks add up to: content, reasoning, (id, name, arguments) of each call, finish reason.
fn assembled(events: &[Value]) -> (String, String, Vec<(String, String, String)>, String) {
    let (mut content, mut reasoning, mut calls, mut reason) = Default::default();
    for event in events {
        let choice = &event["choices"][0];
        let delta = &choice["delta"];
        content += delta["content"].as_str().unwrap_or_default();
        reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        assert_eq!(delta["reasoning_content"], delta["reasoning"]);
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let index = call["index"].as_u64().unwrap() as usize;
            let calls: &mut Vec<(String, String, String)> = &mut calls;
            if let Some(id) = call["id"].as_str() {
                assert_eq!((index, &call["type"]), (calls.len(), &json!("function")));
                let name = call["function"]["name"].as_str().unwrap();
                calls.push((id.to_owned(), name.to_owned(), String::new()));
            }
            calls[index].2 += call["function"]["arguments"].as_str().unwrap();
        }
        if let Some(text) = choice["finish_reason"].as_str() {
            reason = text.to_owned();
        }
    }
    (content, reasoning, calls, reason)
}

#[tokio::test]
async fn an_answer_is_taken_apart() {
    let server = server_in(TWO_CALLS, Some("hermes"), Some("qwen3"));
    let reply = server.chat(json!({ "tools": tools() })).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    let (message, reason) = (&body["choices"][0]["message"], &body["choices"][0]["finish_reason"]);
    assert_eq!((&message["content"], reason), (&json!("Let me see."), &json!("tool_calls")));
    assert_eq!((&message["reasoning"], &message["reasoning_content"]), (&json!("Hm."), &json!("Hm.")));
    let calls = message["tool_calls"].as_array().unwrap();
    let functions: Vec<_> = calls.iter().map(|call| call["function"].clone()).collect();
    let wanted = [
        json!({ "name": "look", "arguments": "{\"at\": \"a <b>\"}" }),
        json!({ "name": "count", "arguments": "{\"n\": 3}" }),
    ];
    assert_eq!(functions, wanted);
    assert!(calls[0]["id"].as_str().unwrap().starts_with("call_") && calls[0]["id"] != calls[1]["id"]);
}

#[tokio::test]
async fn a_stream_adds_up_to_the_whole() {
    let server = server_in(TWO_CALLS, Some("hermes"), Some("qwen3"));
    let events = server.chat(json!({ "tools": tools(), "stream": true })).await.events();
    let (content, reasoning, calls, reason) = assembled(&events);
    assert_eq!((content.as_str(), reasoning.as_str(), reason.as_str()), ("Let me see.", "Hm.", "tool_calls"));
    let calls: Vec<_> = calls.iter().map(|(_, name, arguments)| (name.as_str(), arguments.as_str())).collect();
    assert_eq!(calls, [("look", "{\"at\": \"a <b>\"}"), ("count", "{\"n\": 3}")]);
    // Arguments come while they are written, not at the end.
    let pieces = events.iter().filter(|e| e["choices"][0]["delta"]["tool_calls"][0]["id"].is_null());
    let pieces = pieces.filter(|e| e["choices"][0]["delta"]["tool_calls"].is_array());
    assert!(pieces.count() > 10);
}

#[tokio::test]
async fn what_changes_how_an_answer_is_read() {
    let server = server_in(TWO_CALLS, Some("hermes"), Some("qwen3"));
    let message = async |fields: Value| server.chat(fields).await.json()["choices"][0].clone();
    // Without tools, or if none may be used, there are no calls to be found.
    for fields in [json!({}), json!({ "tools": tools(), "tool_choice": "none" })] {
        let choice = message(fields).await;
        assert!(choice["message"]["content"].as_str().unwrap().contains("<tool_call>"));
        assert_eq!((&choice["message"]["tool_calls"], &choice["finish_reason"]), (&Value::Null, &json!("stop")));
    }
    let choice = message(json!({ "tools": tools(), "include_reasoning": false })).await;
    assert_eq!(choice["message"]["reasoning_content"], Value::Null);
    assert_eq!(choice["message"]["content"], "Let me see.");
    // Cut off inside the second call.
    let choice = message(json!({ "tools": tools(), "max_tokens": TWO_CALLS.len() - 20 })).await;
    assert_eq!(
        (choice["message"]["tool_calls"].as_array().unwrap().len(), &choice["finish_reason"]),
        (2, &json!("length"))
    );
}

#[tokio::test]
async fn one_call_at_a_time_stops_the_engine_at_the_second() {
    let server = server_in(&TWO_CALLS.repeat(3), Some("hermes"), Some("qwen3"));
    for stream in [false, true] {
        let fields = json!({ "tools": tools(), "parallel_tool_calls": false, "stream": stream,
            "stream_options": stream.then(|| json!({ "include_usage": true })) });
        let reply = server.chat(fields).await;
        let (calls, usage) = if stream {
            let events = reply.events();
            (assembled(&events).2.len(), events.last().unwrap()["usage"].clone())
        } else {
            let body = reply.json();
            (body["choices"][0]["message"]["tool_calls"].as_array().unwrap().len(), body["usage"].clone())
        };
        assert_eq!(calls, 1);
        let tokens = usage["completion_tokens"].as_u64().unwrap() as usize;
        assert!(tokens < TWO_CALLS.len(), "{tokens}");
    }
    server.idle().await;
}

#[tokio::test]
async fn calls_are_forced_by_grammar() {
    // The model would rather say something else.
    for format in ["hermes", "llama", "mistral", "qwen3_xml", "deepseek_v3", "kimi_k2", "glm47", "minimax", "granite"] {
        let server = server_in("I would rather not, thank you very much. 7", Some(format), None);
        let ask = async |choice: Value, stream: bool| {
            let fields =
                json!({ "tools": tools(), "tool_choice": choice, "stream": stream, "max_tokens": 600, "seed": 1 });
            server.chat(fields).await
        };
        let named = json!({ "type": "function", "function": { "name": "count" } });
        let reply = ask(named.clone(), false).await;
        assert_eq!(reply.status, 200, "{format}: {}", reply.body);
        let body = reply.json();
        let choice = &body["choices"][0];
        let calls = choice["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{format}: {body}"));
        assert_eq!((calls.len(), &choice["finish_reason"]), (1, &json!("tool_calls")), "{format}: {body}");
        assert_eq!(calls[0]["function"]["name"], "count", "{format}");
        let arguments: Value = serde_json::from_str(calls[0]["function"]["arguments"].as_str().unwrap()).unwrap();
        let n = arguments["n"].as_u64().unwrap_or_else(|| panic!("{format}: {arguments}"));
        assert!(n <= 99 && arguments.as_object().unwrap().len() == 1, "{format}: {arguments}");

        let (_, _, calls, reason) = assembled(&ask(named, true).await.events());
        assert_eq!((calls.len(), calls[0].1.as_str(), reason.as_str()), (1, "count", "tool_calls"), "{format}");
    }
}

#[tokio::test]
async fn thinking_comes_before_what_is_forced_and_ends_with_its_budget() {
    let server = server_in("<think>I think and I think and I think and I think", Some("hermes"), Some("qwen3"));
    let reply = server
        .chat(json!({ "tools": tools(), "tool_choice": "required", "thinking_token_budget": 12, "max_tokens": 800,
            "parallel_tool_calls": false }))
        .await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let choice = reply.json()["choices"][0].clone();
    assert_eq!(choice["message"]["reasoning"], "I think and", "{choice}");
    assert_eq!(choice["message"]["tool_calls"].as_array().unwrap().len(), 1, "{choice}");

    // Thinking that the template can't switch off is switched off by the grammar.
    let choice = server.chat(json!({ "enable_thinking": false, "max_tokens": 40 })).await.json()["choices"][0].clone();
    assert_eq!(choice["message"]["reasoning"], Value::Null, "{choice}");
}

#[tokio::test]
async fn a_history_with_calls_reaches_the_model() {
    let server = server_in("fine", Some("hermes"), None);
    let call =
        json!({ "id": "c1", "type": "function", "function": { "name": "look", "arguments": "{\"at\": \"x\"}" } });
    let messages = json!([
        { "role": "user", "content": "hi" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": "nothing" },
    ]);
    let tokens = async |messages: Value| {
        let reply = server.chat(json!({ "messages": messages, "tools": tools() })).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["usage"]["prompt_tokens"].as_u64().unwrap() as usize
    };
    // This template shows no calls: they are written out.
    let shown = "user:hi;assistant:<tool_call>\n{\"name\":\"look\",\"arguments\":{\"at\":\"x\"}}\n</tool_call>;\
        user:<tool_response>\nnothing\n</tool_response>;[look][count]>";
    assert_eq!(tokens(messages).await, shown.len());
}

#[tokio::test]
async fn schemas_that_no_grammar_can_follow() {
    let server = server_in("anything", Some("hermes"), None);
    let ask = async |strict: bool| {
        let parameters = json!({ "type": "object", "properties": { "a": { "not": { "type": "string" } } } });
        let tool = json!({ "type": "function",
            "function": { "name": "f", "parameters": parameters, "strict": strict } });
        server.chat(json!({ "tools": [tool], "tool_choice": "required", "max_tokens": 300 })).await
    };
    let reply = ask(true).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (400, json!("invalid_grammar")), "{}", reply.body);
    // Not strict: the call is forced, its arguments are any object.
    let reply = ask(false).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(reply.json()["choices"][0]["message"]["tool_calls"][0]["function"]["name"], "f");
}

#[tokio::test]
async fn strict_arguments_are_kept_to_in_calls_that_the_model_makes_by_itself() {
    // What the model would write: an argument of the wrong type.
    let wrong = json!({ "name": "count", "arguments": { "n": "many" } });
    let answer = format!("Let me count. <tool_call>\n{wrong}\n</tool_call>");
    for format in ["hermes", "xlam"] {
        let answer = if format == "xlam" { format!("[{wrong}]") } else { answer.clone() };
        let server = server_in(&answer, Some(format), None);
        let mut tools = tools();
        tools[1]["function"]["strict"] = json!(true);
        let reply = server.chat(json!({ "tools": tools, "max_tokens": 400 })).await;
        assert_eq!(reply.status, 200, "{format}: {}", reply.body);
        let message = reply.json()["choices"][0]["message"].clone();
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let arguments = call["function"]["arguments"].as_str().unwrap();
            if let Ok(arguments) = serde_json::from_str::<Value>(arguments) {
                assert!(call["function"]["name"] != "count" || arguments["n"].is_u64(), "{format}: {message}");
            }
        }
        if format == "hermes" {
            assert!(message["content"].as_str().unwrap().starts_with("Let me count."), "{message}");
        }
    }
}
