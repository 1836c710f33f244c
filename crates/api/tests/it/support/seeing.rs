//! A server over fake engines whose model sees: images become tokens by Qwen2.5-VL's rules, in patches of 4 by 4 pixels.

use std::{
    fs,
    path::Path,
    sync::{Arc, mpsc},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use vllm_api::{
    http::{App, HttpConfig},
    model::{SamplingDefaults, ServedModel},
    vision::Vision,
};
use vllm_checkpoint::Checkpoint;
use vllm_media::{FetchPolicy, Limits, Loader, Processor};
use vllm_platform::testing::{FakeConfig, FakeRunner, FakeVision, FakeVisionConfig, FakeVisionProbe};
use vllm_scheduler::{Engine, EngineConfig, VisionConfig, VisionEngine};
use vllm_text::ChatTemplate;

use super::{EOS, Server, fake, tokenizer_with};

/// The tokens that Qwen's processor needs.
const TOKENS: [&str; 4] = ["<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"];
/// Id of `<|image_pad|>`.
pub const IMAGE_PAD: u32 = 260;
/// Id of `<|video_pad|>`.
pub const VIDEO_PAD: u32 = 261;

/// Of the kind of Qwen2-VL's. Results of tools are shown as strings only.
const TEMPLATE: &str = "{% for m in messages %}{{ m.role }}:{% if m.content is string %}{{ m.content }}\
    {% elif m.role == 'tool' %}{{ m.content }}{% else %}{% for p in m.content %}{% if p.type == 'image' %}\
    <|vision_start|><|image_pad|><|vision_end|>{% elif p.type == 'video' %}<|vision_start|><|video_pad|><|vision_end|>\
    {% else %}{{ p.text }}{% endif %}{% endfor %}{% endif %};{% for call in m.tool_calls %}({{ call.function.name }})\
    {{ call.function.arguments | tojson }}{% endfor %}{% endfor %}{% if add_generation_prompt %}>{% endif %}";

/// The server, and what its encoder did.
pub struct Seeing {
    pub server: Server,
    pub eyes: Arc<FakeVisionProbe>,
}

/// A server whose model sees, and answers with `ok`. Files below `folder` may be read.
pub fn seeing(vision: FakeVisionConfig, http: HttpConfig, folder: Option<&Path>) -> Seeing {
    seeing_in(vision, App::new(http), folder)
}

/// The same, of this application.
pub fn seeing_in(vision: FakeVisionConfig, app: App, folder: Option<&Path>) -> Seeing {
    let policy = FetchPolicy { local_root: folder.map(Path::to_owned), ..FetchPolicy::default() };
    let limits = Limits { pixels: 10_000, ..Limits::default() };
    let app = app.with_loader(Loader::new(&policy, limits, 1 << 20).unwrap());
    let script = [u32::from(b'o'), u32::from(b'k'), EOS].to_vec();
    let fake = FakeConfig { vocab_size: 262, context_length: 2000, script, ..fake() };
    let (sender, probes) = mpsc::channel();
    let runner = move || {
        let runner = FakeRunner::new(fake);
        sender.send(runner.probe()).unwrap();
        Ok(Box::new(runner) as Box<_>)
    };
    let (sender, eyes) = mpsc::channel();
    let encoder = move || {
        let encoder = FakeVision::new(FakeVisionConfig { patch_len: 96, merge: 4, ..vision });
        sender.send(encoder.probe()).unwrap();
        Ok(Box::new(encoder) as Box<_>)
    };
    // Tests run inside tokio, which a blocking start refuses.
    let started = std::thread::spawn(move || {
        let engine = Engine::start(runner, EngineConfig::default()).unwrap();
        (engine, VisionEngine::start(encoder, VisionConfig::default()).unwrap())
    });
    let (engine, vision) = started.join().unwrap();
    let template = ChatTemplate::new(TEMPLATE, Default::default()).unwrap();
    let sampling = SamplingDefaults { temperature: Some(0.0), ..SamplingDefaults::default() };
    let model = ServedModel::new(vec!["tiny".to_owned()], tokenizer_with(&TOKENS), Some(template), sampling, engine);
    let model = Arc::new(model.with_vision(Some(Vision { processor: processor(), engine: vision })));
    app.set_model(Arc::clone(&model));
    let server = Server { router: app.clone().router(), app, model, probe: probes.recv().unwrap() };
    Seeing { server, eyes: eyes.recv().unwrap() }
}

/// Qwen2.5-VL's, with its smallest patches. A token stands for 8 by 8 pixels.
fn processor() -> Processor {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &[u8]| fs::write(folder.path().join(name), content).unwrap();
    let config = json!({
        "model_type": "qwen2_5_vl",
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "vision_config": { "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2, "tokens_per_second": 2 },
    });
    write("config.json", config.to_string().as_bytes());
    let sizes = json!({
        "image_processor_type": "Qwen2VLImageProcessor",
        "patch_size": 4, "merge_size": 2, "temporal_patch_size": 2,
        "min_pixels": 64, "max_pixels": 6400,
    });
    write("preprocessor_config.json", sizes.to_string().as_bytes());
    write("model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    Processor::load(&Checkpoint::open(folder.path()).unwrap()).unwrap().unwrap()
}

/// A BMP of one colour.
pub fn bmp(width: u32, height: u32, [red, green, blue]: [u8; 3]) -> Vec<u8> {
    let row = (width * 3).next_multiple_of(4);
    let mut file = b"BM".to_vec();
    let mut words = |values: &[u32]| values.iter().for_each(|value| file.extend(value.to_le_bytes()));
    words(&[54 + row * height, 0, 54, 40, width, height]);
    // One plane of 24 bits.
    words(&[1 | 24 << 16, 0, row * height, 2835, 2835, 0, 0]);
    for _ in 0..height {
        let line = [blue, green, red].into_iter().cycle().take(width as usize * 3);
        file.extend(line.chain(std::iter::repeat_n(0, (row - width * 3) as usize)));
    }
    file
}

/// A file as a URL.
pub fn data_url(file: &[u8]) -> String {
    format!("data:image/bmp;base64,{}", BASE64_STANDARD.encode(file))
}

/// A user's message of these parts.
pub fn user(parts: Value) -> Value {
    json!({ "messages": [{ "role": "user", "content": parts }] })
}

/// An image as OpenAI's clients send it.
pub fn image_url(url: &str) -> Value {
    json!({ "type": "image_url", "image_url": { "url": url } })
}
