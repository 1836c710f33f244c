//! `vllm-mlx follow`.

use std::{net::TcpListener, path::PathBuf};

use anyhow::Context as _;
use vllm_dist::{Error, Follower, follow};
use vllm_platform::ModelSource;

use super::{
    args::{ModelArgs, at_least_one, bytes, share},
    pipeline_args::TokenArgs,
    progress,
};
use crate::{
    model::{open_platform, resolve},
    pipeline::{Over, surroundings},
    telemetry::LogArgs,
};

/// Flags of `follow`: this machine's own business. All else is as the machine that serves has it.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    /// Take flags from this TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Address to listen on, for the machine that serves and those in between
    #[arg(long, value_name = "HOST:PORT", default_value = "0.0.0.0:9000")]
    listen: String,
    #[command(flatten)]
    token: TokenArgs,
    /// Threads for work on the CPU [default: one for each physical core]
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// Bind each of these threads to a core of its own (Linux)
    #[arg(long)]
    pin_threads: bool,
    /// Memory for the KV cache of this machine's layers, e.g. 512M or 8G [default: what --gpu-memory-utilization leaves]
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    kv_cache_memory: Option<u64>,
    /// Share of the device's memory for weights and KV cache together, above 0 and at most 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.9, value_parser = share)]
    gpu_memory_utilization: f64,
    #[command(flatten)]
    pub(super) log: LogArgs,
}

/// Follows until it is killed.
///
/// # Errors
/// One line each: address, token, model. [`Over`] if the machine that serves has gone, over a transport that can't be joined again.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let token = args.token.token()?;
    let path = resolve(&args.model.model, &args.model.source.hub(), &progress::bars())?;
    let listener = TcpListener::bind(&args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && token.is_none() {
        tracing::warn!("whoever reaches {address} may use this machine: --dist-token-file would close it");
    }
    let platform = open_platform()?;
    let options = vllm_platform::LoadOptions {
        device: args.model.source.device,
        threads: args.threads,
        pin_threads: args.pin_threads,
        kv_cache_bytes: args.kv_cache_memory,
        memory_utilization: args.gpu_memory_utilization,
        ..vllm_platform::LoadOptions::default()
    };
    eprintln!("listening on {address}: vllm-mlx serve {} --pipeline {address}", args.model.model);
    let source = ModelSource { path };
    let follower = Follower { platform: &*platform, source, options, listener, around: surroundings(token) };
    match follow(follower) {
        Ok(never) => match never {},
        Err(Error::Over(why)) => Err(Over(why).into()),
        Err(error) => Err(error.into()),
    }
}
