//! Every test, and what they need.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result};

use crate::{command, models, paths, setup, venv};

/// Prepares MLX, the models, the Python environment and the binary, then runs `cargo test`.
pub fn run(args: &[String]) -> Result<()> {
    setup::run(None)?;
    for model in ["smollm2", "minilm", "whisper-tiny.en", "kokoro-82m", "silero-vad", "clips"] {
        models::fetch(model, None)?;
    }
    python()?;

    // Together with the tests, so that features are chosen once and nothing is compiled twice: the end-to-end tests run this very binary.
    command::run(command::cargo().args(["build", "--workspace", "--lib", "--bins", "--tests"]))?;
    let mut test = command::cargo();
    test.arg("test");
    if args.is_empty() {
        test.arg("--workspace");
    }
    command::run(test.args(args))
}

/// The Python of the environment that has what tests run.
pub fn python() -> Result<PathBuf> {
    let requirements = paths::root().join("tests/requirements.txt");
    let text = fs::read_to_string(&requirements).with_context(|| format!("cannot read {}", requirements.display()))?;
    venv::ready(&paths::target().join("venv"), &text)
}
