//! Flags of `serve` for embeddings and scores, and loading what they name.

use std::{io::Write as _, sync::Arc, time::Duration};

use clap::Args;
use vllm_checkpoint::hub::HubOptions;
use vllm_platform::{EncoderOptions, EncoderOutput, ModelPurpose};
use vllm_scheduler::{EncoderConfig, EngineState};

use super::{
    args::{RuntimeArgs, SourceArgs, at_least_one},
    progress,
};
use crate::{
    encoder::{EncoderSpec, Overflow, Role, ServedEncoder, load_encoder, purpose},
    model::resolve,
};

/// Which models make embeddings and scores.
#[derive(Debug, Clone, Args)]
pub struct EncoderArgs {
    /// Model for /v1/embeddings: a folder, or org/name on the hub
    #[arg(long, value_name = "MODEL")]
    embedding_model: Option<String>,
    /// Most tokens of a text for an embedding [default: what the model takes]
    #[arg(long, value_name = "TOKENS", value_parser = at_least_one)]
    embedding_max_length: Option<usize>,
    /// What happens to longer texts
    #[arg(long, value_name = "POLICY", value_enum, default_value_t)]
    embedding_overflow_policy: Overflow,
    /// Model for /v1/rerank and /v1/score: a cross-encoder, or one that answers yes or no
    #[arg(long, value_name = "MODEL")]
    rerank_model: Option<String>,
}

impl EncoderArgs {
    /// What the flags name.
    pub fn specs(&self, source: &SourceArgs, runtime: &RuntimeArgs) -> Vec<EncoderSpec> {
        let named = [(&self.embedding_model, Role::Embed), (&self.rerank_model, Role::Score)];
        let spec = |(model, role): (&Option<String>, Role)| Some(self.spec(model.as_deref()?, role, source, runtime));
        named.into_iter().filter_map(spec).collect()
    }

    /// One model with what else the flags say.
    pub fn spec(&self, model: &str, role: Role, source: &SourceArgs, runtime: &RuntimeArgs) -> EncoderSpec {
        let engine = EncoderConfig::default();
        EncoderSpec {
            model: model.to_owned(),
            names: Vec::new(),
            hub: source.hub(),
            load: EncoderOptions {
                device: source.device,
                threads: runtime.threads,
                pin_threads: runtime.pin_threads,
                activations: runtime.activations,
                max_num_batched_tokens: engine.max_num_batched_tokens,
                max_input_len: self.embedding_max_length.filter(|_| role == Role::Embed),
                ..EncoderOptions::default()
            },
            engine,
            role,
            overflow: self.embedding_overflow_policy,
        }
    }
}

/// What `serve MODEL` is for. Whatever is wrong with it is for its loading to say.
pub async fn purpose_of(model: &str, hub: HubOptions) -> Option<ModelPurpose> {
    let model = model.to_owned();
    let found = tokio::task::spawn_blocking(move || purpose(&resolve(&model, &hub, &progress::bars()).ok()?).ok());
    found.await.ok().flatten()
}

/// Loads them one after the other.
///
/// # Errors
/// The first that fails.
pub async fn load(specs: Vec<EncoderSpec>) -> anyhow::Result<Vec<Arc<ServedEncoder>>> {
    let mut encoders = Vec::with_capacity(specs.len());
    for spec in specs {
        let encoder = tokio::task::spawn_blocking(move || load_encoder(spec, &progress::bars())).await??;
        let info = encoder.engine.info();
        let what = match info.output {
            EncoderOutput::Embedding { dimensions, .. } => format!("embeddings of {dimensions} numbers"),
            EncoderOutput::Score => "scores of pairs".to_owned(),
        };
        let names = encoder.names.join(", ");
        let tokens = info.max_input_len;
        let _ = writeln!(std::io::stderr(), "ready: {names} on {}, {what}, up to {tokens} tokens", info.device);
        encoders.push(Arc::new(encoder));
    }
    Ok(encoders)
}

/// Waits for one of their engines to stop, and says so. For ever, if there are none.
pub async fn lost(encoders: &[Arc<ServedEncoder>]) -> String {
    let mut waits = tokio::task::JoinSet::new();
    for encoder in encoders {
        let encoder = Arc::clone(encoder);
        waits.spawn(async move { (encoder.names.join(", "), encoder.engine.stopped().await) });
    }
    match waits.join_next().await {
        Some(Ok((names, state))) => format!("the engine of {names} has stopped: {state:?}"),
        Some(Err(error)) => format!("watching the encoders broke off: {error}"),
        None => std::future::pending().await,
    }
}

/// Stops their engines, and waits for them a little.
pub async fn close(encoders: &[Arc<ServedEncoder>]) {
    for encoder in encoders {
        encoder.engine.shutdown();
    }
    for encoder in encoders {
        // Gives the device's memory back in order, but never hangs on it.
        let stopped: Result<EngineState, _> =
            tokio::time::timeout(Duration::from_secs(5), encoder.engine.stopped()).await;
        drop(stopped);
    }
}
