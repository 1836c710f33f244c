//! Times a Whisper model's encoder and its steps, and writes down what it hears without timestamps or any rules but the greatest
//! logit.
//!
//! ```sh
//! cargo run --release -p vllm-models-audio --example whisper_times -- MODEL MEL…
//! ```
//!
//! A MEL file has the log-mel spectrogram of one window, [3000, bands] f32 little-endian. Prints, for each, milliseconds of the
//! encoder and of a step (medians of the rounds that `ROUNDS` says, 5 by default) and the tokens.

use std::{env, error::Error, fs, path::Path, time::Instant};

use vllm_models_audio as _;
use vllm_platform::{Activations, Listener, Mel, ModelSource, Platform, SpeechOptions, TextRow, Transcriber};
use vllm_platform_mlx::MlxPlatform;

/// `<|startoftranscript|><|notimestamps|>` and `<|endoftext|>` of English models.
const PROMPT: [u32; 2] = [50257, 50362];
const END: u32 = 50256;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let model = arguments.next().ok_or("MODEL is missing")?;
    let rounds: usize = env::var("ROUNDS").ok().map_or(Ok(5), |rounds| rounds.parse())?;
    let activations = match env::var("ACTIVATIONS").as_deref() {
        Ok("int8") => Activations::Int8,
        Ok("f32") => Activations::F32,
        _ => Activations::default(),
    };
    let options = SpeechOptions { threads: Some(2), activations, ..SpeechOptions::default() };
    let source = ModelSource { path: Path::new(&model).into() };
    let Transcriber::Listener(mut model) = MlxPlatform.load_transcriber(&source, &options, &mut |_, _| {})? else {
        return Err("the model is no listener".into());
    };
    for path in arguments {
        let numbers = fs::read(&path)?.chunks_exact(4).map(|w| f32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
        let mel = Mel { numbers, frames: model.listener_info().window_frames };
        let (mut encoding, mut stepping, mut tokens) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            tokens = transcribe(&mut *model, &mel, &mut encoding, &mut stepping)?;
        }
        println!("{path}: encode {:.1} ms, step {:.2} ms, {tokens:?}", median(&mut encoding), median(&mut stepping));
    }
    Ok(())
}

fn transcribe(
    model: &mut dyn Listener,
    mel: &Mel,
    encoding: &mut Vec<f64>,
    stepping: &mut Vec<f64>,
) -> Result<Vec<u32>, Box<dyn Error>> {
    let started = Instant::now();
    let window = model.encode(&[mel], &mut || {})?[0];
    encoding.push(started.elapsed().as_secs_f64() * 1e3);
    let text = model.begin(window)?;
    let (mut tokens, mut next) = (Vec::new(), PROMPT.to_vec());
    while tokens.len() + PROMPT.len() < model.listener_info().max_text_len {
        let started = Instant::now();
        let logits = model.step(&[TextRow { text, tokens: &next, logits: 1 }])?.swap_remove(0);
        if next.len() == 1 {
            stepping.push(started.elapsed().as_secs_f64() * 1e3);
        }
        let greatest = (0u32..).zip(&logits).max_by(|a, b| a.1.total_cmp(b.1)).map_or(END, |(token, _)| token);
        if greatest == END {
            break;
        }
        tokens.push(greatest);
        next = vec![greatest];
    }
    model.forget(window);
    Ok(tokens)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}
