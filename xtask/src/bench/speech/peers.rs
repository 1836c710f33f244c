//! The Python process that holds what ours is measured beside.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::client::Heard;
use crate::{bench::engine::peers, models, venv};

const SCRIPT: &str = include_str!("peers.py");

const REQUIREMENTS: &str = "faster-whisper==1.2.1\nonnxruntime==1.31.1\nopenai-whisper==20250625\ntransformers==5.23.0\ntorch==2.15.0\n\
                            scipy\n";
/// What is slow needs these, too.
const SLOW: &str = "mlx[cpu]==0.32.4\nmlx-audio==0.6.2\n";

/// See the [module](self). Its process ends with it.
pub struct Peers {
    child: Child,
    asks: ChildStdin,
    answers: BufReader<ChildStdout>,
    loaded: Vec<&'static str>,
}

impl Peers {
    /// Loads all models.
    pub fn start(whisper: &Path, kokoro: &Path, slow: bool) -> Result<Self> {
        let requirements = if slow { format!("{REQUIREMENTS}{SLOW}") } else { REQUIREMENTS.into() };
        let name = if slow { "speech-slow" } else { "speech" };
        let python = venv::ready(&peers::place(name), &requirements)?;
        let ct2 = models::fetch("whisper-tiny.en-ct2", None)?;
        let onnx = models::fetch("kokoro-82m-onnx", None)?;
        let mut process = Command::new(python);
        process.args(["-c", SCRIPT, &crate::bench::threads(None).to_string()]).env("HF_HUB_OFFLINE", "1");
        if let Some(library) = peers::openblas() {
            // In place of MLX's own BLAS: much faster.
            process.env("LD_PRELOAD", library).env("OPENBLAS_NUM_THREADS", crate::bench::threads(None).to_string());
        }
        process.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = process.spawn().context("cannot start Python")?;
        let asks = child.stdin.take().context("a pipe to Python")?;
        let answers = BufReader::new(child.stdout.take().context("a pipe from Python")?);
        let mut peers = Self { child, asks, answers, loaded: vec![] };
        let fast = [
            ("faster-whisper int8", ct2.as_path()),
            ("faster-whisper float32", ct2.as_path()),
            ("openai-whisper", whisper),
            ("ONNX Runtime int8", onnx.as_path()),
        ];
        let slower = [("transformers", whisper), ("mlx-audio, Whisper", whisper), ("mlx-audio, Kokoro", kokoro)];
        for (who, model) in fast.into_iter().chain(slower.into_iter().filter(|_| slow)) {
            peers.ask(&json!({ "load": who, "model": model }))?;
            peers.loaded.push(who);
        }
        Ok(peers)
    }

    /// Those of them that are loaded.
    pub fn those(&self, names: &[&'static str]) -> Vec<&'static str> {
        names.iter().copied().filter(|name| self.loaded.contains(name)).collect()
    }

    /// Has a WAV file written down.
    pub fn hear(&mut self, who: &str, file: &Path) -> Result<Heard> {
        let answer = self.ask(&json!({ "hear": who, "file": file }))?;
        let text = answer["text"].as_str().unwrap_or_default().to_owned();
        Ok(Heard { text, seconds: number(&answer, "seconds")? })
    }

    /// Has phonemes said: seconds that it took, and that it lasts.
    pub fn say(&mut self, who: &str, phonemes: &str, voice: &Path, out: Option<&Path>) -> Result<(f64, f64)> {
        let mut asked = json!({ "say": who, "phonemes": phonemes, "voice": voice });
        if let Some(out) = out {
            asked["out"] = json!(out);
        }
        let answer = self.ask(&asked)?;
        Ok((number(&answer, "seconds")?, number(&answer, "samples")? / 24_000.0))
    }

    /// Seconds that a spectrogram takes.
    pub fn mel(&mut self, who: &str, file: &Path) -> Result<f64> {
        number(&self.ask(&json!({ "mel": who, "file": file }))?, "seconds")
    }

    fn ask(&mut self, asked: &Value) -> Result<Value> {
        writeln!(self.asks, "{asked}")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let answer: Value = serde_json::from_str(&line).with_context(|| format!("Python said {line:?} to {asked}"))?;
        match answer["error"].as_str() {
            Some(error) => bail!("{asked}: {error}"),
            None => Ok(answer),
        }
    }
}

fn number(answer: &Value, name: &str) -> Result<f64> {
    answer[name].as_f64().with_context(|| format!("{name} is missing in {answer}"))
}

impl Drop for Peers {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
