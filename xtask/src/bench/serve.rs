//! How soon a server answers: `/health` after its start, and the first token of a short prompt once it is ready.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;

use super::server::{Server, free_port};

/// What one start showed, in milliseconds.
pub struct Start {
    /// From the process's start to the first answer of `/health`, whatever it says.
    pub health: f64,
    /// From the process's start to `/health` saying that the model is ready.
    pub ready: f64,
    /// From sending a prompt of 20 tokens to the first token's event.
    pub first_token: f64,
}

const PATIENCE: Duration = Duration::from_secs(60);

/// Starts `vllm-mlx serve` on `model`, asks it, and stops it.
pub fn measure(binary: &Path, model: &Path, threads: usize) -> Result<Start> {
    let port = free_port()?;
    let mut command = Command::new(binary);
    command
        .arg("serve")
        .arg(model)
        .args(["--port", &port.to_string(), "--threads", &threads.to_string(), "--device", "cpu"])
        .args(["--served-model-name", "model"])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut server = Server::start(&mut command, port)?;
    let health = server.wait(PATIENCE, |server| server.health().is_some())?;
    let ready = server.wait(PATIENCE, |server| server.health() == Some(200))?;
    let prompt: Vec<u32> = (1000..1020).collect();
    Ok(Start { health, ready, first_token: server.first_token("model", &prompt, 4)? })
}
