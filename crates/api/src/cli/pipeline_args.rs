//! Flags of models over several machines.

use std::{path::PathBuf, time::Duration};

use anyhow::bail;
use vllm_dist::{Pipeline, Split, Token, Transport};

use super::args::{bytes, seconds};
use crate::pipeline::PipelineSpec;

/// What all ranks must know.
#[derive(Debug, Clone, clap::Args)]
pub struct TokenArgs {
    /// File whose first line all machines of a pipeline must have alike [default: whoever connects is believed]
    #[arg(long, value_name = "FILE")]
    dist_token_file: Option<PathBuf>,
}

impl TokenArgs {
    /// # Errors
    /// If the file can't be read, or is empty.
    pub fn token(&self) -> anyhow::Result<Option<Token>> {
        self.dist_token_file.as_deref().map(Token::read).transpose().map_err(anyhow::Error::msg)
    }
}

/// Flags of `serve` for models over several machines.
#[derive(Debug, Clone, clap::Args)]
pub struct PipelineArgs {
    /// Share the model's layers with these machines, each of which runs vllm-mlx follow: their addresses, as all of them know each
    /// other
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        value_delimiter = ',',
        conflicts_with_all = ["models_config", "lazy_load_model", "memory_budget_gb", "ssd_cache_dir"]
    )]
    pipeline: Vec<String>,
    /// Layers of each machine, this one first, e.g. 12,20, or bytes in proportion, e.g. 8G,16G [default: bytes as each has memory]
    #[arg(long, value_name = "N,N,…", requires = "pipeline", value_parser = split)]
    pipeline_split: Option<Split>,
    /// How hidden states travel: tcp, or by way of MLX ring, jaccl or nccl, with the environment that mlx.launch sets
    #[arg(long, value_name = "NAME", requires = "pipeline", default_value_t, value_parser = transport)]
    dist_backend: Transport,
    /// How long to wait for the other machines at the start, in seconds
    #[arg(long, value_name = "SECONDS", requires = "pipeline", default_value_t = 60.0, value_parser = seconds)]
    pipeline_timeout: f64,
    #[command(flatten)]
    token: TokenArgs,
}

impl PipelineArgs {
    /// Whether other machines take part.
    pub fn is_given(&self) -> bool {
        !self.pipeline.is_empty()
    }

    /// # Errors
    /// If an address is none, one is there twice, or the token can't be read.
    pub fn spec(&self) -> anyhow::Result<Option<PipelineSpec>> {
        let followers: Vec<String> = self.pipeline.iter().map(|address| address.trim().to_owned()).collect();
        for (i, address) in followers.iter().enumerate() {
            let port =
                address.rsplit_once(':').and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>()));
            if !matches!(port, Some(Ok(port)) if port > 0) {
                bail!("--pipeline {address}: an address is HOST:PORT, e.g. mac-two.local:9000");
            }
            if followers[..i].contains(address) {
                bail!("--pipeline names {address} twice");
            }
        }
        if followers.is_empty() {
            return Ok(None);
        }
        let pipeline = Pipeline {
            followers,
            split: self.pipeline_split.clone().unwrap_or_default(),
            transport: self.dist_backend,
            patience: Duration::from_secs_f64(self.pipeline_timeout),
        };
        Ok(Some(PipelineSpec { pipeline, token: self.token.token()? }))
    }
}

/// Numbers of layers, or of bytes if any has a unit.
fn split(text: &str) -> Result<Split, String> {
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if let Ok(layers) = parts.iter().map(|part| part.parse()).collect() {
        return Ok(Split::Layers(layers));
    }
    Ok(Split::Bytes(parts.into_iter().map(bytes).collect::<Result<_, _>>()?))
}

fn transport(text: &str) -> Result<Transport, String> {
    let all = [Transport::Tcp, Transport::Ring, Transport::Jaccl, Transport::Nccl];
    let found = all.into_iter().find(|transport| transport.name() == text);
    found.ok_or_else(|| format!("use {}", all.map(Transport::name).join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_is_of_layers_or_of_bytes() {
        for (text, wanted) in [
            ("12,20", Ok(Split::Layers(vec![12, 20]))),
            ("8G, 16G", Ok(Split::Bytes(vec![8 << 30, 16 << 30]))),
            ("12,20G", Ok(Split::Bytes(vec![12, 20 << 30]))),
            ("8cats", Err("unknown unit \"cats\": use K, M, G or T (powers of 1024)".to_owned())),
        ] {
            assert_eq!(split(text).map_err(|error| error.to_string()), wanted, "{text}");
        }
    }

    #[test]
    fn addresses_are_checked() {
        let spec = |addresses: &[&str]| {
            let args = PipelineArgs {
                pipeline: addresses.iter().map(|&address| address.into()).collect(),
                pipeline_split: None,
                dist_backend: Transport::Tcp,
                pipeline_timeout: 1.0,
                token: TokenArgs { dist_token_file: None },
            };
            args.spec().map(|spec| spec.map(|spec| spec.pipeline.followers)).map_err(|error| error.to_string())
        };
        assert_eq!(spec(&[]), Ok(None));
        assert_eq!(spec(&["a:1", " b:2"]), Ok(Some(vec!["a:1".into(), "b:2".into()])));
        for (addresses, wanted) in [
            (&["a"][..], "--pipeline a: an address is HOST:PORT"),
            (&[":9000"], "--pipeline :9000: an address is"),
            (&["a:0"], "--pipeline a:0: an address is"),
            (&["a:99999"], "an address is HOST:PORT"),
            (&["a:1", "a:1"], "--pipeline names a:1 twice"),
        ] {
            let error = spec(addresses).expect_err("no address");
            assert!(error.contains(wanted), "{error}");
        }
    }
}
