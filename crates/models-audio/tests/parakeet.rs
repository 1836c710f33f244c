//! A tiny Parakeet of random weights beside mlx-audio's, over our kernels and over MLX's operations.

mod support;

use std::{cell::Cell, fs, path::Path};

use support::{Reference, fixture, options};
use vllm_platform::{HeardToken, Mel, MelScale, ModelPurpose, ModelSource, Platform, Transcriber, Transducer};
use vllm_platform_mlx::{MlxPlatform, MlxTransducer};

const BANDS: usize = 16;

fn load(path: &Path) -> vllm_platform::Result<Box<dyn Transducer>> {
    match MlxPlatform.load_transcriber(&ModelSource { path: path.into() }, &options(), &mut |_, _| {})? {
        Transcriber::Transducer(model) => Ok(model),
        Transcriber::Listener(_) => panic!("{} is no transducer", path.display()),
    }
}

fn both() -> [(&'static str, Box<dyn Transducer>); 2] {
    let path = fixture("parakeet");
    let ours = load(&path).unwrap_or_else(|e| panic!("{e}"));
    [("ours", ours), ("MLX's", Box::new(MlxTransducer::load_over_mlx(&path).unwrap()))]
}

fn mel(reference: &Reference, name: &str) -> Mel {
    let numbers = reference.floats(&format!("{name}.mel"));
    Mel { frames: numbers.len() / BANDS, numbers }
}

fn check(backend: &str, name: &str, reference: &Reference, heard: &[HeardToken]) {
    let tokens: Vec<u32> = heard.iter().map(|heard| heard.token).collect();
    assert_eq!(tokens, reference.counts(&format!("{name}.tokens")), "{name}, {backend}");
    let times = |of: fn(&HeardToken) -> f32| heard.iter().map(of).collect::<Vec<f32>>();
    for (what, found) in
        [("start", times(|h| h.start.as_secs_f32())), ("duration", times(|h| h.duration.as_secs_f32()))]
    {
        for (found, wanted) in found.iter().zip(reference.floats(&format!("{name}.{what}"))) {
            assert!((found - wanted).abs() < 1e-5, "{name}, {backend}: {what} {found} for {wanted}");
        }
    }
    assert!(heard.iter().all(|heard| heard.probability > 0.0 && heard.probability <= 1.0), "{name}, {backend}");
}

#[test]
fn sounds_as_mlx_audio_hears_them() {
    let reference = Reference::load(&fixture("parakeet/reference.safetensors"));
    let names = ["short", "long", "least"];
    let sounds = names.map(|name| mel(&reference, name));
    let several = reference.counts("long.tokens").len();
    assert!(several > 10, "a reference that says something");
    for (backend, mut model) in both() {
        let pauses = Cell::new(0);
        let heard = model.transcribe(&sounds.each_ref(), &mut || pauses.set(pauses.get() + 1)).unwrap();
        for (name, heard) in names.into_iter().zip(&heard) {
            check(backend, name, &reference, heard);
        }
        assert!(pauses.get() > several, "{backend}: {} pauses", pauses.get());
    }
}

#[test]
fn what_a_model_is() {
    let source = ModelSource { path: fixture("parakeet") };
    assert_eq!(MlxPlatform.purpose(&source), Ok(ModelPurpose::Transcribe));
    for (backend, model) in both() {
        let info = model.info();
        assert_eq!((info.architecture.as_str(), info.vocab_size), ("EncDecRNNTBPEModel", 20), "{backend}");
        let mel = &info.mel;
        assert_eq!((mel.sample_rate, mel.fft, mel.window, mel.hop, mel.bands), (16_000, 512, 400, 160, BANDS));
        assert_eq!(mel.scale, MelScale::PerBand { preemphasis: 0.97 });
        assert_eq!(model.pieces()[2], "▁a", "{backend}");
    }
}

#[test]
fn what_no_model_can_do_is_refused() {
    for (backend, mut model) in both() {
        let wrong = Mel { numbers: vec![0.0; 7], frames: 1 };
        let error = model.transcribe(&[&wrong], &mut || {}).unwrap_err().to_string();
        assert!(error.contains("7 numbers are not 1 frames of 16 bands"), "{backend}: {error}");
        let nothing = Mel { numbers: vec![], frames: 0 };
        assert_eq!(model.transcribe(&[&nothing], &mut || {}), Ok(vec![vec![]]), "{backend}");
    }
    let config = fs::read_to_string(fixture("parakeet/config.json")).unwrap();
    for (from, to, wanted) in [
        ("\"tdt\"", "\"rnnt\"", "decoding.model_type is \"rnnt\""),
        ("\"rel_pos\"", "\"rel_pos_local_attn\"", "self_attention_model"),
        ("\"n_heads\": 4", "\"n_heads\": 5", "5 heads in 32 channels"),
        ("\"conv_kernel_size\": 9", "\"conv_kernel_size\": 8", "must be odd"),
        ("\"n_layers\": 2", "\"n_layers\": 3", "encoder.layers.2"),
        ("\"n_layers\": 2", "\"n_layers\": 1", "encoder.layers.1"),
    ] {
        assert!(config.contains(from), "{from}");
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config.replacen(from, to, 1)).unwrap();
        fs::copy(fixture("parakeet/model.safetensors"), folder.path().join("model.safetensors")).unwrap();
        let error = load(folder.path()).err().unwrap_or_else(|| panic!("{to} was taken")).to_string();
        assert!(error.contains(wanted), "{to}: {error}");
    }
}
