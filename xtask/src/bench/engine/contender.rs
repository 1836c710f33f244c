//! A server to measure.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Result;

use crate::command;

/// How to start a server, and what it can do.
#[derive(Debug, Clone)]
pub struct Contender {
    pub name: String,
    pub program: PathBuf,
    /// Its port follows.
    pub args: Vec<OsString>,
    pub env: Vec<(&'static str, OsString)>,
    /// What its model is called in requests.
    pub model: String,
    /// Whether it runs on MLX's own CPU kernels, which take a hundred times as long.
    pub slow: bool,
    /// Whether it has `--ssd-cache-dir`.
    pub has_ssd: bool,
    /// Flags that make a step large enough for any prompt.
    pub one_step_prompts: Vec<&'static str>,
}

impl Contender {
    /// The command that serves at this port.
    pub fn command(&self, port: u16) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.args).arg("--port").arg(port.to_string()).envs(self.env.iter().cloned());
        command
    }

    /// The same, with a step large enough for any prompt.
    pub fn with_one_step_prompts(&self) -> Self {
        let mut other = self.clone();
        other.args.extend(self.one_step_prompts.iter().map(OsString::from));
        other
    }
}

/// `vllm-mlx serve` as it was just built.
pub fn ours(binary: &Path, model: &Path, threads: usize, streams: usize) -> Result<Contender> {
    let help = command::output(Command::new(binary).args(["serve", "--help"]))?;
    let mut one_step_prompts = vec!["--max-num-batched-tokens", "8192"];
    if help.contains("--prefill-step-size") {
        one_step_prompts.extend(["--prefill-step-size", "8192"]);
    }
    let mut args: Vec<OsString> = vec!["serve".into(), model.into()];
    args.extend(["--device", "cpu", "--served-model-name", "model"].map(OsString::from));
    args.extend(["--threads".into(), threads.to_string().into()]);
    args.extend(["--max-num-seqs".into(), streams.to_string().into()]);
    Ok(Contender {
        name: "vllm-mlx".into(),
        program: binary.into(),
        args,
        env: vec![],
        model: "model".into(),
        slow: false,
        has_ssd: help.contains("--ssd-cache-dir"),
        one_step_prompts,
    })
}
