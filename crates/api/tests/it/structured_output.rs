//! Structured output over a fake engine, whose model would rather write something else.

use serde_json::{Value, json};

use crate::support::server_in;

fn person() -> Value {
    json!({ "type": "object", "required": ["name", "age"], "additionalProperties": false, "properties": {
        "name": { "type": "string", "maxLength": 12 }, "age": { "type": "integer", "minimum": 0, "maximum": 150 } } })
}

fn is_person(text: &str) -> bool {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return false };
    value["name"].is_string() && value["age"].as_u64().is_some_and(|age| age <= 150)
}

#[tokio::test]
async fn every_format_is_kept_to_however_it_is_asked_for() {
    let server = server_in("Well, here you are: 12 or so.", None, None);
    let schema = json!({ "name": "person", "strict": true, "schema": person() });
    let is_object = |text: &str| serde_json::from_str::<Value>(text).is_ok_and(|value| value.is_object());
    type Check<'a> = &'a dyn Fn(&str) -> bool;
    let cases: [(&str, Value, Check<'_>); 12] = [
        ("json_schema", json!({ "response_format": { "type": "json_schema", "json_schema": schema } }), &is_person),
        ("json_object", json!({ "response_format": { "type": "json_object" } }), &is_object),
        ("guided_json", json!({ "guided_json": person() }), &is_person),
        ("guided_json as text", json!({ "guided_json": person().to_string() }), &is_person),
        ("guided_choice", json!({ "guided_choice": ["red", "green"] }), &|text| ["red", "green"].contains(&text)),
        ("guided_regex", json!({ "guided_regex": "[0-9]{3}-[a-c]" }), &|text| text.len() == 5 && text.contains('-')),
        ("guided_grammar", json!({ "guided_grammar": "start: \"yes\" | \"no\"" }), &|text| {
            ["yes", "no"].contains(&text)
        }),
        ("gbnf", json!({ "guided_grammar": "root ::= \"yes\" | \"no\"" }), &|text| ["yes", "no"].contains(&text)),
        ("structured_outputs json", json!({ "structured_outputs": { "json": person() } }), &is_person),
        ("structured_outputs regex", json!({ "structured_outputs": { "regex": "a+b" } }), &|text| text.ends_with('b')),
        ("structured_outputs choice", json!({ "structured_outputs": { "choice": ["x"] } }), &|text| text == "x"),
        ("structured_outputs json_object", json!({ "structured_outputs": { "json_object": true } }), &is_object),
    ];
    for (name, fields, is_right) in cases {
        for temperature in [0.0, 2.0] {
            let more = json!({ "temperature": temperature, "seed": 5, "max_tokens": 1500 });
            let reply = server.chat(crate::support::merged(fields.clone(), more)).await;
            assert_eq!(reply.status, 200, "{name}: {}", reply.body);
            let choice = reply.json()["choices"][0].clone();
            let text = choice["message"]["content"].as_str().unwrap();
            if choice["finish_reason"] == "stop" {
                assert!(is_right(text), "{name}: {text:?}");
            } else {
                assert!(name.contains("json_object"), "{name} does not end: {text:?}");
            }
        }
    }
    server.idle().await;
}

#[tokio::test]
async fn streams_choices_and_batches_have_grammars_of_their_own() {
    let server = server_in("anything", None, None);
    let format = json!({ "type": "json_schema", "json_schema": { "schema": person() } });
    let fields = json!({ "response_format": format, "n": 4, "temperature": 2.0, "seed": 3, "max_tokens": 400 });
    let many = (0..4).map(|_| server.chat(fields.clone()));
    for reply in futures_util::future::join_all(many).await {
        for choice in reply.json()["choices"].as_array().unwrap() {
            let text = choice["message"]["content"].as_str().unwrap();
            assert!(choice["finish_reason"] == "length" || is_person(text), "{text:?}");
        }
    }
    let stream = json!({ "response_format": format, "stream": true, "max_tokens": 400 });
    let events = server.chat(stream).await.events();
    let text: String = events.iter().filter_map(|e| e["choices"][0]["delta"]["content"].as_str()).collect();
    assert!(is_person(&text), "{text:?}");
    // Plain completions, too.
    let reply = server.complete(json!({ "guided_choice": ["left", "right"] })).await.json();
    assert!(["left", "right"].contains(&reply["choices"][0]["text"].as_str().unwrap()), "{reply}");
}

#[tokio::test]
async fn what_is_cut_off_says_so() {
    let server = server_in("anything", None, None);
    let fields = json!({ "guided_json": person(), "max_tokens": 5 });
    let choice = server.chat(fields).await.json()["choices"][0].clone();
    assert_eq!(choice["finish_reason"], "length");
    assert!(choice["message"]["content"].as_str().unwrap().starts_with('{'));
}

#[tokio::test]
async fn what_cannot_be_followed_is_refused_in_time() {
    let server = server_in("anything", None, None);
    let deep = (0..200).fold(json!({ "type": "string" }), |inner, _| json!({ "type": "array", "items": inner }));
    let wide = json!({ "enum": (0..400_000).map(|n| format!("value number {n}")).collect::<Vec<_>>() });
    let cases = [
        ("unsatisfiable", json!({ "guided_json": { "enum": [] } })),
        ("false", json!({ "guided_json": false })),
        ("remote reference", json!({ "guided_json": { "$ref": "http://example.com/schema" } })),
        ("unknown reference", json!({ "guided_json": { "$ref": "#/nowhere" } })),
        ("no schema", json!({ "guided_json": { "type": "animal" } })),
        ("regex that explodes", json!({ "guided_regex": "((a{1000}){1000}){1000}" })),
        ("look-around", json!({ "guided_regex": "(?=a)b" })),
        ("no regex", json!({ "guided_regex": "(" })),
        ("no grammar", json!({ "guided_grammar": "start: nothing" })),
        ("very wide", json!({ "guided_json": wide })),
    ];
    for (name, fields) in cases {
        let start = std::time::Instant::now();
        let reply = server.chat(fields).await;
        assert_eq!(reply.status, 400, "{name}: {}", &reply.body[..reply.body.len().min(300)]);
        assert_eq!(reply.error().2, json!("invalid_grammar"), "{name}");
        assert!(reply.body.len() < 2000, "{name}");
        assert!(start.elapsed().as_secs() < 20, "{name}: {:?}", start.elapsed());
    }
    // Deep is no reason to fall over, whatever comes of it.
    let reply = server.chat(json!({ "guided_json": deep, "max_tokens": 3 })).await;
    assert!([200, 400].contains(&reply.status.as_u16()), "{}", reply.body);
    server.idle().await;
}
