//! Says something with Kokoro and prints where the time went:
//! `cargo run --release -p vllm-models-audio --example speak -- MODEL VOICE.bin PHONEMES [OUT.f32 [ROUNDS [f32|int16|int8]]]`.
//!
//! Writes raw f32 samples, one channel at 24 kHz.

use std::{collections::BTreeMap, error::Error, fs, path::Path, time::Instant};

use vllm_models_audio as _;
use vllm_platform::{Activations, SpeechOptions, Synthesizer as _, Utterance};
use vllm_platform_mlx::MlxSynthesizer;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, voice, phonemes, rest @ ..] = args.as_slice() else { return Err("MODEL VOICE.bin PHONEMES".into()) };
    let activations = match rest.get(2).map(String::as_str) {
        None => Activations::default(),
        Some("f32") => Activations::F32,
        Some("int16") => Activations::Int16,
        Some("int8") => Activations::Int8,
        Some(other) => return Err(format!("activations {other:?}").into()),
    };
    let options = SpeechOptions { threads: Some(2), activations, ..SpeechOptions::default() };
    let model = MlxSynthesizer::load(Path::new(model), &options)?;
    let info = model.info().clone();
    let symbols: Vec<u32> =
        phonemes.chars().filter_map(|c| info.symbols.get(c.encode_utf8(&mut [0; 4]))).copied().collect();
    let bytes = fs::read(voice)?;
    let styles: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let style = &styles[(symbols.len() - 1) * info.style_len..][..info.style_len];
    let utterance = Utterance { symbols: &symbols, style, speed: 1.0, seed: 1 };
    let rounds: usize = rest.get(1).map_or(Ok(1), |n| n.parse())?;
    let mut sound = Vec::new();
    for round in 0..rounds {
        let (start, mut last) = (Instant::now(), Instant::now());
        let (mut stages, mut order) = (BTreeMap::<&str, (f64, usize)>::new(), Vec::new());
        let mut longest = 0f64;
        sound = model.synthesize_by_stages(&utterance, &mut |stage, _| {
            let time = last.elapsed().as_secs_f64() * 1e3;
            longest = longest.max(time);
            let entry = stages.entry(stage).or_insert_with(|| {
                order.push(stage);
                (0.0, 0)
            });
            *entry = (entry.0 + time, entry.1 + 1);
            last = Instant::now();
        })?;
        let (total, seconds) = (start.elapsed().as_secs_f64(), sound.len() as f64 / f64::from(info.sample_rate));
        let rest = last.elapsed().as_secs_f64() * 1e3;
        println!(
            "round {round}: {seconds:.2} s of sound in {:.0} ms, {:.2} times real time",
            total * 1e3,
            seconds / total
        );
        if round + 1 == rounds {
            for stage in order {
                println!("{:9.1} ms in {:3} {stage}", stages[stage].0, stages[stage].1);
            }
            println!("{rest:9.1} ms at the end; longest without a pause: {longest:.1} ms");
        }
    }
    if let Some(path) = rest.first() {
        fs::write(path, sound.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>())?;
    }
    Ok(())
}
