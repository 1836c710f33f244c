//! What the tests share: fixtures, references, and models as a platform loads them.
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use safetensors::SafeTensors;
use vllm_models_audio as _;
use vllm_platform::{Activations, DeviceChoice, Listener, ModelSource, Platform, SpeechOptions, Transcriber};
use vllm_platform_mlx::{MlxListener, MlxPlatform};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// Tensors that a reference implementation computed.
pub struct Reference {
    pub metadata: HashMap<String, String>,
    pub tensors: HashMap<String, (Vec<usize>, Vec<u8>)>,
}

impl Reference {
    pub fn load(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file.iter().map(|(name, view)| (name.into(), (view.shape().to_vec(), view.data().to_vec())));
        Self { metadata: metadata.metadata().clone().unwrap_or_default(), tensors: tensors.collect() }
    }

    pub fn shape(&self, name: &str) -> &[usize] {
        &self.tensors[name].0
    }

    fn words(&self, name: &str) -> impl Iterator<Item = [u8; 4]> {
        self.tensors[name].1.chunks_exact(4).map(|word| word.try_into().unwrap())
    }

    pub fn floats(&self, name: &str) -> Vec<f32> {
        self.words(name).map(f32::from_le_bytes).collect()
    }

    pub fn counts(&self, name: &str) -> Vec<u32> {
        self.words(name).map(u32::from_le_bytes).collect()
    }
}

/// Options of a test: activations as they are, two threads.
pub fn options() -> SpeechOptions {
    SpeechOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        activations: Activations::F32,
        ..SpeechOptions::default()
    }
}

/// The model of a folder that listens.
pub fn listener(path: &Path, options: &SpeechOptions) -> vllm_platform::Result<Box<dyn Listener>> {
    let source = ModelSource { path: path.into() };
    match MlxPlatform.load_transcriber(&source, options, &mut |_, _| {})? {
        Transcriber::Listener(listener) => Ok(listener),
        Transcriber::Transducer(_) => panic!("{} is no listener", path.display()),
    }
}

/// Both of a listener's backends.
pub fn listeners(path: &Path) -> [(&'static str, Box<dyn Listener>); 2] {
    let ours = listener(path, &options()).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mlx = MlxListener::load_over_mlx(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    [("ours", ours), ("MLX's", Box::new(mlx))]
}

/// The largest difference, relative to the largest number wanted.
pub fn difference(found: &[f32], wanted: &[f32]) -> f32 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f32, |most, x| most.max(x.abs()));
    let apart = found
        .iter()
        .zip(wanted)
        .fold(0f32, |most, (a, b)| if (a - b).abs() > most || a.is_nan() { (a - b).abs() } else { most });
    apart / largest
}
