//! Servers to measure: started, waited for, asked without a client library, stopped.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A port that nobody listens on.
pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A running server, killed when dropped.
pub struct Server {
    child: Child,
    /// Where it listens.
    pub port: u16,
    /// When its process was started.
    pub started: Instant,
}

impl Server {
    /// Runs a command that listens on `port`; it says where its output goes.
    pub fn start(command: &mut Command, port: u16) -> Result<Self> {
        let started = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, port, started })
    }

    /// The status of `/health`, once it answers.
    pub fn health(&self) -> Option<u16> {
        self.get("/health").map(|(status, _)| status)
    }

    /// The status and the body of a GET, once it answers.
    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        let mut socket = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        socket.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        write!(socket, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").ok()?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer).ok()?;
        let status = answer.split(' ').nth(1)?.parse().ok()?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Some((status, body.to_owned()))
    }

    /// Waits until `done` says so. Returns the milliseconds since the process's start.
    pub fn wait(&mut self, patience: Duration, done: impl Fn(&Self) -> bool) -> Result<f64> {
        while !done(self) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended by itself ({status})");
            }
            if self.started.elapsed() > patience {
                bail!("the server did not answer within {patience:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(self.started.elapsed().as_secs_f64() * 1e3)
    }

    /// Milliseconds from sending a prompt of token ids to the first event of its answer, which is read to its end.
    pub fn first_token(&self, model: &str, prompt: &[u32], max_tokens: usize) -> Result<f64> {
        let ids: Vec<String> = prompt.iter().map(u32::to_string).collect();
        let body = format!(
            r#"{{"model":"{model}","prompt":[{}],"max_tokens":{max_tokens},"temperature":0,"ignore_eos":true,"stream":true}}"#,
            ids.join(",")
        );
        let mut socket = TcpStream::connect(("127.0.0.1", self.port))?;
        let start = Instant::now();
        write!(
            socket,
            "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut first = None;
        for line in BufReader::new(socket).lines() {
            if line?.starts_with("data: {") {
                first.get_or_insert_with(|| start.elapsed().as_secs_f64() * 1e3);
            }
        }
        first.context("the server closed the stream without an event")
    }

    /// Memory that its process holds.
    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.child.id().to_string();
        let output = Command::new("ps").args(["-o", "rss=", "-p", &pid]).output().context("cannot run ps")?;
        let kib: u64 = String::from_utf8_lossy(&output.stdout).trim().parse().context("the server is gone")?;
        Ok(1024 * kib)
    }

    /// Asks it to stop and waits until it has, so that it can write down what it wants to keep.
    pub fn stop(mut self, patience: Duration) -> Result<()> {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-s", "TERM", &pid]).status().context("cannot run kill")?;
        let start = Instant::now();
        while asked.success() && start.elapsed() < patience {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("the server did not stop within {patience:?}")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
