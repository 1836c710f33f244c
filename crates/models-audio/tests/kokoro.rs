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
    ("magnitudes", 1e-2),
    ("sines", 1e-1),
    ("sound", 1e-2),
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
    assert_eq!(model.info().quantization, "affine 8 bit, group 32");
    for case in reference.cases() {
        let found = case.say(&model);
        for (stage, tolerance) in [("durations", 1e-5), ("pitch", 1e-3), ("sound", 3e-2)] {
            let error = relative_error(&found[stage], case.get(stage).unwrap());
            println!("8 bit, {stage}: {error:.1e}");
            assert!(error < tolerance, "{stage}: {error:.1e}");
        }
    }
}
