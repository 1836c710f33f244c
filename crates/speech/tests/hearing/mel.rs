//! Spectrograms, as openai-whisper and mlx-audio compute them.

use std::fs;

use serde::Deserialize;
use vllm_platform::{Mel, MelScale, MelSettings};
use vllm_speech::mel::{MelSpectrogram, cut};

use crate::fixtures;

#[derive(Deserialize)]
struct Case {
    name: String,
    frames: usize,
    bands: usize,
    fft: usize,
    silence: usize,
    samples: usize,
    preemphasis: Option<f32>,
}

fn settings(fft: usize, bands: usize, scale: MelScale) -> MelSettings {
    MelSettings { sample_rate: 16_000, fft, window: 400, hop: 160, bands, scale }
}

#[test]
fn spectrograms_are_those_of_the_models_training() {
    let sound = fixtures::sound();
    let bytes = fs::read(fixtures::path("mel.bin")).unwrap();
    let mut numbers = bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes));
    for case in fixtures::json::<Vec<Case>>("mel.json") {
        let scale = case.preemphasis.map_or(MelScale::Whisper, |preemphasis| MelScale::PerBand { preemphasis });
        let spectrogram = MelSpectrogram::new(&settings(case.fft, case.bands, scale));
        let mel = spectrogram.log_mel_padded(&sound[..case.samples], case.silence);
        assert_eq!(mel.frames, spectrogram.frames(case.samples + case.silence), "{}", case.name);
        let wanted: Vec<f32> = numbers.by_ref().take(case.frames * case.bands).collect();
        let (shown, rest) = mel.numbers.split_at(wanted.len());
        let (apart, place) = fixtures::farthest(shown, &wanted);
        assert!(
            apart < 1e-4,
            "{}: {apart} apart in frame {}, band {}",
            case.name,
            place / case.bands,
            place % case.bands
        );
        // Of a long silence only the beginning is kept.
        let last = &wanted[wanted.len() - case.bands..];
        assert!(
            rest.chunks_exact(case.bands).all(|frame| fixtures::farthest(frame, last).0 < 1e-4),
            "{}: silence",
            case.name
        );
        assert_eq!(rest.is_empty(), case.silence == 0, "{}", case.name);
    }
    assert_eq!(numbers.next(), None);
}

#[test]
fn threads_change_nothing() {
    let noise: Vec<f32> = fixtures::noise(5, 16_000 * 31 + 77).map(|number| number as f32 - 0.5).collect();
    for scale in [MelScale::Whisper, MelScale::PerBand { preemphasis: 0.97 }] {
        let spectrogram = MelSpectrogram::new(&settings(400, 80, scale));
        let alone = spectrogram.clone().with_threads(1).log_mel_padded(&noise, 480_000);
        for threads in [2, 3, 4] {
            assert_eq!(
                spectrogram.clone().with_threads(threads).log_mel_padded(&noise, 480_000),
                alone,
                "{threads} threads"
            );
        }
    }
}

#[test]
fn sounds_shorter_than_a_transform_have_a_spectrogram() {
    let sound = fixtures::sound();
    for samples in [0, 1, 159, 160, 199, 200, 201, 400] {
        for scale in [MelScale::Whisper, MelScale::PerBand { preemphasis: 0.97 }] {
            let spectrogram = MelSpectrogram::new(&settings(400, 80, scale));
            let mel = spectrogram.log_mel(&sound[..samples]);
            assert_eq!((mel.frames, mel.numbers.len()), (spectrogram.frames(samples), mel.frames * 80));
            assert!(mel.numbers.iter().all(|number| number.is_finite()), "{samples} samples, {scale:?}");
        }
    }
}

#[test]
fn a_window_is_filled_up_with_zeros() {
    let mel = Mel { numbers: (0..10).map(|number| number as f32).collect(), frames: 5 };
    let cases = [
        (0..5, 5, vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]),
        (3..5, 3, vec![6.0, 7.0, 8.0, 9.0, 0.0, 0.0]),
        (5..5, 1, vec![0.0, 0.0]),
    ];
    for (frames, window, numbers) in cases {
        assert_eq!(cut(&mel, 2, frames.clone(), window), Mel { numbers, frames: window }, "{frames:?}");
    }
}
