//! Writes down sound files with a Whisper model, through the engine as the server does, all of them at once:
//! `cargo run --release -p vllm-models-audio --example transcribe -- MODEL FILE…`.
//!
//! `LANGUAGE`, `WORDS`, `WINDOWS` and `VAD` in the environment: language spoken, whether words have times, windows decoded side by
//! side, and the weights of Silero's model, with which only speech is heard.

use std::{
    env,
    error::Error,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use vllm_audio::{Limits, decode, resample};
use vllm_checkpoint::Checkpoint;
use vllm_models_audio as _;
use vllm_platform::{Activations, ModelSource, Platform as _, SpeechOptions};
use vllm_platform_mlx::MlxPlatform;
use vllm_scheduler::{SpeechText, TranscribeRequest, TranscriptEvent, TranscriptionConfig, TranscriptionEngine};
use vllm_speech::{
    vad::{Silero, VadOptions, speech},
    whisper::{DecodingOptions, Vocabulary},
};
use vllm_text::Tokenizer;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let model = PathBuf::from(arguments.next().ok_or("MODEL is missing")?);
    let tokenizer = Arc::new(Tokenizer::load(&Checkpoint::open(&model)?)?);
    let text: SpeechText = Box::new(move |size| Vocabulary::new(tokenizer, size));
    let options = SpeechOptions { threads: Some(2), activations: Activations::F32, ..SpeechOptions::default() };
    let source = ModelSource { path: model };
    let make = move || MlxPlatform.load_transcriber(&source, &options, &mut |_, _| {});
    let windows = env::var("WINDOWS").ok().map(|windows| windows.parse()).transpose()?;
    let mut config = TranscriptionConfig::default();
    config.max_windows = windows.unwrap_or(config.max_windows);
    let engine = TranscriptionEngine::start(make, Some(text), config)?;
    let silero = env::var("VAD").ok().map(|weights| Silero::load(Path::new(&weights))).transpose()?;
    let options = DecodingOptions {
        language: env::var("LANGUAGE").ok(),
        word_timestamps: env::var("WORDS").is_ok(),
        ..DecodingOptions::default()
    };
    let mut streams = Vec::new();
    let start = Instant::now();
    for path in arguments {
        let extension = Path::new(&path).extension().and_then(|extension| extension.to_str());
        let sound = decode(File::open(&path)?, extension, &Limits::default())?;
        let sound: Arc<[f32]> = resample(sound, engine.info().mel.sample_rate).samples.into();
        let speech = silero.as_ref().map(|silero| speech(silero, &sound, &VadOptions::default()));
        let request = TranscribeRequest { sound, options: options.clone(), speech, client: None, timeout: None };
        streams.push((path, engine.submit(request)?));
    }
    for (path, mut stream) in streams {
        println!("{path}");
        while let Some(event) = stream.blocking_next() {
            match event? {
                TranscriptEvent::Language { code, probability } => println!("  {code} {probability:.3}"),
                TranscriptEvent::Segment(segment) => {
                    println!("  {:6.2} {:6.2} {}", segment.start, segment.end, segment.text);
                    for word in &segment.words {
                        println!("    {:6.2} {:6.2} {:.2} {}", word.start, word.end, word.probability, word.text);
                    }
                }
                TranscriptEvent::Done { duration, tokens, windows, queue, compute } => {
                    println!("  {duration:.2} s, {tokens} tokens, {windows} windows, {queue:.2?} + {compute:.2?}");
                }
            }
        }
    }
    let (stats, took) = (engine.stats(), start.elapsed().as_secs_f64());
    println!("{:.1} s of sound in {took:.2} s: {:.1} times real time", stats.audio_seconds, stats.audio_seconds / took);
    println!("{stats:#?}");
    Ok(())
}
