//! Models that hear and speak, without models; sounds for the one and forms to send them in.

use std::{
    sync::{Arc, mpsc},
    thread,
};

use axum::{body::Body, http::Request};
use vllm_api::speech::{ServedSpeaker, ServedTranscriber};
use vllm_platform::{
    Transcriber,
    testing::{
        FakeListener, FakeListenerConfig, FakeListenerProbe, FakeSynthesizer, FakeSynthesizerConfig,
        FakeSynthesizerProbe, FakeTransducer, FakeTransducerConfig, whisper_tokenizer,
    },
};
use vllm_scheduler::{
    SpeechText, SynthesisConfig, SynthesisEngine, TranscriptionConfig, TranscriptionEngine, TranscriptionHandle,
};
use vllm_speech::{voices::Voices, whisper::Vocabulary};
use vllm_text::Tokenizer;

use super::{Reply, Server};

/// Adds a model that hears, `ears`, also known as `whisper-fake`.
pub fn hearing(server: &Server, fake: FakeListenerConfig) -> Arc<FakeListenerProbe> {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let model = FakeListener::new(fake);
        sender.send(model.probe()).unwrap();
        Ok(Transcriber::Listener(Box::new(model)))
    };
    let tokenizer = Arc::new(Tokenizer::from_json_bytes(whisper_tokenizer().as_bytes(), "test").unwrap());
    let text: SpeechText = Box::new(move |size| Vocabulary::new(tokenizer, size));
    add(server, "ears", &["whisper-fake"], started(move || TranscriptionEngine::start(make, Some(text), config())));
    probe.recv().unwrap()
}

/// Adds one that goes along the sound, `along`.
pub fn hearing_along(server: &Server) {
    let make = || Ok(Transcriber::Transducer(Box::new(FakeTransducer::new(FakeTransducerConfig::default()))));
    add(server, "along", &[], started(move || TranscriptionEngine::start(make, None, config())));
}

fn config() -> TranscriptionConfig {
    TranscriptionConfig::default()
}

fn add(server: &Server, name: &str, aliases: &[&str], engine: TranscriptionHandle) {
    let aliases = aliases.iter().map(|&alias| alias.to_owned()).collect();
    server.app.add_transcriber(Arc::new(ServedTranscriber::new(vec![name.to_owned()], aliases, engine)));
}

/// What Kokoro has learnt, as far as English needs it.
const PHONEMES: &str = ";:,.!?—…\"() AIOQSTWYᵊabdfhijklmnopstuvwzæðŋɑɔəɛɜɡɪɹɾʃʊʌʒʔʤʧˈˌθᵻː";

/// Adds a model that speaks, `mouth`, also known as `kokoro`, with the voices `af_heart` and `am_adam`.
pub fn speaking(server: &Server, fake: FakeSynthesizerConfig) -> Arc<FakeSynthesizerProbe> {
    let symbols = PHONEMES.chars().zip(1..).map(|(phoneme, symbol)| (phoneme.to_string(), symbol)).collect();
    let fake = FakeSynthesizerConfig { symbols, ..fake };
    let folder = tempfile::tempdir().unwrap();
    let style_len = fake.style_len;
    for (name, number) in [("af_heart", 0.25f32), ("am_adam", 0.5)] {
        let rows = number.to_le_bytes().repeat(510 * style_len);
        std::fs::write(folder.path().join(format!("{name}.bin")), rows).unwrap();
    }
    let voices = Voices::open(folder.path(), style_len).unwrap();
    // A voice is read when it is first asked for, and the folder is gone by then.
    ["af_heart", "am_adam"].into_iter().for_each(|name| drop(voices.get(name).unwrap()));
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let model = FakeSynthesizer::new(fake);
        sender.send(model.probe()).unwrap();
        Ok(Box::new(model) as Box<_>)
    };
    let engine = started(move || SynthesisEngine::start(make, SynthesisConfig::default()));
    let speaker = ServedSpeaker::new(vec!["mouth".to_owned()], vec!["kokoro".to_owned()], voices, engine);
    server.app.add_speaker(Arc::new(speaker));
    probe.recv().unwrap()
}

/// Tests run inside tokio, which a blocking start refuses.
fn started<T: Send + 'static, E: std::fmt::Debug + Send + 'static>(
    start: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> T {
    thread::spawn(start).join().unwrap().unwrap()
}

/// A WAV of 16 kHz: silence, and noise in these stretches, in milliseconds.
pub fn wav(length: usize, loud: &[std::ops::Range<usize>]) -> Vec<u8> {
    let mut noise = 1u32;
    let samples = (0..length * 16).map(|at| {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        if loud.iter().any(|stretch| stretch.contains(&(at / 16))) { (noise >> 17) as i16 } else { 0 }
    });
    let data: Vec<u8> = samples.flat_map(i16::to_le_bytes).collect();
    let mut file = Vec::new();
    file.extend_from_slice(b"RIFF");
    file.extend((36 + data.len() as u32).to_le_bytes());
    file.extend_from_slice(b"WAVEfmt ");
    file.extend(16u32.to_le_bytes());
    for half in [1u16, 1] {
        file.extend(half.to_le_bytes());
    }
    file.extend(16_000u32.to_le_bytes());
    file.extend(32_000u32.to_le_bytes());
    for half in [2u16, 16] {
        file.extend(half.to_le_bytes());
    }
    file.extend_from_slice(b"data");
    file.extend((data.len() as u32).to_le_bytes());
    file.extend(data);
    file
}

/// Two words in four seconds of sound: `three`, `five`.
pub fn words() -> Vec<u8> {
    wav(4000, &[500..800, 2000..2500])
}

pub const BOUNDARY: &str = "a-line-between";

/// The bytes of a form. Without a file if it has no name.
pub fn form(fields: &[(&str, &str)], file: Option<(&str, &[u8])>) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, text) in fields {
        let head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{text}\r\n");
        body.extend(head.into_bytes());
    }
    if let Some((name, bytes)) = file {
        let head = format!(
            "--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
             Content-Type: application/octet-stream\r\n\r\n"
        );
        body.extend(head.into_bytes());
        body.extend_from_slice(bytes);
        body.extend_from_slice(b"\r\n");
    }
    body.extend(format!("--{BOUNDARY}--\r\n").into_bytes());
    body
}

/// A POST of a form.
pub fn post_form(path: &str, body: impl Into<Body>) -> Request<Body> {
    let kind = format!("multipart/form-data; boundary={BOUNDARY}");
    Request::post(path).header("content-type", kind).body(body.into()).unwrap()
}

/// Asks for the transcript of [`words`], with further fields.
pub async fn transcribe(server: &Server, fields: &[(&str, &str)]) -> Reply {
    let fields = [&[("model", "ears")], fields].concat();
    server.send(post_form("/v1/audio/transcriptions", form(&fields, Some(("a.wav", &words()))))).await
}
