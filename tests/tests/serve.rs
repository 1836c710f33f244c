//! The server on a real model: answers, streams, refuses, survives, drains.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vllm_tests::{Server, smollm2};

fn chat(content: &str, max_tokens: usize) -> Value {
    json!({"model": "smollm2", "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens, "temperature": 0})
}

fn server() -> Server {
    Server::smollm2(&["--served-model-name", "smollm2"])
}

#[test]
fn answers_streams_and_counts_alike() {
    let server = server();
    let request = chat("What is the capital of France?", 24);
    let (status, whole) = server.post("/v1/chat/completions", &request);
    assert_eq!(status, 200, "{whole}");
    let text = whole["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(text.contains("Paris"), "{text}");

    let mut streaming = request;
    streaming["stream"] = json!(true);
    streaming["stream_options"] = json!({"include_usage": true});
    let events = server.stream("/v1/chat/completions", &streaming);
    assert_eq!(events.last().map(String::as_str), Some("[DONE]"));
    let chunks: Vec<Value> =
        events[..events.len() - 1].iter().map(|e| serde_json::from_str(e).expect("JSON")).collect();
    let streamed: String = chunks.iter().filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
    assert_eq!(streamed, text);
    let last = chunks.last().expect("a usage chunk");
    assert_eq!(last["usage"]["completion_tokens"], whole["usage"]["completion_tokens"]);
    assert_eq!(last["usage"]["prompt_tokens"], whole["usage"]["prompt_tokens"]);
    assert!(chunks.iter().all(|c| c["id"] == chunks[0]["id"]), "one id for one answer");

    let (status, models) = server.get("/v1/models").expect("an answer");
    assert_eq!((status, models["data"][0]["id"].as_str()), (200, Some("smollm2")));
}

#[test]
fn answers_are_the_same_alone_and_together() {
    let server = server();
    let prompts = ["Count to ten.", "Name three colours.", "What is water made of? Answer at length.", "Say hi."];
    let alone: Vec<_> = prompts.iter().map(|p| server.post("/v1/chat/completions", &chat(p, 32)).1).collect();
    let together: Vec<_> = thread::scope(|scope| {
        let tasks: Vec<_> =
            prompts.iter().map(|p| scope.spawn(|| server.post("/v1/chat/completions", &chat(p, 32)).1)).collect();
        tasks.into_iter().map(|task| task.join().expect("a finished request")).collect()
    });
    for ((prompt, a), b) in prompts.iter().zip(&alone).zip(&together) {
        assert_eq!(a["choices"], b["choices"], "{prompt}");
    }
}

#[test]
fn health_answers_while_the_model_loads() {
    let mut server = Server::start(smollm2().to_str().expect("UTF-8"), &["--served-model-name", "smollm2"]);
    let start = Instant::now();
    let mut statuses = Vec::new();
    while start.elapsed() < Duration::from_secs(60) && statuses.last() != Some(&200) {
        if let Ok((status, body)) = server.get("/health") {
            if status != 200 {
                assert_eq!((status, body["status"].as_str()), (503, Some("loading")), "{body}");
            }
            statuses.push(status);
        }
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(statuses.last(), Some(&200), "{}", server.log());
    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn a_server_whose_model_is_missing_exits_with_one_line() {
    let mut server = Server::start("/no/such/model", &[]);
    assert_eq!(server.wait_exit(), Some(1));
    assert!(server.log().contains("/no/such/model"), "{}", server.log());
}

#[test]
fn bad_requests_get_openai_errors_and_the_server_lives_on() {
    let server = server();
    let with = |key: &str, value: Value| {
        let mut request = chat("hi", 4);
        request[key] = value;
        request
    };
    let long = "word ".repeat(9000);
    let cases: Vec<(&str, u16, &str, Value)> = vec![
        ("unknown model", 404, "model", with("model", json!("gpt-9"))),
        ("negative temperature", 400, "temperature", with("temperature", json!(-1))),
        ("absurd temperature", 400, "temperature", with("temperature", json!(1e9))),
        ("top_p of two", 400, "top_p", with("top_p", json!(2))),
        ("max_tokens of zero", 400, "max_tokens", with("max_tokens", json!(0))),
        ("negative max_tokens", 400, "max_tokens", with("max_tokens", json!(-5))),
        ("temperature of text", 400, "temperature", with("temperature", json!("hot"))),
        ("messages of text", 400, "messages", with("messages", json!("hi"))),
        ("no messages", 400, "messages", with("messages", json!([]))),
        (
            "an image",
            400,
            "text",
            with(
                "messages",
                json!([{"role": "user", "content":
            [{"type": "image_url", "image_url": {"url": "data:image/png;base64,"}}]}]),
            ),
        ),
        ("prompt beyond the context", 400, "8192", chat(&long, 4)),
        ("answer beyond the context", 400, "8192", chat("hi", 9000)),
    ];
    for (case, wanted, word, request) in cases {
        let (status, body) = server.post("/v1/chat/completions", &request);
        assert_eq!(status, wanted, "{case}: {body}");
        let error = &body["error"];
        assert!(error["message"].is_string() && error["type"].is_string(), "{case}: {body}");
        assert!(error.to_string().contains(word), "{case}: {body}");
    }
    for (case, body) in
        [("broken JSON", &b"{\"model\": "[..]), ("invalid UTF-8", b"{\"model\": \"\xff\"}"), ("nothing", b"")]
    {
        let (status, answer) = server.post_bytes("/v1/chat/completions", body);
        assert_eq!(status, 400, "{case}: {answer}");
        assert!(answer["error"]["message"].is_string(), "{case}: {answer}");
    }
    let (status, body) = server.get("/v1/nothing").expect("an answer");
    assert!(status == 404 && body["error"]["message"].is_string(), "{body}");
    let (status, body) = server.post("/v1/chat/completions", &chat("Say hi.", 4));
    assert_eq!(status, 200, "{body}");
}

/// Opens a streaming chat of many tokens and reads until its first event.
fn open_stream(server: &Server) -> TcpStream {
    let mut request = chat("Write a very long story about a whale.", 1500);
    request["stream"] = json!(true);
    let body = request.to_string();
    let mut socket = TcpStream::connect(("127.0.0.1", server.port())).expect("a connection");
    write!(
        socket,
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .expect("a sent request");
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("\"content\"") {
        let mut buffer = [0; 4096];
        let n = socket.read(&mut buffer).expect("events");
        assert!(n > 0, "closed after {}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&buffer[..n]);
    }
    socket
}

#[test]
fn a_client_that_leaves_stops_its_work() {
    let server = server();
    let running = || server.get("/health").expect("an answer").1["requests"]["running"].as_u64();
    let socket = open_stream(&server);
    assert_eq!(running(), Some(1));
    drop(socket);
    let start = Instant::now();
    // 1,500 tokens take many times as long as this allows only if nobody stops them.
    while running() != Some(0) {
        assert!(start.elapsed() < Duration::from_secs(5), "the request still runs");
        thread::sleep(Duration::from_millis(10));
    }
    let (_, status) = server.get("/v1/status").expect("an answer");
    assert_eq!(status["cache"]["in_use_memory_mb"], 0.0, "its blocks are not free: {status}");
}

#[test]
fn sigterm_lets_running_requests_finish() {
    let mut server = server();
    let answer = thread::scope(|scope| {
        let task = scope.spawn(|| server.post("/v1/chat/completions", &chat("Count to fifty.", 120)));
        while server.get("/health").expect("an answer").1["requests"]["running"].as_u64() != Some(1) {
            thread::sleep(Duration::from_millis(2));
        }
        server.signal("TERM");
        task.join().expect("a finished request")
    });
    assert_eq!(answer.0, 200, "{}", answer.1);
    assert!(answer.1["usage"]["completion_tokens"].as_u64() > Some(10), "{}", answer.1);
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn completions_take_text_and_token_ids() {
    let server = server();
    let request = |prompt: Value| json!({"model": "smollm2", "prompt": prompt, "max_tokens": 8, "temperature": 0});
    let (status, text) = server.post("/v1/completions", &request(json!("The capital of France is")));
    assert_eq!(status, 200, "{text}");
    assert!(text["choices"][0]["text"].as_str().is_some_and(|t| t.contains("Paris")), "{text}");
    let (status, batch) = server.post("/v1/completions", &request(json!(["The capital of France is", "One, two,"])));
    assert_eq!(status, 200, "{batch}");
    assert_eq!(batch["choices"][0]["text"], text["choices"][0]["text"]);
    assert_eq!(batch["choices"][1]["index"], 1);
    // "The" twice, by its ids' own round trip: any ids in range are a prompt.
    let (status, ids) = server.post("/v1/completions", &request(json!([504, 3575])));
    assert_eq!(status, 200, "{ids}");
    assert_eq!(ids["usage"]["prompt_tokens"], 2);
    let (status, beyond) = server.post("/v1/completions", &request(json!([4_000_000])));
    assert_eq!(status, 400, "{beyond}");
}

#[test]
fn warm_prompts_are_found_by_the_first_request() {
    let file = std::env::temp_dir().join(format!("vllm-mlx-warm-{}.json", std::process::id()));
    let system = json!({ "role": "system", "content": "You answer in rhymes. ".repeat(20) });
    std::fs::write(&file, json!([[system]]).to_string()).expect("a file");
    let server = Server::smollm2(&["--warm-prompts", &file.display().to_string()]);
    let start = Instant::now();
    while !server.log().contains("warm prompts are computed") {
        assert!(start.elapsed().as_secs() < 60, "{}", server.log());
        thread::sleep(Duration::from_millis(50));
    }
    let (_, models) = server.get("/v1/models").expect("an answer");
    let messages = json!([system, { "role": "user", "content": "Hello" }]);
    let body = json!({ "model": models["data"][0]["id"], "messages": messages, "max_tokens": 1 });
    let (status, answer) = server.post("/v1/chat/completions", &body);
    assert_eq!(status, 200, "{answer}");
    let cached = answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().expect("a count");
    assert!(cached > 100, "{answer}");
    let _ = std::fs::remove_file(file);
}
