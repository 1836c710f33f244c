//! Files, tones and figures that several tests want.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::{fs, io::Cursor, path::PathBuf};

use vllm_audio::{DecodeError, Limits, Sound, decode};

fn fixtures() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures"].iter().collect()
}

/// The bytes of one of `fixtures/files`.
pub fn file(name: &str) -> Vec<u8> {
    fs::read(fixtures().join("files").join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Samples that a reference has made (`fixtures/<path>`).
pub fn floats(path: &str) -> Vec<f32> {
    let bytes = fs::read(fixtures().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap())).collect()
}

/// Decodes within the usual limits, and without a hint.
pub fn heard(bytes: &[u8]) -> Result<Sound, DecodeError> {
    decode(Cursor::new(bytes.to_vec()), None, &Limits::default())
}

/// Signal to noise in dB, over the length that both have. Infinite if they are equal.
pub fn snr(found: &[f32], wanted: &[f32]) -> f64 {
    let shorter = found.len().min(wanted.len());
    let power: f64 = wanted[..shorter].iter().map(|&x| f64::from(x).powi(2)).sum();
    let noise: f64 = found.iter().zip(wanted).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum();
    10.0 * (power / noise).log10()
}

/// A tone that rises from 100 Hz to a tenth of the rate, loud at its beginning and its end too.
pub fn chirp(rate: u32, samples: usize) -> Vec<f32> {
    let (low, high, length) = (100.0, f64::from(rate) / 10.0, samples as f64 / f64::from(rate));
    let at = |i: usize| {
        let t = i as f64 / f64::from(rate);
        (0.5 * (std::f64::consts::TAU * (low * t + (high - low) * t * t / (2.0 * length))).sin()) as f32
    };
    (0..samples).map(at).collect()
}

/// Samples of 16 bits in a WAV file, by the plainest header there is; `data`: the length that it states.
pub fn wav(samples: &[i16], rate: u32, channels: u16, data: u32) -> Vec<u8> {
    let mut bytes = b"RIFF".to_vec();
    bytes.extend(data.saturating_add(36).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    bytes.extend(16u32.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(channels.to_le_bytes());
    bytes.extend(rate.to_le_bytes());
    bytes.extend((rate.saturating_mul(2 * u32::from(channels))).to_le_bytes());
    bytes.extend((2 * channels).to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend(b"data");
    bytes.extend(data.to_le_bytes());
    bytes.extend(samples.iter().flat_map(|sample| sample.to_le_bytes()));
    bytes
}
