//! What becomes of responses: conversations, the store, the background, cancelling.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    body::{Body, HttpBody as _},
    http::Request,
    response::Response,
};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{
    Server,
    asking::{events, slow, thinker, without_ids},
    merged, server,
};

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
            assert_eq!(reply.status, 200, "{}", reply.body);
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
        }
    });
    futures_util::future::join_all(turns).await;
    assert_eq!(server.delete(&format!("/v1/responses/{first}")).await.status, 200, "it is still there");
    server.idle().await;
}

#[tokio::test]
async fn one_in_the_background_goes_on_by_itself() {
    let server = slow();
    let begun = server.respond(json!({ "background": true, "ignore_eos": true, "max_output_tokens": 100 })).await;
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
            assert_eq!(now["usage"]["output_tokens"], 100);
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
    let first = &events(std::str::from_utf8(&bytes).unwrap())[0];
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
