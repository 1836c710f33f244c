//! `/v1/responses` over a fake engine.

#[path = "support/formats.rs"]
mod formats;
mod support;

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::Request,
    response::Response,
};
use formats::formats;
use serde_json::{Value, json};
use support::{EOS, Reply, Server, fake, merged, server, server_of, server_with, server_with_formats};
use tower::ServiceExt as _;
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

impl Server {
    /// A response to one text, with further fields.
    async fn respond(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "input": "hi" });
        self.post("/v1/responses", &merged(body, fields).to_string()).await
    }

    /// The same as events, each with its name, checked: numbered from 0, the name as the type.
    async fn stream(&self, fields: Value) -> Vec<Value> {
        events(&self.respond(merged(fields, json!({ "stream": true }))).await.body)
    }

    async fn as_client(&self, method: &str, path: &str, key: &str, body: Value) -> Reply {
        let request = Request::builder().method(method).uri(path).header("authorization", format!("Bearer {key}"));
        self.send(request.body(Body::from(body.to_string())).unwrap()).await
    }
}

fn events(body: &str) -> Vec<Value> {
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
fn thinker(answer: &str) -> Server {
    let script = answer.bytes().map(u32::from).chain([EOS]).collect();
    let fake = FakeConfig { script, context_length: 1000, ..fake() };
    server_with_formats(fake, EngineConfig::default(), App::new(HttpConfig::default()), formats())
}

fn slow() -> Server {
    let fake = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    server_with(fake, EngineConfig::default(), HttpConfig::default())
}

/// Takes ids out, checking their prefixes.
fn without_ids(mut item: Value) -> Value {
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

fn message(text: &str, status: &str) -> Value {
    json!({ "type": "message", "status": status, "role": "assistant",
        "content": [{ "type": "output_text", "text": text, "annotations": [], "logprobs": [] }] })
}

fn thought(text: &str, status: &str) -> Value {
    json!({ "type": "reasoning", "status": status, "summary": [], "encrypted_content": null,
        "content": [{ "type": "reasoning_text", "text": text }] })
}

#[tokio::test]
async fn a_response() {
    let server = server("hello");
    let reply = server.respond(json!({})).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let mut body = reply.json();
    assert!(body["id"].as_str().unwrap().starts_with("resp_"));
    assert!(body["created_at"].as_u64().unwrap() > 1_600_000_000 && body["completed_at"].as_u64().is_some());
    body["output"][0] = without_ids(body["output"][0].clone());
    for field in ["id", "created_at", "completed_at"] {
        body.as_object_mut().unwrap().remove(field);
    }
    let wanted = json!({
        "object": "response", "status": "completed", "error": null, "incomplete_details": null,
        "model": "tiny", "output": [message("hello", "completed")],
        // "user:hi;>", and the five letters with <eos>.
        "usage": {
            "input_tokens": 9, "input_tokens_details": { "cached_tokens": 0, "cache_write_tokens": 9 },
            "output_tokens": 6, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": 15,
        },
        "background": false, "instructions": null, "max_output_tokens": null, "max_tool_calls": null,
        "metadata": {}, "parallel_tool_calls": true, "previous_response_id": null,
        "prompt_cache_key": null, "prompt_cache_retention": null, "reasoning": { "effort": null, "summary": null },
        "safety_identifier": null, "service_tier": "default", "store": true, "temperature": 0.0,
        "text": { "format": { "type": "text" }, "verbosity": "medium" }, "tool_choice": "auto", "tools": [],
        "top_logprobs": 0, "top_p": 1.0, "truncation": "disabled", "user": null,
    });
    assert_eq!(body, wanted);
    server.idle().await;
}

#[tokio::test]
async fn fields_that_change_the_answer() {
    let message = |role: &str, content: Value| json!({ "role": role, "content": content });
    let parts = json!([{ "type": "input_text", "text": "a" }, { "type": "input_text", "text": "b" }]);
    let call = |kind: &str, payload: &str, text: &str| {
        let mut call = json!({ "type": kind, "call_id": "c", "name": "f" });
        call[payload] = json!(text);
        call
    };
    let output = json!({ "type": "function_call_output", "call_id": "c", "output": "42" });
    // Prompt tokens tell what the template was given.
    let cases = [
        ("instructions", json!({ "instructions": "be" }), "hello", "completed", "system:be;user:hi;>"),
        ("length", json!({ "max_output_tokens": 3 }), "hel", "incomplete", "user:hi;>"),
        ("stop string", json!({ "stop": "lo" }), "hel", "completed", "user:hi;>"),
        ("easy message", json!({ "input": [message("user", json!("x"))] }), "hello", "completed", "user:x;>"),
        ("parts", json!({ "input": [message("developer", parts)] }), "hello", "completed", "system:a\nb;>"),
        (
            "calls and outputs",
            json!({ "input": [message("user", json!("x")), call("function_call", "arguments", "{}"), output] }),
            "hello",
            "completed",
            // A template that shows no calls is given them as text.
            "user:x;assistant:<tool_call>\n{\"name\":\"f\",\"arguments\":{}}\n</tool_call>;\
             user:<tool_response>\n42\n</tool_response>;>",
        ),
        (
            "template variables",
            json!({ "chat_template_kwargs": { "mood": "sad" } }),
            "hello",
            "completed",
            "user:hi;(sad)>",
        ),
        (
            "tools",
            json!({ "tools": [{ "type": "function", "name": "f", "parameters": {}, "strict": false }] }),
            "hello",
            "completed",
            "user:hi;[f]>",
        ),
        (
            "only some of the tools",
            json!({ "tools": [{ "type": "function", "name": "f" }, { "type": "custom", "name": "g" }],
                "tool_choice": { "type": "allowed_tools", "mode": "auto", "tools": [{ "type": "custom", "name": "g" }] } }),
            "hello",
            "completed",
            "user:hi;[g]>",
        ),
        (
            "fields without effect",
            json!({ "user": "u", "metadata": { "a": "b" }, "service_tier": "auto", "include": ["file_search_call.results"],
                "text": { "format": { "type": "text" } }, "reasoning": { "effort": "low", "summary": "auto" },
                "parallel_tool_calls": false, "max_tool_calls": 3, "prompt_cache_key": "k", "safety_identifier": "s",
                "no_such_field": 1, "truncation": "disabled", "prompt_cache_options": { "mode": "implicit" } }),
            "hello",
            "completed",
            "user:hi;>",
        ),
    ];
    let fake = FakeConfig { script: b"hello".iter().map(|&b| b.into()).chain([EOS]).collect(), ..fake() };
    let engine = EngineConfig { prefix_cache: false, ..Default::default() };
    let server = server_with(fake, engine, HttpConfig::default());
    for (name, fields, text, status, prompt) in cases {
        let reply = server.respond(fields.clone()).await;
        assert_eq!(reply.status, 200, "{name}: {}", reply.body);
        let body = reply.json();
        assert_eq!(
            (&body["output"][0]["content"][0]["text"], &body["status"]),
            (&json!(text), &json!(status)),
            "{name}"
        );
        assert_eq!(body["usage"]["input_tokens"], prompt.len(), "{name}");
        assert_eq!(body["usage"]["input_tokens_details"]["cache_write_tokens"], 0, "{name}: there is no cache");
        for (field, value) in fields.as_object().unwrap() {
            let shown = match field.as_str() {
                "text" => json!({ "format": { "type": "text" }, "verbosity": "medium" }),
                "service_tier" => json!("default"),
                "input" | "stop" | "chat_template_kwargs" | "include" | "no_such_field" | "prompt_cache_options" => {
                    continue;
                }
                _ => value.clone(),
            };
            assert_eq!(body[field], shown, "{name}: {field}");
        }
    }
    server.idle().await;
}

#[tokio::test]
async fn bad_requests_are_named() {
    let tool = |kind: &str| json!([{ "type": kind, "name": "f" }]);
    let item = |item: Value| json!({ "input": [item] });
    let cases = [
        (json!({ "input": null }), "input is missing or empty: there must be at least one item", "input"),
        (json!({ "input": [] }), "input is missing or empty: there must be at least one item", "input"),
        (json!({ "input": vec![json!({}); 65_537] }), "input has 65537 items: it may have at most 65536", "input"),
        (json!({ "input": 3 }), "input is 3: it must be a string or an array of items", "input"),
        (item(json!(3)), "input[0] is 3: it must be an object", "input[0]"),
        (item(json!({})), "input[0] has no type", "input[0]"),
        (item(json!({ "type": "message" })), "input[0].role is missing", "input[0].role"),
        (item(json!({ "role": "user" })), "input[0].content is missing", "input[0].content"),
        (
            item(json!({ "role": "robot", "content": "x" })),
            "input[0].role is \"robot\": it must be user, assistant, system or developer",
            "input[0].role",
        ),
        (
            item(json!({ "role": "user", "content": [{ "type": "input_image", "image_url": "x" }] })),
            "input[0].content[0] is of type input_image: this model takes text only",
            "input[0].content[0]",
        ),
        (
            item(json!({ "role": "user", "content": [{ "type": "output_text", "text": "x" }] })),
            "input[0].content[0] is of type \"output_text\": it must be input_text",
            "input[0].content[0]",
        ),
        (
            item(json!({ "type": "computer_call" })),
            "input[0] is of type \"computer_call\": this server takes message, reasoning, function_call, \
             function_call_output, custom_tool_call, custom_tool_call_output and item_reference",
            "input[0]",
        ),
        (
            item(json!({ "type": "function_call", "call_id": "c", "name": "f" })),
            "input[0].arguments is missing",
            "input[0].arguments",
        ),
        (
            item(json!({ "type": "function_call_output", "call_id": "c", "output": "x" })),
            "input has an output for call \"c\": there is no such call before it",
            "input",
        ),
        (
            item(json!({ "type": "reasoning", "summary": [], "encrypted_content": "gAAAA" })),
            "input[0].encrypted_content does not come from this server, which can't read it",
            "input[0].encrypted_content",
        ),
        (
            json!({ "tools": tool("web_search") }),
            "tools[0] is of type \"web_search\": this server has tools of type function and custom",
            "tools[0]",
        ),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].name is missing", "tools[0].name"),
        (
            json!({ "tools": [{ "type": "custom", "name": "f", "format": { "type": "grammar" } }] }),
            "tools[0].format is of type \"grammar\": only text is supported",
            "tools[0].format",
        ),
        (
            json!({ "tools": tool("function"), "tool_choice": { "type": "custom", "name": "g" } }),
            "tool_choice names \"g\": there is no such tool in tools",
            "tool_choice",
        ),
        (json!({ "truncation": "middle" }), "truncation is \"middle\": it must be auto or disabled", "truncation"),
        (
            json!({ "max_output_tokens": 0 }),
            "max_output_tokens is 0: it must be a whole number of at least 1",
            "max_output_tokens",
        ),
        (json!({ "metadata": { "a": 1 } }), "metadata has 1 for \"a\": it must be a string", "metadata"),
        (
            json!({ "metadata": { "a": "x".repeat(513) } }),
            "metadata has keys of at most 64 characters, values of at most 512",
            "metadata",
        ),
        (
            json!({ "include": ["everything"] }),
            "include has \"everything\": this server has message.output_text.logprobs and reasoning.encrypted_content",
            "include",
        ),
        (
            json!({ "text": { "format": { "type": "yaml" } } }),
            "text.format is of type \"yaml\": it must be text, json_object or json_schema",
            "text.format",
        ),
        (
            json!({ "text": { "verbosity": "high" } }),
            "text.verbosity is \"high\": use medium, or say it in instructions",
            "text.verbosity",
        ),
        (
            json!({ "reasoning": { "summary": "detailed" } }),
            "reasoning.summary is \"detailed\": only auto is supported",
            "reasoning.summary",
        ),
        (json!({ "service_tier": "flex" }), "service_tier is \"flex\": use auto or default", "service_tier"),
        (
            json!({ "conversation": "conv_1" }),
            "conversation: this server has no conversations: use previous_response_id",
            "conversation",
        ),
        (
            json!({ "prompt": { "id": "p" } }),
            "prompt: this server has no prompt templates: use instructions and input",
            "prompt",
        ),
        (json!({ "n": 2 }), "n: a response has one answer", "n"),
        (
            json!({ "background": true, "store": false }),
            "background needs store: true, or nobody could ask for the response",
            "background",
        ),
        (
            json!({ "background": true, "stream": true }),
            "background is not supported with stream: true: ask for the response when it has ended",
            "background",
        ),
        (json!({ "top_logprobs": 21 }), "top_logprobs is 21: it must be a whole number from 0 to 20", "top_logprobs"),
        (
            json!({ "text": { "format": { "type": "json_object" } }, "guided_regex": "a" }),
            "text.format and another format can't both be kept: give one",
            "text.format",
        ),
        (json!({ "stream_options": {} }), "stream_options is only allowed with stream: true", "stream_options"),
        (json!({ "model": null }), "model is missing: it must name the model to use", "model"),
    ];
    let server = server("hello");
    for (fields, message, param) in cases {
        let reply = server.respond(fields.clone()).await;
        assert_eq!(reply.status, 400, "{fields}: {}", reply.body);
        let error = reply.error();
        assert_eq!((error.0.as_str(), &error.1), (message, &json!(param)), "{fields}");
    }
    assert_eq!(server.model.engine.stats().steps, 0, "a bad request reached the engine");
}

#[tokio::test]
async fn the_events_of_a_stream() {
    let server = thinker("<think>hm</think>\n\nok<call>f{\"a\":1}</call>\n<call>sh{\"input\":\"ls\"}</call>");
    let tools = json!({ "tools": [{ "type": "function", "name": "f" }, { "type": "custom", "name": "sh" }] });
    let events = server.stream(merged(tools.clone(), json!({ "store": false }))).await;
    let (first, last) = (&events[0]["response"], &events[events.len() - 1]["response"]);
    assert_eq!(
        (&first["status"], &first["output"], &first["usage"]),
        (&json!("in_progress"), &json!([]), &Value::Null)
    );

    // Deltas in a row count once.
    let mut names: Vec<&str> = events.iter().map(|event| event["type"].as_str().unwrap()).collect();
    names.dedup();
    let wanted = [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.reasoning_text.delta",
        "response.reasoning_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.function_call_arguments.delta",
        "response.function_call_arguments.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.custom_tool_call_input.delta",
        "response.custom_tool_call_input.done",
        "response.output_item.done",
        "response.completed",
    ];
    assert_eq!(names, wanted);

    // What was added, grew and was done is what the response ends with.
    let output = last["output"].as_array().unwrap();
    let mut grown = vec![String::new(); output.len()];
    for event in &events {
        let Some(index) = event["output_index"].as_u64().map(|index| index as usize) else { continue };
        let id = event.get("item_id").unwrap_or(&event["item"]["id"]);
        assert_eq!(id, &output[index]["id"]);
        match event["type"].as_str().unwrap().rsplit_once('.').unwrap().1 {
            "delta" => grown[index].push_str(event["delta"].as_str().unwrap()),
            "done" if !event["item"].is_null() => assert_eq!(event["item"], output[index]),
            "done" if !event["part"].is_null() => assert_eq!(event["part"], output[index]["content"][0]),
            "added" if !event["item"].is_null() => assert_eq!(event["item"]["status"], "in_progress"),
            _ => {}
        }
    }
    assert_eq!(grown, ["hm", "\n\nok", "{\"a\":1}", "ls"]);
    let output: Vec<Value> = output.iter().cloned().map(without_ids).collect();
    let call = |index: usize| last["output"][index]["call_id"].as_str().unwrap().to_owned();
    let wanted = [
        thought("hm", "completed"),
        message("\n\nok", "completed"),
        json!({ "type": "function_call", "status": "completed", "call_id": call(2), "name": "f",
            "arguments": "{\"a\":1}" }),
        json!({ "type": "custom_tool_call", "status": "completed", "call_id": call(3), "name": "sh", "input": "ls" }),
    ];
    assert_eq!(output, wanted);
    assert_eq!(last["usage"]["output_tokens_details"]["reasoning_tokens"], "<think>hm</think>".len());

    // A whole response is the same.
    let whole = server.respond(tools).await.json();
    for (index, item) in whole["output"].as_array().unwrap().iter().enumerate() {
        let mut item = without_ids(item.clone());
        if item["call_id"].is_string() {
            item["call_id"] = json!(call(index));
        }
        assert_eq!(item, wanted[index]);
    }
    assert_eq!(
        (&whole["usage"]["output_tokens_details"], &whole["status"]),
        (&last["usage"]["output_tokens_details"], &json!("completed"))
    );
    server.idle().await;
}

#[tokio::test]
async fn answers_that_end_early_or_say_little() {
    let tools = json!({ "tools": [{ "type": "function", "name": "f" }] });
    let with_tools = |fields: Value| merged(tools.clone(), fields);
    let call = |arguments: &str, status: &str| json!({ "type": "function_call", "status": status, "name": "f", "arguments": arguments });
    let cases = [
        ("nothing", "", json!({}), "completed", vec![message("", "completed")], 0),
        ("white space", " \n", json!({}), "completed", vec![message(" \n", "completed")], 0),
        ("thought only", "<think>hm</think>", json!({}), "completed", vec![thought("hm", "completed")], 17),
        (
            "no white space after it",
            "<think>hm</think>\n",
            json!({}),
            "completed",
            vec![thought("hm", "completed")],
            17,
        ),
        (
            "cut in a thought",
            "<think>hmmm",
            json!({ "max_output_tokens": 9 }),
            "incomplete",
            vec![thought("hm", "incomplete")],
            9,
        ),
        (
            "cut in a text",
            "hello",
            json!({ "max_output_tokens": 2 }),
            "incomplete",
            vec![message("he", "incomplete")],
            0,
        ),
        (
            "cut in a call",
            "<call>f{\"a\":1}</call>",
            with_tools(json!({ "max_output_tokens": 10 })),
            "incomplete",
            vec![call("{\"a", "incomplete")],
            0,
        ),
        (
            "one call only",
            "<call>f{}</call><call>f{\"b\":2}</call>",
            with_tools(json!({ "parallel_tool_calls": false })),
            "completed",
            vec![call("{}", "completed")],
            0,
        ),
        (
            "text between calls",
            "<call>f{}</call> and <call>f{}</call>",
            with_tools(json!({})),
            "completed",
            vec![call("{}", "completed"), message(" and ", "completed"), call("{}", "completed")],
            0,
        ),
        (
            "hidden thought",
            "<think>hm</think>ok",
            json!({ "include_reasoning": false }),
            "completed",
            vec![message("ok", "completed")],
            17,
        ),
    ];
    for (name, answer, fields, status, wanted, reasoning) in cases {
        let server = thinker(answer);
        let streamed = server.stream(fields.clone()).await;
        let last = streamed.last().unwrap();
        assert_eq!(last["type"], format!("response.{status}"), "{name}");
        for body in [&server.respond(fields).await.json(), &last["response"]] {
            assert_eq!(body["status"], status, "{name}");
            let reason = (status == "incomplete").then(|| json!({ "reason": "max_output_tokens" }));
            assert_eq!(body["incomplete_details"], json!(reason), "{name}");
            let items = body["output"].as_array().unwrap().iter().map(|item| {
                let mut item = without_ids(item.clone());
                item.as_object_mut().unwrap().remove("call_id");
                item
            });
            assert_eq!(items.collect::<Vec<_>>(), wanted, "{name}");
            assert_eq!(body["usage"]["output_tokens_details"]["reasoning_tokens"], reasoning, "{name}");
        }
        server.idle().await;
    }
}

#[tokio::test]
async fn sealed_reasoning_comes_back_as_it_was() {
    let server = thinker("<think>hm</think>ok");
    let body = server.respond(json!({ "include": ["reasoning.encrypted_content"], "store": false })).await.json();
    let mut item = body["output"][0].clone();
    let sealed = item["encrypted_content"].as_str().unwrap().to_owned();
    assert!(!sealed.is_empty() && !sealed.contains("hm"));
    // Clients that store nothing may send it without its content.
    item.as_object_mut().unwrap().remove("content");
    let again = server.respond(json!({ "input": [{ "role": "user", "content": "hi" }, item] })).await;
    assert_eq!(again.status, 200, "{}", again.body);
}

#[tokio::test]
async fn log_probabilities() {
    let server = thinker("<think>hm</think>ok<call>f{}</call>");
    let tools = json!({ "tools": [{ "type": "function", "name": "f" }] });
    for asked in
        [json!({ "top_logprobs": 2 }), json!({ "top_logprobs": 2, "include": ["message.output_text.logprobs"] })]
    {
        let fields = merged(tools.clone(), asked);
        let body = server.respond(fields.clone()).await.json();
        let entries = body["output"][1]["content"][0]["logprobs"].as_array().unwrap();
        let tokens: Vec<&str> = entries.iter().map(|entry| entry["token"].as_str().unwrap()).collect();
        assert_eq!(tokens, ["o", "k"], "those of the text, and of nothing else");
        assert_eq!((entries[0]["top_logprobs"].as_array().unwrap().len(), &entries[0]["bytes"]), (2, &json!([b'o'])));
        let events = server.stream(fields).await;
        let named = |name: &str| events.iter().filter(|e| e["type"] == name).cloned().collect::<Vec<_>>();
        let deltas: Vec<Value> = named("response.output_text.delta")
            .iter()
            .flat_map(|event| event["logprobs"].as_array().unwrap().clone())
            .collect();
        assert_eq!((&deltas, &named("response.output_text.done")[0]["logprobs"]), (entries, &json!(entries)));
    }
    let none = server.respond(json!({})).await.json();
    assert_eq!(none["output"][1]["content"][0]["logprobs"], json!([]));
}

#[tokio::test]
async fn a_conversation_is_kept_and_its_prefix_cached() {
    let server = server("hello");
    let first = server.respond(json!({ "instructions": "Be kind.", "input": "What is this?" })).await.json();
    let prompt = |text: &str| json!(text.len());
    assert_eq!(first["usage"]["input_tokens"], prompt("system:Be kind.;user:What is this?;>"));
    // Instructions are of one response only.
    let second = server.respond(json!({ "previous_response_id": first["id"], "input": "And that?" })).await.json();
    assert_eq!(second["usage"]["input_tokens"], prompt("user:What is this?;assistant:hello;user:And that?;>"));
    assert_eq!(second["previous_response_id"], first["id"]);
    let mut last = second;
    let mut cached = last["usage"]["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
    for turn in 0..3 {
        let next = server.respond(json!({ "previous_response_id": last["id"], "input": "More." })).await.json();
        let usage = &next["usage"];
        let now = usage["input_tokens_details"]["cached_tokens"].as_u64().unwrap();
        assert!(now >= cached + 20, "turn {turn}: {now} after {cached}");
        assert_eq!(usage["input_tokens_details"]["cache_write_tokens"], usage["input_tokens"].as_u64().unwrap() - now);
        (cached, last) = (now, next);
    }
    // Two may go on from one.
    for _ in 0..2 {
        assert_eq!(server.respond(json!({ "previous_response_id": first["id"] })).await.status, 200);
    }
    // Forgetting one doesn't break those that go on from it.
    let path = format!("/v1/responses/{}", first["id"].as_str().unwrap());
    assert_eq!(server.delete(&path).await.status, 200);
    let after = server.respond(json!({ "previous_response_id": last["id"], "input": "x" })).await.json();
    assert!(after["usage"]["input_tokens"].as_u64().unwrap() > last["usage"]["input_tokens"].as_u64().unwrap());
    let (message, param, code) = server.respond(json!({ "previous_response_id": first["id"] })).await.error();
    assert_eq!((param, code), (json!("previous_response_id"), json!("previous_response_not_found")));
    assert!(message.contains(first["id"].as_str().unwrap()));
    server.idle().await;
}

#[tokio::test]
async fn a_tools_output_follows_its_call() {
    let server = thinker("<think>hm</think><call>f{\"a\":1}</call>");
    let tools = json!({ "tools": [{ "type": "function", "name": "f" }] });
    let first = server.respond(tools.clone()).await.json();
    let output = |id: &Value| json!([{ "type": "function_call_output", "call_id": id, "output": "42" }]);
    let fields = json!({ "previous_response_id": first["id"], "input": output(&first["output"][1]["call_id"]) });
    let second = server.respond(merged(tools.clone(), fields)).await;
    assert_eq!(second.status, 200, "{}", second.body);
    let fields = json!({ "previous_response_id": first["id"], "input": output(&json!("call_9")) });
    let (message, ..) = server.respond(merged(tools, fields)).await.error();
    assert_eq!(message, "input has an output for call \"call_9\": there is no such call before it");
}

#[tokio::test]
async fn kept_ones_are_shown_listed_and_deleted() {
    let server = server("hello");
    let input = json!([
        { "role": "user", "content": "one" },
        { "type": "message", "role": "assistant", "id": "msg_mine", "content": [{ "type": "output_text", "text": "two" }] },
        { "role": "user", "content": [{ "type": "input_text", "text": "three" }] },
    ]);
    let body = server.respond(json!({ "input": input })).await.json();
    let id = body["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.json(), body);

    let list = |query: &'static str| {
        let path = format!("/v1/responses/{id}/input_items{query}");
        let server = &server;
        async move { server.get(&path).await }
    };
    let all = list("?order=asc").await.json();
    let data = all["data"].as_array().unwrap();
    assert_eq!((&all["object"], &all["has_more"], data.len()), (&json!("list"), &json!(false), 3));
    assert_eq!((&all["first_id"], &all["last_id"]), (&data[0]["id"], &data[2]["id"]));
    let wanted = json!({ "type": "message", "status": "completed", "role": "user",
        "content": [{ "type": "input_text", "text": "one" }] });
    assert_eq!(without_ids(data[0].clone()), wanted);
    assert_eq!((&data[1]["id"], &data[1]["content"][0]["type"]), (&json!("msg_mine"), &json!("output_text")));
    let page = list("?limit=1&after=msg%5Fmine").await.json();
    assert_eq!((&page["data"], &page["has_more"]), (&json!([data[0]]), &json!(false)), "newest first");
    let page = list("?limit=1&order=asc").await.json();
    assert_eq!((&page["data"], &page["has_more"]), (&json!([data[0]]), &json!(true)));
    for (query, param) in
        [("?limit=0", "limit"), ("?limit=101", "limit"), ("?order=up", "order"), ("?after=x", "after")]
    {
        let reply = list(query).await;
        assert_eq!((reply.status.as_u16(), reply.error().1), (400, json!(param)));
    }

    // An item by its name, from the answer as from the input.
    let references = json!([{ "id": "msg_mine" }, { "type": "item_reference", "id": body["output"][0]["id"] },
        { "role": "user", "content": "x" }]);
    let referring = server.respond(json!({ "input": references })).await.json();
    assert_eq!(referring["usage"]["input_tokens"], "assistant:two;assistant:hello;user:x;>".len());
    server.delete(&format!("/v1/responses/{}", referring["id"].as_str().unwrap())).await;

    let deleted = server.delete(&format!("/v1/responses/{id}")).await;
    assert_eq!(deleted.json(), json!({ "id": id, "object": "response", "deleted": true }));
    for path in ["", "/input_items"] {
        let reply = server.get(&format!("/v1/responses/{id}{path}")).await;
        assert_eq!((reply.status.as_u16(), reply.error().2), (404, json!("response_not_found")));
    }
    assert_eq!(server.delete(&format!("/v1/responses/{id}")).await.status, 404);
    let reply = server.respond(json!({ "input": [{ "type": "item_reference", "id": "msg_mine" }] })).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (404, json!("item_not_found")));
}

#[tokio::test]
async fn what_is_not_stored_is_not_there() {
    let server = server("hello");
    let id = server.respond(json!({ "store": false })).await.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/responses/{id}")).await.status, 404);
    assert_eq!(server.respond(json!({ "previous_response_id": id })).await.status, 404);
    let events = server.stream(json!({ "store": true })).await;
    let last = &events.last().unwrap()["response"];
    assert_eq!(server.get(&format!("/v1/responses/{}", last["id"].as_str().unwrap())).await.json(), *last);
}

#[tokio::test]
async fn another_key_sees_nothing() {
    let server = server("hello");
    let body = json!({ "model": "tiny", "input": "hi" });
    let id = server.as_client("POST", "/v1/responses", "mine", body.clone()).await.json()["id"].clone();
    let path = format!("/v1/responses/{}", id.as_str().unwrap());
    for (method, path) in [
        ("GET", path.clone()),
        ("GET", format!("{path}/input_items")),
        ("POST", format!("{path}/cancel")),
        ("DELETE", path.clone()),
    ] {
        let reply = server.as_client(method, &path, "yours", json!({})).await;
        assert_eq!((reply.status.as_u16(), reply.error().2), (404, json!("response_not_found")), "{method} {path}");
    }
    let follow = merged(body, json!({ "previous_response_id": id }));
    assert_eq!(server.as_client("POST", "/v1/responses", "yours", follow.clone()).await.status, 404);
    assert_eq!(server.as_client("POST", "/v1/responses", "mine", follow).await.status, 200);
    assert_eq!(server.as_client("GET", &path, "mine", json!({})).await.status, 200);
}

#[tokio::test]
async fn many_at_once() {
    let server = server("hello");
    let first = server.respond(json!({})).await.json()["id"].as_str().unwrap().to_owned();
    let turns = (0..40).map(|number: usize| {
        let (server, first, kept) = (&server, &first, number.is_multiple_of(2));
        async move {
            let follow = json!({ "previous_response_id": first, "input": format!("{number}"), "store": kept,
                "stream": number.is_multiple_of(3) });
            let reply = server.respond(follow).await;
            if number == 20 {
                assert_eq!(server.delete(&format!("/v1/responses/{first}")).await.status, 200);
            }
            if reply.status == 404 {
                // Number 20 was faster.
                assert_eq!(reply.error().2, json!("previous_response_not_found"));
                return false;
            }
            let body = match number % 3 {
                0 => events(&reply.body).pop().unwrap()["response"].clone(),
                _ => reply.json(),
            };
            let path = format!("/v1/responses/{}", body["id"].as_str().unwrap());
            let status = if kept { 200 } else { 404 };
            assert_eq!(
                (server.get(&path).await.status.as_u16(), server.delete(&path).await.status.as_u16()),
                (status, status)
            );
            true
        }
    });
    let done = futures_util::future::join_all(turns).await;
    assert!(done.iter().filter(|&&followed| followed).count() >= 20, "{done:?}");
    assert_eq!(server.get(&format!("/v1/responses/{first}")).await.status, 404);
    server.idle().await;
}

#[tokio::test]
async fn one_in_the_background_goes_on_by_itself() {
    let server = slow();
    let begun = server.respond(json!({ "background": true, "ignore_eos": true, "max_output_tokens": 20 })).await;
    let begun = begun.json();
    assert_eq!(
        (&begun["status"], &begun["background"], &begun["output"]),
        (&json!("queued"), &json!(true), &json!([]))
    );
    let path = format!("/v1/responses/{}", begun["id"].as_str().unwrap());
    let follow = server.respond(json!({ "previous_response_id": begun["id"] })).await;
    assert_eq!((follow.status.as_u16(), follow.error().1), (400, json!("previous_response_id")));
    let mut seen = vec!["queued".to_owned()];
    loop {
        let now = server.get(&path).await.json();
        let status = now["status"].as_str().unwrap().to_owned();
        if *seen.last().unwrap() != status {
            seen.push(status.clone());
        }
        if status == "incomplete" {
            assert_eq!(now["usage"]["output_tokens"], 20);
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(seen, ["queued", "in_progress", "incomplete"]);
    let reply = server.post(&format!("{path}/cancel"), "").await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (400, json!("response_ended")));
    assert_eq!(server.get(&format!("{path}?stream=true")).await.error().1, json!("stream"));
    server.idle().await;
}

#[tokio::test]
async fn one_in_the_background_is_cancelled_or_deleted() {
    let server = slow();
    let endless = json!({ "background": true, "ignore_eos": true, "max_output_tokens": 190 });
    for cancel in [true, false] {
        let id = server.respond(endless.clone()).await.json()["id"].as_str().unwrap().to_owned();
        running(&server).await;
        let path = format!("/v1/responses/{id}");
        if cancel {
            let body = server.post(&format!("{path}/cancel"), "").await.json();
            assert_eq!((&body["id"], &body["status"]), (&json!(id), &json!("cancelled")));
            assert_eq!(server.get(&path).await.json(), body);
            assert_eq!(server.post(&format!("{path}/cancel"), "").await.json(), body, "twice is once");
        } else {
            assert_eq!(server.delete(&path).await.status, 200);
        }
        server.idle().await;
        assert_eq!(server.get(&path).await.status, if cancel { 200 } else { 404 });
    }
    assert_eq!(server.model.engine.stats().aborted, 2);
    assert!(server.probe.steps.load(Relaxed) < 300, "the work went on");
}

async fn running(server: &Server) {
    while server.model.engine.stats().running == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A stream under way, with the id of its response.
async fn under_way(server: &Server, store: bool) -> (String, Response) {
    let body = json!({ "model": "tiny", "input": "hi", "stream": true, "ignore_eos": true, "max_output_tokens": 190,
        "store": store });
    let request = Request::post("/v1/responses").body(Body::from(body.to_string())).unwrap();
    let mut response = server.router.clone().oneshot(request).await.unwrap();
    let frame = std::future::poll_fn(|cx| std::pin::Pin::new(response.body_mut()).poll_frame(cx)).await;
    let bytes = frame.unwrap().unwrap().into_data().unwrap();
    let first = &events(&String::from_utf8(bytes.to_vec()).unwrap())[0];
    (first["response"]["id"].as_str().unwrap().to_owned(), response)
}

#[tokio::test]
async fn a_stream_is_cancelled_by_its_id() {
    let server = slow();
    for store in [true, false] {
        let (id, response) = under_way(&server, store).await;
        let path = format!("/v1/responses/{id}");
        assert_eq!(server.get(&path).await.status, if store { 200 } else { 404 });
        let cancel_path = format!("{path}/cancel");
        let cancel = server.post(&cancel_path, "");
        let (cancelled, rest) = tokio::join!(cancel, axum::body::to_bytes(response.into_body(), usize::MAX));
        let cancelled = cancelled.json();
        assert_eq!((&cancelled["id"], &cancelled["status"]), (&json!(id), &json!("cancelled")));
        let rest = String::from_utf8(rest.unwrap().to_vec()).unwrap();
        let last = rest.trim_end().rsplit_once("data: ").unwrap().1;
        let last: Value = serde_json::from_str(last).unwrap();
        assert_eq!((&last["type"], &last["response"]), (&json!("response.incomplete"), &cancelled));
        server.idle().await;
    }
}

#[tokio::test]
async fn a_client_that_goes_away_cancels_its_response() {
    let server = slow();
    let (id, response) = under_way(&server, true).await;
    drop(response);
    server.idle().await;
    let body = server.get(&format!("/v1/responses/{id}")).await.json();
    assert_eq!((&body["status"], &body["usage"]), (&json!("cancelled"), &Value::Null));
}

#[tokio::test]
async fn an_engine_failure_is_said_in_every_form() {
    let failing = |at: u64| {
        let config = FakeConfig { fail_at: [at].into(), script: vec![104, 105], ..fake() };
        server_of(config, EngineConfig::default(), App::new(HttpConfig::default()))
    };
    let reply = failing(2).respond(json!({ "max_output_tokens": 9 })).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (500, json!("engine_error")));

    let error = json!({ "code": "server_error", "message": "the fake was told to fail at step 2" });
    let server = failing(2);
    let events = server.stream(json!({ "max_output_tokens": 9 })).await;
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["response"]["error"]), (&json!("response.failed"), &error));
    assert_eq!(last["response"]["output"][0]["status"], "incomplete");
    let (message, ..) = server.respond(json!({ "previous_response_id": last["response"]["id"] })).await.error();
    assert!(message.ends_with("has failed: there is nothing to go on from"), "{message}");

    let server = failing(2);
    let id = server.respond(json!({ "max_output_tokens": 9, "background": true })).await.json()["id"].clone();
    server.idle().await;
    let body = loop {
        let body = server.get(&format!("/v1/responses/{}", id.as_str().unwrap())).await.json();
        if body["status"] != "queued" && body["status"] != "in_progress" {
            break body;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    assert_eq!((&body["status"], &body["error"]), (&json!("failed"), &error));
}

#[tokio::test]
async fn truncation_leaves_out_the_oldest() {
    let server = server("hello");
    let mut input = vec![json!({ "role": "developer", "content": "stay" })];
    for turn in 0..20 {
        input.push(json!({ "role": "user", "content": format!("question {turn:02}") }));
        input.push(json!({ "role": "assistant", "content": format!("answer {turn:02}") }));
    }
    input.push(json!({ "role": "user", "content": "the last" }));
    let fields = json!({ "input": input, "max_output_tokens": 50 });
    let (_, param, code) = server.respond(fields.clone()).await.error();
    assert_eq!((param, code), (json!("input"), json!("context_length_exceeded")));
    let body = server.respond(merged(fields, json!({ "truncation": "auto" }))).await.json();
    let turn = "user:question 19;assistant:answer 19;".len();
    let ends = "system:stay;user:the last;>".len();
    // As many turns as fit into 150 tokens.
    assert_eq!(body["usage"]["input_tokens"], ends + (150 - ends) / turn * turn);
    // What never fits is refused.
    let huge = json!({ "input": "x".repeat(300), "truncation": "auto" });
    assert_eq!(server.respond(huge).await.error().2, json!("context_length_exceeded"));
}
