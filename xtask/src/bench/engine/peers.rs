//! The servers that ours is measured beside, prepared under `target/peers`.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use clap::ValueEnum;

use super::contender::Contender;
use crate::{bench::llama_cpp, command, disk, paths, progress, venv};

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Peer {
    /// llama.cpp's llama-server
    Llama,
    /// mlx-lm's server
    MlxLm,
    /// vllm-mlx 0.6.0 with continuous batching (6.5 GB on disk)
    VllmMlx,
}

const MLX_LM: &str = "mlx[cpu]==0.32.4\nmlx-lm==0.32.2\ntransformers==5.23.0\n";
/// Brings mlx-vlm 0.7.10.
pub const VLLM_MLX: &str = "mlx[cpu]==0.32.4\nvllm-mlx==0.6.0\nmlx-lm==0.31.3\ntransformers==5.23.0\n";

/// Tokens that llama-server keeps room for, for each stream: prompt and answer of every figure here.
const LLAMA_CONTEXT: usize = 2048;

/// The peers, installed if they aren't there; the Python ones twice, as installed and with OpenBLAS in place of MLX's own BLAS.
pub fn ready(peers: &[Peer], model: &Path, threads: usize, streams: usize) -> Result<Vec<Contender>> {
    let mut all = vec![];
    if peers.contains(&Peer::Llama) {
        all.push(llama(&llama_cpp::ready()?.server, model, threads, streams, LLAMA_CONTEXT));
    }
    if !peers.iter().any(|peer| *peer != Peer::Llama) {
        return Ok(all);
    }
    // Its environment converts the model for both.
    let mlx_lm_python = venv::ready(&place("mlx-lm"), MLX_LM)?;
    let converted = converted(&mlx_lm_python, model)?;
    let mut on_mlx = vec![];
    if peers.contains(&Peer::MlxLm) {
        on_mlx.push(mlx_lm(&mlx_lm_python, &converted));
    }
    if peers.contains(&Peer::VllmMlx) {
        on_mlx.push(vllm_mlx(&venv::ready(&place("vllm-mlx"), VLLM_MLX)?, &converted, streams)?);
    }
    let openblas = openblas();
    if openblas.is_none() {
        eprintln!(
            "no OpenBLAS (on Debian: apt install libopenblas0-pthread): the servers on MLX are measured as installed only"
        );
    }
    for peer in on_mlx {
        let preloaded = openblas.as_ref().map(|library| with_openblas(&peer, library, threads));
        all.push(peer);
        all.extend(preloaded);
    }
    Ok(all)
}

pub fn place(name: &str) -> PathBuf {
    paths::target().join("peers").join(name)
}

/// `llama-server`, with room for `context` tokens of each stream.
pub fn llama(program: &Path, model: &Path, threads: usize, streams: usize, context: usize) -> Contender {
    let context = (streams * context).to_string();
    let mut args: Vec<OsString> = vec!["-m".into(), model.into(), "-c".into(), context.into()];
    args.extend(["-t".into(), threads.to_string().into(), "-np".into(), streams.to_string().into()]);
    args.push("--cont-batching".into());
    Contender {
        name: "llama-server".into(),
        program: program.into(),
        args,
        env: vec![],
        model: "model".into(),
        slow: false,
        has_ssd: false,
        one_step_prompts: vec![],
    }
}

fn mlx_lm(python: &Path, model: &Path) -> Contender {
    Contender {
        name: "mlx-lm".into(),
        program: python.with_file_name("mlx_lm.server"),
        args: vec!["--model".into(), model.into()],
        env: offline(),
        model: model.to_string_lossy().into_owned(),
        slow: true,
        has_ssd: false,
        one_step_prompts: vec![],
    }
}

fn vllm_mlx(python: &Path, model: &Path, streams: usize) -> Result<Contender> {
    // It keeps caches under HOME: not those of whoever runs this.
    let home = place("home");
    fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
    let mut env = offline();
    env.push(("HOME", home.into()));
    let mut args: Vec<OsString> = vec!["serve".into(), model.into()];
    args.extend(["--served-model-name", "model", "--continuous-batching", "--offline"].map(OsString::from));
    args.extend(["--max-num-seqs".into(), streams.to_string().into()]);
    Ok(Contender {
        name: "vllm-mlx 0.6.0".into(),
        program: python.with_file_name("vllm-mlx"),
        args,
        env,
        model: "model".into(),
        slow: true,
        has_ssd: true,
        one_step_prompts: vec![],
    })
}

fn offline() -> Vec<(&'static str, OsString)> {
    vec![("HF_HUB_OFFLINE", "1".into()), ("TRANSFORMERS_OFFLINE", "1".into())]
}

/// The same, with a library loaded ahead of MLX, which then multiplies matrices with it.
fn with_openblas(peer: &Contender, library: &Path, threads: usize) -> Contender {
    let mut other = peer.clone();
    other.name.push_str(" + OpenBLAS");
    other.env.push(("LD_PRELOAD", library.into()));
    other.env.push(("OPENBLAS_NUM_THREADS", threads.to_string().into()));
    other
}

/// Where distributions put OpenBLAS.
pub fn openblas() -> Option<PathBuf> {
    let folders = ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    let names = ["openblas-pthread/libopenblas.so.0", "libopenblas.so.0"];
    let mut paths = folders.iter().flat_map(|folder| names.map(|name| Path::new(folder).join(name)));
    paths.find(|path| path.exists())
}

/// The model as a directory for MLX's Python servers.
fn converted(python: &Path, model: &Path) -> Result<PathBuf> {
    const SCRIPT: &str = include_str!("../gguf_to_mlx.py");
    let folder = place("smollm2-mlx");
    let made_by = folder.join("made-by.py");
    if fs::read_to_string(&made_by).is_ok_and(|script| script == SCRIPT) {
        return Ok(folder);
    }
    let _lock = disk::Lock::acquire()?;
    let spinner = progress::spinner("converting the model for MLX");
    let staging = disk::Staging::beside(&folder)?;
    command::output(Command::new(python).args(["-c", SCRIPT]).arg(model).arg(staging.path()))?;
    fs::write(staging.path().join("made-by.py"), SCRIPT)?;
    staging.publish(&folder)?;
    spinner.finish_and_clear();
    Ok(folder)
}
