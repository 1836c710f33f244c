//! From a fresh checkout to an answer.

use std::{path::PathBuf, process::Command};

use anyhow::{Context, Result};

use crate::{command, models, paths, setup};

/// The question of those who ask none.
pub const PROMPT: &str = "Explain in three sentences why the sky is blue.";

/// Prepares whatever is missing, then becomes `vllm-mlx generate`.
pub fn run(prompt: &str) -> Result<()> {
    setup::run(None)?;
    let model = models::fetch("smollm2", None)?;
    command::run(command::cargo().args(["build", "--release", "--package", "vllm-api", "--bin", "vllm-mlx"]))?;
    become_program(Command::new(release_binary()).arg("generate").arg(model).arg("--prompt").arg(prompt))
}

/// `vllm-mlx` as `cargo build --release` leaves it.
pub fn release_binary() -> PathBuf {
    paths::cargo_target().join("release/vllm-mlx")
}

/// Hands the terminal and its signals over to a program.
#[cfg(unix)]
fn become_program(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    let error = command.exec();
    Err(error).with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))
}

#[cfg(not(unix))]
fn become_program(command: &mut Command) -> Result<()> {
    command::run(command)
}
