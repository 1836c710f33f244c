//! A tiny model that sees: the official SDKs, restarts, the command line.

use std::{path::Path, process::Command};

use serde_json::{Value, json};
use vllm_tests::{Server, fixture, python, run};

/// A server that fetches from this machine by its number, and from nowhere else.
fn server(args: &[&str]) -> Server {
    let usual =
        ["--served-model-name", "seeing", "--allowed-media-domains", "127.0.0.1", "--allow-private-media-hosts"];
    let server = Server::start(&fixture("seeing"), &[&usual[..], args].concat());
    server.wait_ready();
    server
}

#[test]
fn the_official_sdks_show_images() {
    let server = server(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/vision_sdk.py");
    let out =
        Command::new(python()).arg(script).args([server.url(""), fixture("pictures")]).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}

fn question(picture: &str) -> Value {
    let path = format!("{}/{picture}", fixture("pictures"));
    json!({ "model": "seeing", "max_tokens": 8, "temperature": 0, "messages": [{ "role": "user", "content": [
        { "type": "image_url", "image_url": { "url": format!("file://{path}") } },
        { "type": "text", "text": "What is it?" },
    ] }] })
}

#[test]
fn what_was_seen_survives_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let cache = folder.path().to_str().expect("a UTF-8 path");
    let pictures = fixture("pictures");
    let flags = ["--ssd-cache-dir", cache, "--allowed-local-media-path", &pictures];
    let mut first = server(&flags);
    let (status, answer) = first.post("/v1/chat/completions", &question("one.png"));
    assert_eq!(status, 200, "{answer}");
    first.signal("TERM");
    assert_eq!(first.wait_exit(), Some(0), "{}", first.log());

    let second = server(&flags);
    // Other words before it: only what was seen is of use.
    let mut moved = question("one.webp");
    moved["messages"][0]["content"]
        .as_array_mut()
        .expect("parts")
        .insert(0, json!({ "type": "text", "text": "Look." }));
    let (_, elsewhere) = second.post("/v1/chat/completions", &moved);
    let details = &elsewhere["usage"]["prompt_tokens_details"];
    assert_eq!((&details["image_tokens"], &details["cached_media_tokens"]), (&json!(20), &json!(20)), "{elsewhere}");
    // The same question: its KV, too.
    let (_, again) = second.post("/v1/chat/completions", &question("one.bmp"));
    assert!(again["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64() > Some(20), "{again}");
    assert_eq!(again["choices"][0]["message"]["content"], answer["choices"][0]["message"]["content"]);
    let (_, stats) = second.get("/v1/cache/stats").expect("an answer");
    let vision = &stats["vision"];
    assert_eq!((&vision["encoder_runs"], &vision["ssd_hits"]), (&json!(0), &json!(1)), "{vision}");
}

#[test]
fn commands_show_files() {
    let model = fixture("seeing");
    let pictures = fixture("pictures");
    let (one, film) = (format!("{pictures}/one.png"), format!("{pictures}/film.gif"));
    let ask = |args: &[&str]| {
        let usual = ["generate", &model, "-p", "What is it?", "--max-tokens", "4", "--ignore-eos", "--json"];
        run(&[&usual[..], args].concat())
    };
    let tokens = |args: &[&str]| {
        let out = ask(args);
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let report: Value = serde_json::from_slice(&out.stdout).expect("JSON");
        report["prompt_tokens"].as_u64().expect("prompt_tokens")
    };
    let text = tokens(&[]);
    // Before and after each stands a token of its own; a film of five frames at two a second is seen in two steps.
    assert_eq!(tokens(&["--image", &one, "--image", &one]), text + 2 * 22);
    assert_eq!(tokens(&["--video", &film]), text + 42);
    assert_eq!(tokens(&["--video", &film, "--video-max-frames", "2"]), text + 22);
    for (args, wanted) in
        [(["--image", "/no/such.png"], "/no/such.png"), (["--image", &film[..film.len() - 8]], "pictures")]
    {
        let out = ask(&args);
        let error = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && error.contains(wanted), "{error}");
    }
    let info = run(&["info", &model, "--json"]);
    let info: Value = serde_json::from_slice(&info.stdout).expect("JSON");
    assert_eq!(info["modalities"], json!(["text", "image", "video"]));
}

#[test]
fn eyes_can_be_left_closed() {
    let server = server(&["--limit-mm-per-prompt", "image=0,video=0"]);
    let (status, body) = server.post("/v1/chat/completions", &question("one.png"));
    assert_eq!(status, 400, "{body}");
    assert_eq!(body["error"]["message"], "messages[0].content[0] is of type image_url: this model takes text only");
    let (status, body) = server.get("/v1/models").expect("an answer");
    assert_eq!((status, &body["data"][0]["modalities"]), (200, &json!(["text"])), "{body}");
}
