//! What the tests share: fixtures and what the reference implementations say on them (see `fixtures/make.py`).
#![allow(dead_code, reason = "each test file uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
// Linked for what they register.
use vllm_models_embed as _;
use vllm_models_llm as _;

/// A text, or a pair, and its numbers.
#[derive(Deserialize)]
pub struct Case {
    pub texts: Vec<String>,
    pub tokens: Vec<u32>,
    pub types: Vec<u32>,
    pub vector: Vec<f32>,
}

pub fn cases(path: &Path) -> Vec<Case> {
    let text = fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap()
}

/// A folder or file of `tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// all-MiniLM-L6-v2.
pub fn minilm() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/minilm");
    assert!(path.join("model.safetensors").exists(), "run `cargo xtask models fetch minilm`");
    path
}

/// Largest difference, relative to the largest number wanted.
pub fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    assert_eq!(found.len(), wanted.len());
    let largest = wanted.iter().fold(0f64, |m, &x| m.max(f64::from(x).abs()));
    let worst = found.iter().zip(wanted).fold(0f64, |m, (&a, &b)| m.max((f64::from(a) - f64::from(b)).abs()));
    worst / largest
}
