//! Speech over a model that speaks without a model.

use std::{collections::HashSet, time::Duration};

use axum::{body::Body, http::Request};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use vllm_platform::testing::FakeSynthesizerConfig;

use crate::support::{Reply, Server, merged, server, speech::speaking};

fn mouth() -> Server {
    let server = server("hello");
    speaking(&server, FakeSynthesizerConfig::default());
    server
}

async fn bytes(server: &Server, fields: Value) -> (u16, String, Vec<u8>) {
    let body = merged(json!({ "model": "mouth", "input": "Hello there. How are you?", "voice": "af_heart" }), fields);
    ask(server, Request::post("/v1/audio/speech").body(Body::from(body.to_string())).unwrap()).await
}

/// Status, content type and bytes of an answer, whatever they are.
async fn ask(server: &Server, request: Request<Body>) -> (u16, String, Vec<u8>) {
    let response = server.router.clone().oneshot(request).await.unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    let status = response.status().as_u16();
    (status, kind, axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap().to_vec())
}

async fn speak(server: &Server, fields: Value) -> Reply {
    let body = merged(json!({ "model": "mouth", "input": "Hello there.", "voice": "af_heart" }), fields);
    server.post("/v1/audio/speech", &body.to_string()).await
}

#[tokio::test]
async fn every_format_holds_the_same_sound() {
    let server = mouth();
    let (_, _, pcm) = bytes(&server, json!({ "response_format": "pcm" })).await;
    let samples = pcm.len() / 2;
    assert!(samples > 24_000 / 4, "{samples}");
    // (format, content type, samples that may be missing or too many)
    let cases = [
        (json!("wav"), "audio/wav", 0),
        (json!("flac"), "audio/flac", 0),
        (json!("mp3"), "audio/mpeg", 3000),
        (json!("opus"), "audio/ogg; codecs=opus", 3000),
        (json!("pcm"), "audio/pcm", 0),
        (Value::Null, "audio/mpeg", 3000),
    ];
    for (format, kind, slack) in cases {
        let (status, found, file) = bytes(&server, json!({ "response_format": format })).await;
        assert_eq!((status, found.as_str()), (200, kind), "{format}");
        if kind != "audio/pcm" {
            let sound = vllm_audio::decode(std::io::Cursor::new(file), None, &Default::default()).unwrap();
            let at_24k = sound.samples.len() * 24_000 / sound.rate as usize;
            assert!(at_24k.abs_diff(samples) <= slack, "{format}: {at_24k}, not {samples}");
        }
    }
}

#[tokio::test]
async fn events_hold_the_same_bytes() {
    let server = mouth();
    let (_, _, pcm) = bytes(&server, json!({ "response_format": "pcm" })).await;
    let body = json!({ "model": "mouth", "input": "Hello there. How are you?", "voice": "af_heart",
        "response_format": "pcm", "stream_format": "sse" });
    let events = server.post("/v1/audio/speech", &body.to_string()).await.events();
    let (done, deltas) = events.split_last().unwrap();
    assert!(deltas.len() >= 2, "an event a sentence");
    let decoded = deltas.iter().flat_map(|event| {
        assert_eq!(event["type"], "speech.audio.delta");
        BASE64_STANDARD.decode(event["audio"].as_str().unwrap()).unwrap()
    });
    assert_eq!(decoded.collect::<Vec<u8>>(), pcm);
    assert_eq!(done["type"], "speech.audio.done");
    let usage = &done["usage"];
    assert!(usage["input_tokens"].as_u64() > Some(10) && usage["total_tokens"] == usage["input_tokens"], "{done}");
}

#[tokio::test]
async fn voices_speeds_and_the_originals_query() {
    let server = mouth();
    let pcm = json!({ "response_format": "pcm" });
    let (_, _, usual) = bytes(&server, pcm.clone()).await;
    assert_eq!(bytes(&server, merged(pcm.clone(), json!({ "voice": null }))).await.2, usual, "the default voice");
    assert_eq!(bytes(&server, merged(pcm.clone(), json!({ "voice": { "id": "af_heart" } }))).await.2, usual);
    assert_eq!(bytes(&server, merged(pcm.clone(), json!({ "model": "kokoro" }))).await.2, usual, "the original's name");
    for other in ["am_adam", "af_heart+am_adam", "af_heart(3)+am_adam(1)"] {
        assert_ne!(bytes(&server, merged(pcm.clone(), json!({ "voice": other }))).await.2, usual, "{other}");
    }
    let fast = bytes(&server, merged(pcm, json!({ "speed": 2 }))).await.2;
    assert_eq!(fast.len() * 2, usual.len());
    let query = "model=kokoro&input=Hello%20there.%20How%20are%20you?&voice=af_heart&response_format=pcm&speed=1";
    let request = Request::post(format!("/v1/audio/speech?{query}")).body(Body::empty()).unwrap();
    assert_eq!(ask(&server, request).await.2, usual);

    let listed = server.get("/v1/audio/voices").await.json();
    assert_eq!((&listed["voices"], &listed["default"]), (&json!(["af_heart", "am_adam"]), &json!("af_heart")));
    let adam = json!({ "id": "am_adam", "language": "en-US", "gender": "male" });
    assert_eq!(listed["details"][1], adam);
    assert_eq!(server.get("/v1/audio/voices?model=kokoro").await.json(), listed);
    assert_eq!(server.get("/v1/audio/voices?model=none").await.status, 404);
    assert_eq!(server.get("/v1/audio/voices?model=tiny").await.status, 400);
}

#[tokio::test]
async fn bad_requests_are_named() {
    let server = mouth();
    let long = "word ".repeat(1000);
    // (fields, status, what the message says, param)
    let cases = [
        (json!({ "voice": "af_nobody" }), 400, "af_nobody", "voice"),
        (json!({ "voice": "af_heart(" }), 400, "is no voice", "voice"),
        (json!({ "input": "" }), 400, "input is blank", "input"),
        (json!({ "input": "*** ---" }), 400, "nothing in the text can be said", "input"),
        (json!({ "input": long }), 413, "5000 characters", "input"),
        (json!({ "response_format": "aac" }), 400, "aac", "response_format"),
        (json!({ "speed": 9 }), 400, "speed is 9", "speed"),
        (json!({ "lang_code": "x" }), 400, "it must be a letter of Kokoro's", "lang_code"),
        (json!({ "instructions": "Whisper." }), 400, "can't be told", "instructions"),
        (json!({ "pitch": 1 }), 400, "there is no field \"pitch\"", "pitch"),
        (json!({ "model": "tiny" }), 400, "does not speak", "model"),
        (json!({ "model": "tts-1" }), 404, "this server has tiny, org/tiny, mouth", "model"),
        (json!({ "timeout": -1 }), 400, "timeout is -1", "timeout"),
    ];
    for (fields, status, wanted, param) in cases {
        let reply = speak(&server, fields.clone()).await;
        let (message, found, _) = reply.error();
        assert_eq!((reply.status.as_u16(), found), (status, json!(param)), "{fields}: {message}");
        assert!(message.contains(wanted), "{fields}: {message}");
    }
    let reply = server.post("/v1/audio/speech", "[]").await;
    assert_eq!(reply.status, 400);
    let chat = json!({ "model": "mouth", "messages": [{ "role": "user", "content": "hi" }] });
    let reply = server.post("/v1/chat/completions", &chat.to_string()).await;
    assert!(reply.error().0.contains("it is served at /v1/audio/speech"), "{}", reply.body);
}

#[tokio::test]
async fn failures_before_and_after_the_first_bytes() {
    let server = server("hello");
    speaking(&server, FakeSynthesizerConfig { fail_at: HashSet::from([0, 2, 4]), ..Default::default() });
    let reply = speak(&server, json!({})).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (500, json!("engine_error")));
    // The second sentence fails: the first was sent already, as an event with an error behind it.
    let two = json!({ "input": "Hello there. How are you?", "stream_format": "sse", "response_format": "pcm" });
    let events = speak(&server, two.clone()).await.events();
    assert_eq!((events.len(), &events[1]["error"]["code"]), (2, &json!("engine_error")), "{events:?}");
    // Or as bytes: nobody may take them for the whole.
    let body = merged(json!({ "model": "mouth" }), merged(two, json!({ "stream_format": "audio" })));
    let request = Request::post("/v1/audio/speech").body(Body::from(body.to_string())).unwrap();
    let response = server.router.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(axum::body::to_bytes(response.into_body(), usize::MAX).await.is_err());
    let metrics = server.get("/metrics").await.body;
    for line in [
        "endpoint=\"audio_speech\",stream=\"true\",result=\"error\"} 3",
        "vllm_mlx_speech_utterances_total{model=\"mouth\"} 2",
    ] {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }
    assert_eq!(server.get("/v1/status").await.json()["speakers"][0]["total_requests_failed"], 3);
}

#[tokio::test]
async fn a_client_that_goes_away_is_not_spoken_for() {
    let server = server("hello");
    let probe = speaking(&server, FakeSynthesizerConfig { delay: Duration::from_millis(20), ..Default::default() });
    let many = "Hello there, you. ".repeat(200);
    let first = async {
        while probe.calls.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        reply = speak(&server, json!({ "input": many })) => panic!("it takes seconds: {}", reply.body),
        () = first => {}
    }
    loop {
        let status = server.get("/v1/status").await.json();
        if status["speakers"][0]["total_requests_cancelled"] == 1 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(probe.calls.load(std::sync::atomic::Ordering::Relaxed) < 100, "half of it at most");
}
