//! Voice activity, as Silero's package finds it.

use std::collections::HashMap;
use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use safetensors::tensor::{Dtype, TensorView, serialize};
use serde::Deserialize;
use vllm_speech::vad::{
    CHUNK, LoadError, Silero, SpeechWindow, Stream, TurnDetector, TurnEvent, TurnOptions, VadOptions, speech,
    stretches, windows,
};

use crate::fixtures::{self, noise};

#[derive(Deserialize)]
struct Fixture {
    probabilities: Vec<f32>,
    stretches: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    probabilities: Vec<f32>,
    length: usize,
    found: Vec<(usize, usize)>,
    threshold: f32,
    neg_threshold: Option<f32>,
    min_speech_duration_ms: u64,
    min_silence_duration_ms: u64,
    speech_pad_ms: u64,
    max_speech_duration_s: Option<f64>,
}

/// Name, shape, numbers.
type Tensor = (&'static str, Vec<usize>, Vec<f32>);

/// `make.py`'s weights.
fn tensors() -> Vec<Tensor> {
    let shapes: [(&str, &[usize]); 14] = [
        ("conv1.weight", &[128, 129, 3]),
        ("conv1.bias", &[128]),
        ("conv2.weight", &[64, 128, 3]),
        ("conv2.bias", &[64]),
        ("conv3.weight", &[64, 64, 3]),
        ("conv3.bias", &[64]),
        ("conv4.weight", &[128, 64, 3]),
        ("conv4.bias", &[128]),
        ("lstm_cell.weight_ih", &[512, 128]),
        ("lstm_cell.weight_hh", &[512, 128]),
        ("lstm_cell.bias_ih", &[512]),
        ("lstm_cell.bias_hh", &[512]),
        ("final_conv.weight", &[1, 128, 1]),
        ("final_conv.bias", &[1]),
    ];
    let mut tensors: Vec<Tensor> = vec![];
    for (index, (name, shape)) in shapes.into_iter().enumerate() {
        let count: usize = shape.iter().product();
        let strength = if name.starts_with("lstm") { 4.0 } else { 2.0 };
        let scale = if shape.len() > 1 { strength / ((count / shape[0]) as f64).sqrt() } else { 0.2 };
        let scale = if name == "final_conv.weight" { 8.0 * scale } else { scale };
        let numbers = noise(100 + index as u64, count).map(|number| ((number - 0.5) * 2.0 * scale) as f32);
        tensors.push((name, shape.to_vec(), numbers.collect()));
    }
    let window = |place: usize| 0.5 - 0.5 * (2.0 * PI * place as f64 / 256.0).cos();
    let angle = |bin: usize, place: usize| 2.0 * PI * ((bin * place) % 256) as f64 / 256.0;
    let places = || (0..129).flat_map(|bin| (0..256).map(move |place| (bin, place)));
    let real = places().map(|(bin, place)| window(place) * angle(bin, place).cos());
    let imaginary = places().map(|(bin, place)| window(place) * -angle(bin, place).sin());
    tensors.push(("stft_conv.weight", vec![258, 1, 256], real.chain(imaginary).map(|number| number as f32).collect()));
    tensors
}

fn file(tensors: &[Tensor]) -> Vec<u8> {
    let bytes: Vec<Vec<u8>> =
        tensors.iter().map(|(_, _, numbers)| numbers.iter().flat_map(|n| n.to_le_bytes()).collect()).collect();
    let views = tensors
        .iter()
        .zip(&bytes)
        .map(|((name, shape, _), bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    serialize(views.collect::<HashMap<_, _>>(), None).unwrap()
}

fn silero() -> Silero {
    Silero::from_bytes(&file(&tensors())).unwrap()
}

#[test]
fn probabilities_are_those_of_the_network() {
    let wanted = fixtures::json::<Fixture>("vad.json").probabilities;
    let sound = fixtures::sound().repeat(3);
    let mut stream = Stream::new(Arc::new(silero()));
    for round in 0..2 {
        let found: Vec<f32> = sound.as_chunks::<CHUNK>().0.iter().map(|chunk| stream.push(chunk)).collect();
        let (apart, chunk) = fixtures::farthest(&found, &wanted);
        assert!(apart < 1e-5, "round {round}: {apart} apart in chunk {chunk}");
        stream.reset();
    }
    let (least, most) = wanted.iter().fold((1.0f32, 0.0f32), |(least, most), &p| (least.min(p), most.max(p)));
    assert!(most - least > 0.2, "the weights have an opinion: {least} to {most}");
}

#[test]
fn stretches_are_those_of_the_package() {
    for (index, case) in fixtures::json::<Fixture>("vad.json").stretches.into_iter().enumerate() {
        let options = VadOptions {
            threshold: case.threshold,
            end_threshold: case.neg_threshold,
            min_speech: Duration::from_millis(case.min_speech_duration_ms),
            min_silence: Duration::from_millis(case.min_silence_duration_ms),
            padding: Duration::from_millis(case.speech_pad_ms),
            max_speech: case.max_speech_duration_s.map(Duration::from_secs_f64),
        };
        let found = stretches(&case.probabilities, case.length, &options);
        let wanted: Vec<Range<usize>> = case.found.into_iter().map(|(start, end)| start..end).collect();
        assert_eq!(found, wanted, "case {index}: {options:?}, {:?}", case.probabilities);
    }
}

#[test]
fn speech_hears_the_rest_of_a_chunk() {
    let silero = silero();
    let sound = fixtures::sound();
    let options = VadOptions { threshold: 0.0, min_speech: Duration::ZERO, ..VadOptions::default() };
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1] {
        let found = speech(&silero, &sound[..len], &options);
        let all = std::iter::once(0..len).filter(|range| !range.is_empty());
        assert_eq!(found, all.collect::<Vec<_>>(), "{len} samples");
    }
}

#[test]
fn weights_may_have_the_names_of_the_onnx_file() {
    let mut renamed = tensors();
    for (name, _, _) in &mut renamed {
        *name = match *name {
            "conv1.weight" => "model.encoder.0.reparam_conv.weight",
            "conv4.bias" => "model.encoder.3.reparam_conv.bias",
            "lstm_cell.weight_hh" => "model.decoder.rnn.weight_hh",
            "final_conv.bias" => "model.decoder.decoder.2.bias",
            "stft_conv.weight" => "model.stft.forward_basis_buffer",
            other => other,
        };
    }
    let renamed = Silero::from_bytes(&file(&renamed)).unwrap();
    let chunk = fixtures::sound()[..CHUNK].try_into().unwrap();
    assert_eq!(Stream::new(Arc::new(renamed)).push(&chunk), Stream::new(Arc::new(silero())).push(&chunk));
}

#[test]
fn files_with_something_else_are_refused() {
    type Change = fn(&mut Vec<Tensor>);
    let cases: [(&str, Change, &str); 4] = [
        ("a tensor missing", |tensors| tensors.retain(|tensor| tensor.0 != "conv3.bias"), "tensor conv3.bias: missing"),
        (
            "another shape",
            |tensors| tensors[0].1 = vec![129, 128, 3],
            "tensor conv1.weight: F32 [129, 128, 3] in the file, F32 [128, 129, 3] wanted",
        ),
        ("no number", |tensors| tensors[2].2[7] = f32::NAN, "tensor conv2.weight: holds numbers that are not finite"),
        (
            "another first layer",
            |tensors| tensors[14].2[256 * 3 + 100] += 0.01,
            "tensor stft_conv.weight: no Fourier transform",
        ),
    ];
    for (name, change, fault) in cases {
        let mut tensors = tensors();
        change(&mut tensors);
        let error = Silero::from_bytes(&file(&tensors)).unwrap_err();
        assert!(error.to_string().starts_with(fault), "{name}: {error}");
    }
    assert!(matches!(Silero::from_bytes(b"nothing"), Err(LoadError::Format(_))));
    let missing = Silero::load(&fixtures::path("no such file")).unwrap_err();
    assert!(missing.to_string().starts_with("cannot read "), "{missing}");
}

#[test]
fn windows_are_filled_in_order() {
    /// Begins and ends.
    type Stretches = &'static [(usize, usize)];
    let ranges = |stretches: Stretches| stretches.iter().map(|&(begin, end)| begin..end).collect::<Vec<_>>();
    let cases: [(&str, Stretches, usize, &[Stretches]); 6] = [
        ("nothing", &[], 10, &[]),
        ("one", &[(3, 7)], 10, &[&[(3, 7)]]),
        ("two in one", &[(0, 4), (10, 16)], 10, &[&[(0, 4), (10, 16)]]),
        ("one too many", &[(0, 4), (10, 17)], 10, &[&[(0, 4)], &[(10, 17)]]),
        ("too long", &[(0, 25), (30, 33)], 10, &[&[(0, 10)], &[(10, 20)], &[(20, 25), (30, 33)]]),
        ("empty", &[(5, 5), (6, 8)], 10, &[&[(6, 8)]]),
    ];
    for (name, stretches, max, wanted) in cases {
        let wanted: Vec<SpeechWindow> =
            wanted.iter().map(|&window| SpeechWindow { stretches: ranges(window) }).collect();
        assert_eq!(windows(&ranges(stretches), max), wanted, "{name}");
    }
}

#[test]
fn times_of_a_window_are_found_in_the_sound() {
    let window = SpeechWindow { stretches: vec![16_000..32_000, 48_000..80_000] };
    assert_eq!((window.len(), window.is_empty()), (48_000, false));
    // In the window, and in the sound for what begins and what ends there.
    let cases = [
        (0.0, 1.0, 1.0),
        (0.5, 1.5, 1.5),
        (1.0, 3.0, 2.0),
        (1.02, 3.02, 3.02),
        (3.0, 5.0, 5.0),
        (29.0, 5.0, 5.0),
        (-0.1, 1.0, 1.0),
    ];
    for (seconds, start, end) in cases {
        assert_eq!((window.start(seconds), window.end(seconds)), (start, end), "{seconds}");
    }
    let sound: Vec<f32> = (0..100_000).map(|number| number as f32).collect();
    let samples = window.samples(&sound);
    assert_eq!((samples.len(), samples[0], samples[16_000], samples[47_999]), (48_000, 16_000.0, 48_000.0, 79_999.0));
}

/// A detector that hears speech wherever a sound is loud: everything but the way from the first magnitudes to the last neuron is 0.
fn loudness() -> Arc<Silero> {
    let mut tensors = tensors();
    for (name, _, numbers) in &mut tensors {
        match *name {
            "stft_conv.weight" => {}
            // Forty magnitudes, then the first number on and on, of the third transform only: it hears nothing but its own chunk.
            "conv1.weight" => {
                numbers.fill(0.0);
                (0..40).for_each(|bin| numbers[bin * 3 + 1] = 1.0);
            }
            "conv2.weight" | "conv3.weight" | "conv4.weight" => {
                numbers.fill(0.0);
                numbers[if *name == "conv3.weight" { 2 } else { 1 }] = 1.0;
            }
            "lstm_cell.weight_ih" => {
                numbers.fill(0.0);
                numbers[256 * 128] = 1.0;
            }
            // Input and output open, nothing remembered.
            "lstm_cell.bias_ih" => {
                numbers.fill(0.0);
                (numbers[0], numbers[128], numbers[384]) = (20.0, -20.0, 20.0);
            }
            "final_conv.weight" => {
                numbers.fill(0.0);
                numbers[0] = 20.0;
            }
            "final_conv.bias" => numbers[0] = -5.0,
            _ => numbers.fill(0.0),
        }
    }
    Arc::new(Silero::from_bytes(&file(&tensors)).unwrap())
}

/// A sound that is loud where it says so, by chunks.
fn loud(chunks: &[(usize, bool)]) -> Vec<f32> {
    let mut sound: Vec<f32> = vec![];
    for &(count, loud) in chunks {
        let from = sound.len();
        sound.extend((from..from + count * CHUNK).map(|place| if loud { (place as f32 * 0.4).sin() } else { 0.0 }));
    }
    sound
}

#[test]
fn turns_begin_before_they_are_heard_and_end_after_a_silence() {
    let silero = loudness();
    let options = |prefix: u64, silence: u64| TurnOptions {
        prefix_padding: Duration::from_millis(prefix * 32),
        silence_duration: Duration::from_millis(silence * 32),
        ..TurnOptions::default()
    };
    /// How many chunks, and whether they are loud.
    type Chunks = &'static [(usize, bool)];
    /// Whether a turn starts, and at which chunk it does or stops.
    type Events = &'static [(bool, u64)];
    let cases: [(&str, Chunks, TurnOptions, Events); 6] = [
        ("silence", &[(20, false)], options(2, 4), &[]),
        ("a turn", &[(10, false), (5, true), (10, false)], options(2, 4), &[(true, 8), (false, 19)]),
        ("from the beginning", &[(3, true), (10, false)], options(2, 4), &[(true, 0), (false, 7)]),
        (
            "a pause is not the end",
            &[(3, true), (3, false), (3, true), (10, false)],
            options(2, 4),
            &[(true, 0), (false, 13)],
        ),
        ("goes on", &[(4, false), (3, true)], options(2, 4), &[(true, 2)]),
        (
            "no turn begins within the one before",
            &[(3, true), (5, false), (3, true), (5, false)],
            options(9, 4),
            &[(true, 0), (false, 7), (true, 7), (false, 15)],
        ),
    ];
    for (name, chunks, options, wanted) in cases {
        let sound = loud(chunks);
        let event = |&(starts, chunk): &(bool, u64)| {
            let at = chunk * CHUNK as u64;
            if starts { TurnEvent::Started { at } } else { TurnEvent::Stopped { at } }
        };
        let wanted: Vec<TurnEvent> = wanted.iter().map(event).collect();
        for piece in [1, 100, CHUNK, 100_000] {
            let mut detector = TurnDetector::new(Arc::clone(&silero), options.clone());
            let found: Vec<TurnEvent> = sound.chunks(piece).flat_map(|piece| detector.push(piece)).collect();
            assert_eq!(found, wanted, "{name}, {piece} samples at a time");
            assert_eq!(detector.position(), sound.len() as u64);
            assert_eq!(detector.is_speaking(), matches!(wanted.last(), Some(TurnEvent::Started { .. })), "{name}");
        }
    }
}

#[test]
fn a_turn_that_was_taken_by_hand_is_over() {
    let mut detector = TurnDetector::new(loudness(), TurnOptions::default());
    assert_eq!(detector.push(&loud(&[(2, false), (2, true)])), [TurnEvent::Started { at: 0 }]);
    detector.reset();
    assert!(!detector.is_speaking());
    // Whoever goes on speaking begins another, not before that place.
    assert_eq!(detector.push(&loud(&[(2, true)])), [TurnEvent::Started { at: 4 * CHUNK as u64 }]);
}
