//! A server over a fake engine and a tokenizer of single bytes.
#![allow(dead_code, reason = "the fuzz target and the example of overhead use a part")]

pub mod asking;
pub mod formats;
pub mod grpc;
pub mod seeing;
pub mod speech;
pub mod tags;

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
    time::{Duration, Instant},
};

use axum::{
    body::{Body, to_bytes},
    http::{HeaderMap, Request, StatusCode},
};
use serde_json::{Value, json};
use tower::ServiceExt as _;
use vllm_api::{
    http::{App, HttpConfig},
    listener::{ConnectionLimits, Listener},
    model::{Formats, SamplingDefaults, ServedModel},
    residency::{Catalog, Loader, Residency},
};
use vllm_parsers::{calls, reasoning};
use vllm_platform::testing::{FakeConfig, FakeProbe, FakeRunner};
use vllm_scheduler::{Engine, EngineConfig};
use vllm_text::{ChatTemplate, Tokenizer};

/// Id of the end-of-sequence token.
pub const EOS: u32 = 256;

/// 256 single bytes, `<eos>` and `<user>`.
pub fn tokenizer() -> Tokenizer {
    tokenizer_with(&[])
}

/// The same, with further special tokens.
pub fn tokenizer_with(specials: &[&str]) -> Tokenizer {
    let mut vocab = serde_json::Map::new();
    for byte in 0..=255u8 {
        vocab.insert(byte_name(byte).to_string(), json!(byte));
    }
    let special = |id: u32, content: &str| {
        json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true })
    };
    let texts = ["<eos>", "<user>"].iter().chain(specials);
    let added: Vec<Value> = texts.zip(EOS..).map(|(text, id)| special(id, text)).collect();
    let file = json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": null,
        "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
        "post_processor": null,
        "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
        "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": [] },
    });
    Tokenizer::from_json_bytes(file.to_string().as_bytes(), "test").unwrap().with_eos_ids(vec![EOS])
}

/// GPT-2's printable stand-in for a byte.
fn byte_name(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + rank).unwrap()
}

const TEMPLATE: &str = "{% for m in messages %}{% if m.role == 'function' %}{{ raise_exception('no functions here') }}{% endif %}\
    {{ m.role }}:{{ m.content }};{% endfor %}{% for tool in tools %}[{{ tool.function.name }}]{% endfor %}\
    {% if mood %}({{ mood }}){% endif %}{% if add_generation_prompt %}>{% endif %}";

/// A server to ask.
pub struct Server {
    pub router: axum::Router,
    pub app: App,
    pub model: Arc<ServedModel>,
    pub probe: Arc<FakeProbe>,
}

/// A server whose model answers with `answer` and then `<eos>`, over and over.
pub fn server(answer: &str) -> Server {
    let mut script: Vec<u32> = answer.bytes().map(u32::from).collect();
    script.push(EOS);
    server_with(FakeConfig { script, ..fake() }, EngineConfig::default(), HttpConfig::default())
}

/// The same, in formats of these names.
pub fn server_in(answer: &str, calls: Option<&str>, reasoning: Option<&str>) -> Server {
    app_in(answer, calls, reasoning, App::new(HttpConfig::default()))
}

/// The same, of this application.
pub fn app_in(answer: &str, calls: Option<&str>, reasoning: Option<&str>, app: App) -> Server {
    let formats = Formats {
        calls: calls.map(|name| calls::by_name(name).unwrap()),
        reasoning: reasoning.map(|name| reasoning::by_name(name).unwrap()),
    };
    let mut script: Vec<u32> = answer.bytes().map(u32::from).collect();
    script.push(EOS);
    let fake = FakeConfig { script, context_length: 4096, ..fake() };
    server_like(fake, EngineConfig::default(), app, TEMPLATE, formats)
}

/// The fake that goes with the tokenizer.
pub fn fake() -> FakeConfig {
    FakeConfig { vocab_size: 258, context_length: 200, num_blocks: 1000, ..FakeConfig::default() }
}

pub fn server_with(fake: FakeConfig, engine: EngineConfig, http: HttpConfig) -> Server {
    server_of(fake, engine, App::new(http))
}

pub fn server_of(fake: FakeConfig, engine: EngineConfig, app: App) -> Server {
    serve(fake, engine, app, Formats::default())
}

/// One whose model writes tool calls and its chain of thought in these formats.
pub fn serve(fake: FakeConfig, engine: EngineConfig, app: App, formats: Formats) -> Server {
    server_like(fake, engine, app, TEMPLATE, formats)
}

/// A server whose model has this chat template and writes in these formats.
pub fn server_like(fake: FakeConfig, engine: EngineConfig, app: App, template: &str, formats: Formats) -> Server {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let runner = FakeRunner::new(fake);
        sender.send(runner.probe()).unwrap();
        Ok(Box::new(runner) as Box<_>)
    };
    // Tests run inside tokio, which a blocking start refuses.
    let engine = std::thread::spawn(move || Engine::start(make, engine).unwrap()).join().unwrap();
    let template = ChatTemplate::new(template, Default::default()).unwrap();
    let names = vec!["tiny".to_owned(), "org/tiny".to_owned()];
    let sampling = SamplingDefaults { temperature: Some(0.0), ..SamplingDefaults::default() };
    let model = ServedModel::new(names, tokenizer(), Some(template), sampling, engine).with_formats(formats);
    let model = Arc::new(model);
    app.set_model(Arc::clone(&model));
    Server { router: app.clone().router(), app, model, probe: probe.recv().unwrap() }
}

/// A model that answers with `answer`.
pub fn fake_model(answer: &str, names: Vec<String>) -> ServedModel {
    let mut script: Vec<u32> = answer.bytes().map(u32::from).collect();
    script.push(EOS);
    let make = move || Ok(Box::new(FakeRunner::new(FakeConfig { script, ..fake() })) as Box<_>);
    let engine = Engine::start(make, EngineConfig::default()).unwrap();
    let template = ChatTemplate::new(TEMPLATE, Default::default()).unwrap();
    let sampling = SamplingDefaults { temperature: Some(0.0), ..SamplingDefaults::default() };
    ServedModel::new(names, tokenizer(), Some(template), sampling, engine)
}

/// A server of several models.
pub fn server_of_models(catalog: Catalog, load: Loader) -> Router {
    let app = App::new(HttpConfig::default());
    app.set_models(Residency::new(catalog, load, Arc::new(|_| {})));
    Router(app.router())
}

/// Routes alone.
pub struct Router(pub axum::Router);

impl Router {
    pub async fn get(&self, path: &str) -> Reply {
        send(&self.0, Request::get(path).body(Body::empty()).unwrap()).await
    }

    /// A chat completion of one user message, with further fields.
    pub async fn chat(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
        let body = merged(body, fields).to_string();
        send(&self.0, Request::post("/v1/chat/completions").body(Body::from(body)).unwrap()).await
    }
}

async fn send(router: &axum::Router, request: Request<Body>) -> Reply {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    Reply { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Reply {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// `error.message`, `error.param` and `error.code` of OpenAI's schema, which must be complete.
    pub fn error(&self) -> (String, Value, Value) {
        let value = self.json();
        let error = value["error"].as_object().unwrap_or_else(|| panic!("no error: {}", self.body));
        let mut keys: Vec<_> = error.keys().collect();
        keys.sort();
        assert_eq!(keys, ["code", "message", "param", "type"]);
        (error["message"].as_str().unwrap().to_owned(), error["param"].clone(), error["code"].clone())
    }

    /// Data of all server-sent events; the last must be `[DONE]`, which is left out.
    pub fn events(&self) -> Vec<Value> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let mut data: Vec<&str> = self.body.split("\n\n").filter_map(|frame| frame.strip_prefix("data: ")).collect();
        assert_eq!(data.pop(), Some("[DONE]"), "{}", self.body);
        data.into_iter().map(|data| serde_json::from_str(data).unwrap()).collect()
    }

    /// Message and type of an error in Anthropic's schema, which must be complete.
    pub fn anthropic_error(&self) -> (String, String) {
        let body = self.json();
        assert_eq!((&body["type"], body.as_object().unwrap().len()), (&json!("error"), 3), "{body}");
        assert_eq!(body["request_id"], self.headers["request-id"].to_str().unwrap());
        assert_eq!(self.headers["x-request-id"], self.headers["request-id"]);
        assert_eq!(self.headers["content-type"], "application/json");
        assert_eq!(body["error"].as_object().unwrap().len(), 2, "{body}");
        let text = |field: &str| body["error"][field].as_str().unwrap().to_owned();
        (text("message"), text("type"))
    }

    /// Names and data of all server-sent events that have both; heartbeats are left out.
    pub fn named_events(&self) -> Vec<(String, Value)> {
        assert_eq!(self.headers["content-type"], "text/event-stream; charset=utf-8");
        let event = |frame: &str| {
            let (name, data) = frame.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
            let data: Value = serde_json::from_str(data).unwrap();
            assert_eq!(data["type"], name);
            (name.to_owned(), data)
        };
        assert!(self.body.ends_with("\n\n"), "{}", self.body);
        self.body.trim_end().split("\n\n").map(event).filter(|(name, _)| name != "ping").collect()
    }
}

impl Server {
    pub async fn send(&self, request: Request<Body>) -> Reply {
        send(&self.router, request).await
    }

    pub async fn get(&self, path: &str) -> Reply {
        self.send(Request::get(path).body(Body::empty()).unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Reply {
        self.send(Request::delete(path).body(Body::empty()).unwrap()).await
    }

    pub async fn post(&self, path: &str, body: &str) -> Reply {
        self.send(Request::post(path).body(Body::from(body.to_owned())).unwrap()).await
    }

    /// Opens a port.
    pub async fn listen(&self, limits: ConnectionLimits) -> SocketAddr {
        let listener = Listener::bind("127.0.0.1", 0, None, limits).await.unwrap();
        let address = listener.address().unwrap();
        tokio::spawn(listener.serve(self.router.clone(), std::future::pending()));
        address
    }

    /// A chat completion of one user message, with further fields.
    pub async fn chat(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "hi" }] });
        self.post("/v1/chat/completions", &merged(body, fields).to_string()).await
    }

    /// A message of Anthropic's API in answer to one of the user, with further fields.
    pub async fn message(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "max_tokens": 50, "messages": [{ "role": "user", "content": "hi" }] });
        self.post("/v1/messages", &merged(body, fields).to_string()).await
    }

    /// A completion, with further fields.
    pub async fn complete(&self, fields: Value) -> Reply {
        let body = json!({ "model": "tiny", "prompt": "hi", "max_tokens": 50 });
        self.post("/v1/completions", &merged(body, fields).to_string()).await
    }

    /// Waits until the engine has nothing left to do, and nothing was wrong with its plans.
    pub async fn idle(&self) {
        let start = Instant::now();
        loop {
            let stats = self.model.engine.stats();
            if (stats.running, stats.waiting, stats.blocks_in_use()) == (0, 0, 0) {
                break;
            }
            assert!(start.elapsed() < Duration::from_secs(20), "the engine does not come to rest: {stats:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(self.probe.violations.load(Relaxed), 0);
    }
}

/// `fields` over `body`.
pub fn merged(mut body: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}
