//! `/v1/responses` over a fake engine.

use std::time::Duration;

use serde_json::{Value, json};
use vllm_api::http::{App, HttpConfig};
use vllm_platform::testing::FakeConfig;
use vllm_scheduler::EngineConfig;

use crate::support::{
    EOS,
    asking::{thinker, without_ids},
    fake, merged, server, server_of, server_with,
};

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
async fn text_keeps_to_its_format() {
    let server = server("hello");
    let format = |schema: Value| json!({ "text": { "format": { "type": "json_schema", "name": "x", "schema": schema } }, "max_output_tokens": 50 });
    let body = server.respond(format(json!({ "const": "yes" }))).await.json();
    assert_eq!((&body["output"][0]["content"][0]["text"], &body["status"]), (&json!("\"yes\""), &json!("completed")));
    assert_eq!(body["text"]["format"]["schema"], json!({ "const": "yes" }));
    let (message, param, _) = server.respond(format(json!({ "type": "nonsense" }))).await.error();
    assert_eq!(param, json!("text.format"));
    assert!(!message.contains("response_format"), "{message}");
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
