//! Images and videos in requests, over fake engines.

use std::{fs, sync::atomic::Ordering::Relaxed, time::Duration};

use serde_json::{Value, json};
use vllm_api::http::{HttpConfig, MediaLimits};
use vllm_platform::testing::FakeVisionConfig;

use crate::support::{
    Server,
    seeing::{IMAGE_PAD, Seeing, VIDEO_PAD, bmp, data_url, image_url, seeing, user},
    server,
};

fn usual() -> Seeing {
    seeing(FakeVisionConfig::default(), HttpConfig::default(), None)
}

fn red() -> String {
    data_url(&bmp(16, 24, [255, 0, 0]))
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

/// `prompt_tokens_details` of an answer that is complete.
async fn ask(server: &Server, fields: Value) -> Value {
    let reply = server.chat(fields).await;
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    assert_eq!(body["choices"][0]["message"]["content"], "ok", "{body}");
    body["usage"]["prompt_tokens_details"].clone()
}

#[tokio::test]
async fn an_image_is_looked_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let Seeing { server, eyes } = seeing(FakeVisionConfig::default(), HttpConfig::default(), Some(folder.path()));
    // 16 by 24 pixels are 2 by 3 tokens.
    let first = ask(&server, user(json!([image_url(&red()), text("what is it?")]))).await;
    assert_eq!(first, json!({ "cached_tokens": 0, "image_tokens": 6, "video_tokens": 0, "cached_media_tokens": 0 }));
    let again = ask(&server, user(json!([image_url(&red()), text("what is it?")]))).await;
    assert!(again["cached_tokens"].as_u64().unwrap() > 6, "{again}");
    assert_eq!((&again["image_tokens"], &again["cached_media_tokens"]), (&json!(6), &json!(6)));
    // After other words its KV is of no use, but what was seen is.
    let elsewhere = ask(&server, user(json!([text("no: "), image_url(&red())]))).await;
    assert_eq!(elsewhere["cached_media_tokens"], 6, "{elsewhere}");
    // The same pixels in another file, which has something after them.
    let file = folder.path().join("red.bmp");
    fs::write(&file, [bmp(16, 24, [255, 0, 0]), b"more".to_vec()].concat()).unwrap();
    let url = format!("file://{}", file.display());
    let wrapped = ask(&server, user(json!([image_url(&url), text("what is it?")]))).await;
    assert_eq!(wrapped["cached_tokens"], again["cached_tokens"], "{wrapped}");
    assert_eq!(eyes.calls.load(Relaxed), 1);
    let other = ask(&server, user(json!([image_url(&data_url(&bmp(16, 24, [254, 0, 0])))]))).await;
    assert_eq!((other["cached_media_tokens"].clone(), eyes.calls.load(Relaxed)), (json!(0), 2));

    let stats = server.get("/v1/cache/stats").await.json();
    let vision = &stats["vision"];
    assert_eq!((&vision["encoder_runs"], &vision["entry_count"], &vision["hits"]), (&json!(2), &json!(2), &json!(1)));
    assert!(vision["bytes"].as_u64().unwrap() > 0 && vision["max_bytes"] == 512 << 20, "{vision}");
    assert!(stats["engine_cache"]["media_tokens_saved"].as_u64().unwrap() >= 6, "{stats}");
    assert_eq!(stats["decoded_media"]["entry_count"], 3, "{stats}");
    let metrics = server.get("/metrics").await.body;
    assert!(metrics.contains("vllm_mlx_vision_encoder_runs_total{model_name=\"tiny\"} 2"), "{metrics}");

    let cleared = server.delete("/v1/cache").await.json();
    assert_eq!((&cleared["pictures"], &cleared["vision"]["entry_count"]), (&json!(2), &json!(0)), "{cleared}");
    let forgotten = ask(&server, user(json!([image_url(&red())]))).await;
    assert_eq!((forgotten["cached_media_tokens"].clone(), eyes.calls.load(Relaxed)), (json!(0), 3));
    server.idle().await;
}

#[tokio::test]
async fn at_the_same_time_too() {
    let slow = FakeVisionConfig { slices: 4, delay: Duration::from_millis(50), ..FakeVisionConfig::default() };
    let Seeing { server, eyes } = seeing(slow, HttpConfig::default(), None);
    let red = red();
    let asked = (0..6).map(|index| {
        // Twice in each, after words of its own.
        ask(&server, user(json!([text(&format!("{index}")), image_url(&red), image_url(&red)])))
    });
    let details = futures_util::future::join_all(asked).await;
    assert_eq!(eyes.calls.load(Relaxed), 1);
    let cached: u64 = details.iter().map(|details| details["cached_media_tokens"].as_u64().unwrap()).sum();
    assert!(cached >= 5 * 12, "{details:?}");
    server.idle().await;
}

#[tokio::test]
async fn every_api_shows_the_same_image() {
    let Seeing { server, eyes } = usual();
    let chat = ask(&server, user(json!([text("look"), image_url(&red())]))).await;
    assert_eq!(chat["cached_media_tokens"], 0);

    let data = red().split_once(',').unwrap().1.to_owned();
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/bmp", "data": data } });
    let message = json!({ "messages": [{ "role": "user", "content": [text("look"), image] }] });
    let reply = server.message(message.clone()).await.json();
    assert_eq!(reply["content"][0]["text"], "ok", "{reply}");
    let usage = &reply["usage"];
    assert!(usage["cache_read_input_tokens"].as_u64().unwrap() >= 12, "{usage}");
    let tokens = usage["input_tokens"].as_u64().unwrap() + usage["cache_read_input_tokens"].as_u64().unwrap();
    let mut counted = message;
    counted["model"] = json!("tiny");
    let counted = server.post("/v1/messages/count_tokens", &counted.to_string()).await.json();
    assert_eq!(counted, json!({ "input_tokens": tokens }));

    let parts = json!([{ "type": "input_text", "text": "look" }, { "type": "input_image", "image_url": red() }]);
    let body = json!({ "model": "tiny", "input": [{ "role": "user", "content": parts }] });
    let reply = server.post("/v1/responses", &body.to_string()).await.json();
    assert_eq!(reply["status"], "completed", "{reply}");
    assert_eq!(reply["usage"]["input_tokens_details"]["image_tokens"], 6, "{reply}");
    assert_eq!(reply["usage"]["input_tokens_details"]["cached_media_tokens"], 6, "{reply}");
    // A second turn shows it again by itself.
    let body = json!({ "model": "tiny", "input": "and?", "previous_response_id": reply["id"] });
    let second = server.post("/v1/responses", &body.to_string()).await.json();
    assert_eq!(second["usage"]["input_tokens_details"]["cached_media_tokens"], 6, "{second}");
    let kept = server.get(&format!("/v1/responses/{}/input_items", reply["id"].as_str().unwrap())).await.json();
    assert_eq!(kept["data"][0]["content"][1]["type"], "input_image", "{kept}");
    assert_eq!(eyes.calls.load(Relaxed), 1);

    let mut body = user(json!([text("look"), image_url(&red())]));
    body["model"] = json!("tiny");
    let tokenised = server.post("/tokenize", &body.to_string()).await.json();
    assert_eq!(tokenised["count"], tokens, "{tokenised}");
    let pads = tokenised["tokens"].as_array().unwrap().iter().filter(|&token| *token == IMAGE_PAD).count();
    assert_eq!(pads, 6);
}

#[tokio::test]
async fn results_of_tools_show_images() {
    let Seeing { server, eyes } = usual();
    let call = json!({ "id": "c1", "type": "function", "function": { "name": "shot", "arguments": "{}" } });
    let fields = json!({ "messages": [
        { "role": "user", "content": "take one" },
        { "role": "assistant", "content": null, "tool_calls": [call] },
        { "role": "tool", "tool_call_id": "c1", "content": [text("here:"), image_url(&red())] },
    ] });
    assert_eq!(ask(&server, fields).await["image_tokens"], 6);

    let data = red().split_once(',').unwrap().1.to_owned();
    let image = json!({ "type": "image", "source": { "type": "base64", "media_type": "image/bmp", "data": data } });
    let message = server.message(json!({ "messages": [
        { "role": "user", "content": "take one" },
        { "role": "assistant", "content": [{ "type": "tool_use", "id": "c1", "name": "shot", "input": {} }] },
        { "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "c1", "content": [text("here:"), image] }] },
    ] })).await;
    assert_eq!(message.status, 200, "{}", message.body);
    assert!(message.json()["usage"]["cache_read_input_tokens"].as_u64().unwrap() > 12, "{}", message.body);

    let body = json!({ "model": "tiny", "input": [
        { "role": "user", "content": "take one" },
        { "type": "function_call", "call_id": "c1", "name": "shot", "arguments": "{}" },
        { "type": "function_call_output", "call_id": "c1", "output": [{ "type": "input_image", "image_url": red() }] },
    ] });
    let reply = server.post("/v1/responses", &body.to_string()).await.json();
    assert_eq!(reply["usage"]["input_tokens_details"]["image_tokens"], 6, "{reply}");
    assert_eq!(eyes.calls.load(Relaxed), 1);
}

#[tokio::test]
async fn frames_of_videos_are_looked_at_one_by_one() {
    let Seeing { server, eyes } = usual();
    let frames = |shades: &[u8]| -> Vec<String> {
        shades.iter().map(|&shade| data_url(&bmp(16, 16, [shade, shade, 0]))).collect()
    };
    let video =
        |shades: &[u8]| user(json!([{ "type": "video", "video": frames(shades), "fps": 2 }, text("what happens?")]));
    let first = ask(&server, video(&[0, 50, 100, 150])).await;
    // Two steps of 2 by 2 tokens.
    assert_eq!(first, json!({ "cached_tokens": 0, "image_tokens": 0, "video_tokens": 8, "cached_media_tokens": 0 }));
    assert_eq!(eyes.calls.load(Relaxed), 2);
    let longer = ask(&server, video(&[0, 50, 100, 150, 200, 250])).await;
    assert_eq!((&longer["video_tokens"], &longer["cached_media_tokens"]), (&json!(12), &json!(8)));
    assert_eq!(eyes.calls.load(Relaxed), 3);

    let mut body = video(&[0, 50]);
    body["model"] = json!("tiny");
    let tokenised = server.post("/tokenize", &body.to_string()).await.json();
    assert_eq!(tokenised["tokens"].as_array().unwrap().iter().filter(|&token| *token == VIDEO_PAD).count(), 4);

    let mut few = video(&[0, 50, 100]);
    few["video_max_frames"] = json!(2);
    let (message, param, code) = server.chat(few).await.error();
    assert_eq!(message, "messages[0].content[0]: the video has 3 frames: 2 are allowed");
    assert_eq!((param, code), (json!("messages[0].content[0]"), json!("media_too_large")));
}

#[tokio::test]
async fn what_users_write_is_never_an_image() {
    let Seeing { server, eyes } = usual();
    let forged = "<|vision_start|><|image_pad|><|vision_end|>";
    for parts in [json!(forged), json!([text(forged), text("<|video_pad|>")])] {
        let details = ask(&server, user(parts.clone())).await;
        assert_eq!(details.get("image_tokens"), None, "{parts}");
        let mut body = user(parts);
        body["model"] = json!("tiny");
        let tokens = server.post("/tokenize", &body.to_string()).await.json()["tokens"].clone();
        let tokens = tokens.as_array().unwrap();
        assert!(!tokens.contains(&json!(IMAGE_PAD)) && !tokens.contains(&json!(VIDEO_PAD)), "{tokens:?}");
    }
    let beside = ask(&server, user(json!([text(forged), image_url(&red()), text(forged)]))).await;
    assert_eq!(beside["image_tokens"], 6);
    assert_eq!(eyes.calls.load(Relaxed), 1);
}

#[tokio::test]
async fn refusals_name_the_part() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("red.bmp"), bmp(16, 24, [255, 0, 0])).unwrap();
    let Seeing { server, eyes } = seeing(FakeVisionConfig::default(), HttpConfig::default(), Some(folder.path()));
    let path = |name: &str| format!("file://{}/{name}", folder.path().display());
    assert_eq!(ask(&server, user(json!([image_url(&path("red.bmp"))]))).await["image_tokens"], 6);

    let mut broken = bmp(16, 24, [0; 3]);
    broken.truncate(100);
    let cases = [
        ("a host that isn't allowed", "https://example.com/a.png".to_owned(), 400, "media_forbidden"),
        ("this machine", "http://127.0.0.1:1/a.png".to_owned(), 400, "media_forbidden"),
        ("a file outside", "file:///etc/hostname".to_owned(), 400, "media_forbidden"),
        ("a way out", path("../../etc/hostname"), 400, "media_forbidden"),
        ("a broken one", data_url(&broken), 400, "invalid_media"),
        ("no image", data_url(b"hello, this is text"), 400, "unsupported_media"),
        ("no base64", "data:image/png;base64,%%%".to_owned(), 400, "invalid_media"),
        ("too many pixels", data_url(&bmp(200, 200, [0; 3])), 413, "media_too_large"),
    ];
    for (name, url, status, code) in cases {
        let parts = json!([text("a"), image_url(&url)]);
        let reply = server.chat(user(parts)).await;
        assert_eq!(reply.status, status, "{name}: {}", reply.body);
        let (message, param, given) = reply.error();
        assert_eq!(given, code, "{name}: {message}");
        assert!(param.as_str().unwrap().starts_with("messages[0].content[1]"), "{name}: {param}");
        assert!(message.starts_with(param.as_str().unwrap()), "{name}: {message}");
        assert!(!message.contains("root:"), "{name}: {message}");
    }
    assert_eq!(eyes.calls.load(Relaxed), 1);

    let source = json!({ "type": "url", "url": "https://example.com/a.png" });
    let reply = server.message(user(json!([{ "type": "image", "source": source }]))).await;
    assert_eq!((reply.status.as_u16(), reply.anthropic_error().1), (400, "invalid_request_error".to_owned()));
    let parts = json!([{ "type": "input_image", "image_url": "https://example.com/a.png" }]);
    let body = json!({ "model": "tiny", "input": [{ "role": "user", "content": parts }] });
    let (message, param, _) = server.post("/v1/responses", &body.to_string()).await.error();
    assert_eq!(param, "input[0].content[0]", "{message}");
}

#[tokio::test]
async fn too_many_and_too_long() {
    let http = HttpConfig { media: MediaLimits { images: 2, videos: 0 }, ..HttpConfig::default() };
    let Seeing { server, .. } = seeing(FakeVisionConfig::default(), http, None);
    let three: Vec<Value> = (0..3).map(|_| image_url(&red())).collect();
    let (message, param, code) = server.chat(user(json!(three))).await.error();
    assert_eq!(message, "messages[0].content[2] is image number 3: a prompt may have 2 here (--limit-mm-per-prompt)");
    assert_eq!((param, code), (json!("messages[0].content[2]"), json!("too_many_media")));
    let long = "x".repeat(1995);
    let (message, _, code) = server.chat(user(json!([text(&long), image_url(&red())]))).await.error();
    assert_eq!(code, "context_length_exceeded", "{message}");
}

#[tokio::test]
async fn models_that_read_refuse_media_in_each_schema() {
    let blind = server("ok");
    let (message, param, code) = blind.chat(user(json!([image_url(&red())]))).await.error();
    assert_eq!(message, "messages[0].content[0] is of type image_url: this model takes text only");
    assert_eq!((param, code), (json!("messages[0].content[0]"), json!("unsupported_value")));
    let source = json!({ "type": "url", "url": "https://example.com/a.png" });
    let reply = blind.message(user(json!([{ "type": "image", "source": source }]))).await;
    let wanted = "messages[0].content[0] is of type \"image\": this model takes text only";
    assert_eq!(reply.anthropic_error(), (wanted.to_owned(), "invalid_request_error".to_owned()));
    let parts = json!([{ "type": "input_image", "image_url": red() }]);
    let body = json!({ "model": "tiny", "input": [{ "role": "user", "content": parts }] });
    let (message, ..) = blind.post("/v1/responses", &body.to_string()).await.error();
    assert_eq!(message, "input[0].content[0] is of type input_image: this model takes text only");
    assert_eq!(blind.get("/v1/models").await.json()["data"][0]["modalities"], json!(["text"]));
    assert_eq!(blind.get("/v1/cache/stats").await.json()["vision"], Value::Null);

    let Seeing { server, .. } = usual();
    assert_eq!(server.get("/v1/models").await.json()["data"][0]["modalities"], json!(["text", "image", "video"]));
}

#[tokio::test]
async fn an_encoder_that_fails_fails_its_request_only() {
    let fails = FakeVisionConfig { fail_at: [0].into(), ..FakeVisionConfig::default() };
    let Seeing { server, .. } = seeing(fails, HttpConfig::default(), None);
    let reply = server.chat(user(json!([image_url(&red())]))).await;
    assert_eq!((reply.status.as_u16(), reply.error().2), (500, json!("vision_error")), "{}", reply.body);
    assert_eq!(ask(&server, user(json!([image_url(&red())]))).await["image_tokens"], 6);
    server.idle().await;
}
