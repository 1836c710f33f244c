//! How soon a server answers: `/health` after its start, and the first token of a short prompt once it is ready.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

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
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let start = Instant::now();
    let child = Command::new(binary)
        .arg("serve")
        .arg(model)
        .args(["--port", &port.to_string(), "--threads", &threads.to_string(), "--device", "cpu"])
        .args(["--served-model-name", "model"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .with_context(|| format!("cannot start {}", binary.display()))?;
    let _server = Server(child);
    let health = wait(start, || status(port).is_some())?;
    let ready = wait(start, || status(port) == Some(200))?;
    let first_token = first_token(port)?;
    Ok(Start { health, ready, first_token })
}

/// Killed when dropped.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Milliseconds from `start` until `done` says so.
fn wait(start: Instant, done: impl Fn() -> bool) -> Result<f64> {
    while !done() {
        if start.elapsed() > PATIENCE {
            bail!("the server did not answer within {PATIENCE:?}");
        }
        thread::sleep(Duration::from_millis(1));
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn status(port: u16) -> Option<u16> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).ok()?;
    socket.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

fn first_token(port: u16) -> Result<f64> {
    let prompt: Vec<String> = (1000..1020).map(|token: u32| token.to_string()).collect();
    let body = format!(
        r#"{{"model":"model","prompt":[{}],"max_tokens":4,"temperature":0,"ignore_eos":true,"stream":true}}"#,
        prompt.join(",")
    );
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    let start = Instant::now();
    write!(
        socket,
        "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )?;
    for line in BufReader::new(socket).lines() {
        if line?.starts_with("data: {") {
            return Ok(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    bail!("the server closed the stream without an event")
}
