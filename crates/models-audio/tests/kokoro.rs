//! Kokoro against mlx-audio: tiny checkpoints stage by stage, over our operations and MLX's, and the real weights.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use vllm_models_audio as _;
use vllm_platform::{
    Activations, ModelPurpose, ModelSource, Platform as _, SpeechOptions, Synthesizer as _, Utterance,
};
use vllm_platform_mlx::{MlxPlatform, MlxSynthesizer};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kokoro").join(name)
}

/// What `fixtures/kokoro/make.py` wrote of some utterances: tensors by name.
struct Reference(HashMap<String, Vec<f32>>);

fn numbers(tensor: &TensorView<'_>) -> Vec<f32> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::U32 => data.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()) as f32).collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect(),
        other => panic!("{other:?}"),
    }
}

/// An utterance, and what comes out.
struct Case<'a> {
    number: usize,
    reference: &'a Reference,
    symbols: Vec<u32>,
    seed: u64,
}

impl Reference {
    fn open(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = SafeTensors::deserialize(&bytes).unwrap();
        Self(file.tensors().iter().map(|(name, tensor)| (name.clone(), numbers(tensor))).collect())
    }

    fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        (0..).map_while(|number| {
            let symbols = self.0.get(&format!("{number}.symbols"))?.iter().map(|&s| s as u32).collect();
            let halves = &self.0[&format!("{number}.seed")];
            let seed = halves[0] as u64 | (halves[1] as u64) << 32;
            Some(Case { number, reference: self, symbols, seed })
        })
    }
}

impl Case<'_> {
    fn get(&self, stage: &str) -> Option<&[f32]> {
        self.reference.0.get(&format!("{}.{stage}", self.number)).map(Vec::as_slice)
    }

    fn utterance(&self) -> Utterance<'_> {
        let style = self.get("style").unwrap();
        Utterance { symbols: &self.symbols, style, speed: self.get("speed").unwrap()[0], seed: self.seed }
    }

    /// What the model says, with the last that came out of each stage, `sound` among them.
    fn say(&self, model: &MlxSynthesizer) -> HashMap<&'static str, Vec<f32>> {
        let mut stages = HashMap::new();
        let sound = model.synthesize_by_stages(&self.utterance(), &mut |stage, x| {
            stages.insert(stage, x.as_slice::<f32>().to_vec());
        });
        stages.insert("sound", sound.unwrap());
        stages
    }
}

/// The root of the mean square of differences, relative to that of what is wanted.
fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(wanted).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    (difference / wanted.iter().map(|&b| square(f64::from(b))).sum::<f64>()).sqrt()
}

fn options(activations: Activations) -> SpeechOptions {
    SpeechOptions { threads: Some(2), activations, ..SpeechOptions::default() }
}

/// Magnitudes and sines of phases, as mlx-audio has them, of logarithms and what phases are the sines of.
fn polar(spectra: &[f32], len: usize) -> Vec<f32> {
    let turn = |row: &[f32]| {
        let (logarithms, phases) = row.split_at(len / 2);
        logarithms.iter().map(|x| x.exp()).chain(phases.iter().map(|x| x.sin())).collect::<Vec<_>>()
    };
    spectra.chunks_exact(len).flat_map(turn).collect()
}

/// Real and imaginary parts of magnitudes and phases.
fn cartesian(spectra: &[f32], len: usize) -> Vec<f32> {
    let turn = |row: &[f32]| {
        let (magnitudes, phases) = row.split_at(len / 2);
        magnitudes.iter().zip(phases).flat_map(|(m, p)| [m * p.cos(), m * p.sin()]).collect::<Vec<_>>()
    };
    spectra.chunks_exact(len).flat_map(turn).collect()
}

/// What is compared, and how near it must be. Phases of the source add up in f32 over there, in f64 here; and where a spectrum is
/// next to nothing, its phase is whatever rounding makes it.
const STAGES: [(&str, f64); 11] = [
    ("albert", 1e-5),
    ("encoded", 1e-5),
    ("durations", 1e-5),
    ("pitch", 3e-5),
    ("loudness", 3e-5),
    ("phonemes", 1e-5),
    ("decoder", 3e-5),
    ("source", 3e-4),
    ("magnitudes", 2e-3),
    ("sines", 5e-3),
    ("sound", 2e-3),
];

#[test]
fn tiny_stage_by_stage() {
    let path = fixture("tiny");
    assert_eq!(MlxPlatform.purpose(&ModelSource { path: path.clone() }), Ok(ModelPurpose::Speak));
    let reference = Reference::open(&fixture("tiny.safetensors"));
    let models = [
        ("ours", MlxSynthesizer::load(&path, &options(Activations::F32)).unwrap()),
        ("MLX's", MlxSynthesizer::load_over_mlx(&path).unwrap()),
    ];
    for (name, model) in &models {
        let mut cases = 0;
        for case in reference.cases() {
            let mut found = case.say(model);
            let spectra = polar(&found.remove("spectra").unwrap(), 10);
            let halves = |first: usize| spectra.chunks_exact(10).flat_map(move |row| row[first..first + 5].to_vec());
            let source = cartesian(&found["source"], 10);
            found.extend([("source", source), ("magnitudes", halves(0).collect()), ("sines", halves(5).collect())]);
            for (stage, tolerance) in STAGES {
                let wanted = case.get(stage).unwrap();
                let wanted = if stage == "source" { cartesian(wanted, 10) } else { wanted.to_vec() };
                let error = relative_error(&found[stage], &wanted);
                println!("{name}, case {}, {stage}: {error:.1e}", case.number);
                assert!(error < tolerance, "{name}, case {}, {stage}: {error:.1e}", case.number);
            }
            cases += 1;
        }
        assert_eq!(cases, 3);
    }
}

/// As mlx-audio saves a model that it has quantized: its names and layouts, layers of 8 bits.
#[test]
fn tiny_in_eight_bits() {
    let path = fixture("tiny-8bit");
    let reference = Reference::open(&fixture("tiny-8bit.safetensors"));
    let model = MlxSynthesizer::load(&path, &options(Activations::F32)).unwrap();
    assert_eq!(model.info().quantization, "affine 8 bit group 32");
    for case in reference.cases() {
        let found = case.say(&model);
        for (stage, tolerance) in [("durations", 1e-5), ("pitch", 1e-3), ("sound", 3e-2)] {
            let error = relative_error(&found[stage], case.get(stage).unwrap());
            println!("8 bit, {stage}: {error:.1e}");
            assert!(error < tolerance, "{stage}: {error:.1e}");
        }
    }
}

/// Kokoro-82M.
fn kokoro() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/kokoro-82m");
    assert!(path.join("kokoro-v1_0.safetensors").exists(), "run `cargo xtask models fetch kokoro-82m`");
    path
}

/// The real weights: the same frames for each phoneme, the same pitch, and the same sound but for noise that nobody hears.
#[test]
fn kokoro_speaks_as_mlx_audio_does() {
    let reference = Reference::open(&fixture("real.safetensors"));
    // (activations, tolerances of pitch and of sound). Pitch is what phases add up from: a little of it is much of the sound.
    let ways = [(Activations::F32, 1e-3, 2e-2), (Activations::Int16, 3e-3, 1e-1), (Activations::Int8, 3e-2, 0.5)];
    for (activations, pitch, sound) in ways {
        let model = MlxSynthesizer::load(&kokoro(), &options(activations)).unwrap();
        let info = model.info();
        assert_eq!((info.sample_rate, info.max_symbols, info.style_len), (24_000, 510, 256));
        assert_eq!((info.parameters, info.symbols["ɹ"]), (81_172_818, 123));
        for case in reference.cases() {
            let found = case.say(&model);
            for (stage, tolerance) in [("durations", 1e-3), ("pitch", pitch), ("loudness", pitch), ("sound", sound)] {
                let error = relative_error(&found[stage], case.get(stage).unwrap());
                println!("{activations:?}, case {}, {stage}: {error:.1e}", case.number);
                assert!(error < tolerance, "{activations:?}, case {}, {stage}: {error:.1e}", case.number);
            }
        }
    }
}

/// What no caller should ask for: an error, and the model lives on.
#[test]
fn bad_utterances_are_errors_and_nothing_more() {
    let reference = Reference::open(&fixture("tiny.safetensors"));
    let case = reference.cases().nth(1).unwrap();
    let mut model = MlxSynthesizer::load(&fixture("tiny"), &options(Activations::F32)).unwrap();
    let good = case.utterance();
    let long = [3; 23];
    // (name, utterance, what the error says)
    let bad = [
        ("nothing", Utterance { symbols: &[], ..good }, "0 symbols"),
        ("too long", Utterance { symbols: &long, ..good }, "23 symbols"),
        ("no such symbol", Utterance { symbols: &[40], ..good }, "beyond the vocabulary of 40"),
        ("half a style", Utterance { style: &good.style[..32], ..good }, "a style of 32 numbers"),
        ("no speed", Utterance { speed: 0.0, ..good }, "a speed of 0"),
        ("a speed that is none", Utterance { speed: f32::NAN, ..good }, "a speed of NaN"),
        ("all day", Utterance { speed: 1e-6, ..good }, "more than 36000 frames"),
    ];
    for (name, utterance, wanted) in bad {
        let error = model.synthesize(&utterance, &mut || ()).expect_err(name).to_string();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    let mut pauses = 0;
    let sound = model.synthesize(&good, &mut || pauses += 1).unwrap();
    assert!(relative_error(&sound, case.get("sound").unwrap()) < 2e-3 && pauses > 10, "{pauses} pauses");
    // The same seed, the same sound; another seed, another noise.
    assert_eq!(model.synthesize(&good, &mut || ()).unwrap(), sound);
    assert_ne!(model.synthesize(&Utterance { seed: 3, ..good }, &mut || ()).unwrap(), sound);
    let fast = model.synthesize(&Utterance { speed: 2.0, ..good }, &mut || ()).unwrap();
    assert!(fast.len() < sound.len() && !fast.is_empty());
}
