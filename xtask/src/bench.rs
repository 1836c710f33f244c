//! Measurements against peers, alternating in one run, so that both see the same machine.

pub mod cpu;
pub mod engine;
pub mod fleet;
mod llama_cpp;
mod measure;
mod others;
pub mod serve;
mod server;
pub mod soak;
pub mod speech;
pub mod vision;

use std::{path::PathBuf, thread};

use anyhow::Result;

use crate::{command, demo};

/// Builds `vllm-mlx` as users do, and says where it is.
fn release_build() -> Result<PathBuf> {
    command::run(command::cargo().args(["build", "--release", "--package", "vllm-api", "--bin", "vllm-mlx"]))?;
    Ok(demo::release_binary())
}

/// How many threads to use: as said, or one for each of the machine's cores.
fn threads(wanted: Option<usize>) -> usize {
    wanted.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}
