//! Silero's own weights. This test, and one of `whisper/tests.rs`, want a folder of models, which is not in the repository:
//!
//! ```sh
//! VLLM_SPEECH_MODELS=/models cargo test -p vllm-speech ---- --ignored
//! ```
//!
//! It has `vad/silero_vad_16k.safetensors`, `whisper-tiny-hf/tokenizer.json` (of tiny.en) and `media/librivox/*.wav`.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use serde::Deserialize;
use vllm_speech::vad::{CHUNK, Silero, Stream, VadOptions, speech};

use crate::fixtures;

#[derive(Deserialize)]
struct Fixture {
    clips: Vec<Clip>,
}

#[derive(Deserialize)]
struct Clip {
    name: String,
    probabilities: Vec<f32>,
    found: Vec<(usize, usize)>,
}

fn models() -> PathBuf {
    std::env::var_os("VLLM_SPEECH_MODELS").expect("VLLM_SPEECH_MODELS names the folder of models").into()
}

/// The samples of a file of 16 bits whose header is the usual one of 44 bytes.
fn samples(name: &str) -> Vec<f32> {
    let bytes = fs::read(models().join("media/librivox").join(name)).unwrap();
    assert_eq!((&bytes[36..40], &bytes[22..28]), (b"data".as_slice(), [1, 0, 0x80, 0x3e, 0, 0].as_slice()), "{name}");
    bytes[44..].as_chunks::<2>().0.iter().map(|&bytes| f32::from(i16::from_le_bytes(bytes)) / 32768.0).collect()
}

#[test]
#[ignore = "needs models"]
fn silero_hears_in_recordings_what_onnxruntime_does() {
    let silero = Arc::new(Silero::load(&models().join("vad/silero_vad_16k.safetensors")).unwrap());
    let clips = fixtures::json::<Fixture>("real.json").clips;
    assert!(!clips.is_empty());
    for clip in clips {
        let samples = samples(&clip.name);
        let mut stream = Stream::new(Arc::clone(&silero));
        let found: Vec<f32> = samples.as_chunks::<CHUNK>().0.iter().map(|chunk| stream.push(chunk)).collect();
        let (apart, chunk) = fixtures::farthest(&found, &clip.probabilities);
        println!("{}: {apart:.1e} apart at most", clip.name);
        assert!(apart < 1e-4, "{}: {apart} apart in chunk {chunk}", clip.name);
        let stretches: Vec<_> =
            speech(&silero, &samples, &VadOptions::default()).iter().map(|range| (range.start, range.end)).collect();
        assert_eq!(stretches, clip.found, "{}", clip.name);
    }
}
