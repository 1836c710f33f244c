//! The models that may be served, as an operator lists them.

use std::{collections::HashSet, time::Duration};

use serde::Deserialize;
use vllm_checkpoint::Checkpoint;
use vllm_parsers::{calls, reasoning};

use super::{Contention, ResidencyConfig};
use crate::{
    cli::parse_bytes,
    model::{LoadObserver, LoadSpec, resolve},
};

/// KV storage of a model among several that doesn't say, in bytes: by itself it would take all memory there is.
const DEFAULT_KV_BYTES: u64 = 1 << 30;

/// The models with what is set for all of them.
#[derive(Debug, Clone)]
pub struct Catalog {
    pub(super) entries: Vec<Entry>,
    pub(super) config: ResidencyConfig,
}

/// One of them.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub names: Vec<String>,
    pub spec: LoadSpec,
    pub preload: bool,
    /// Never unloaded for others, nor when idle.
    pub pinned: bool,
    /// Loaded once and for all: if its engine dies, that is the end.
    pub fixed: bool,
    pub idle_unload: Option<Duration>,
    /// Bytes that it needs, if its operator knows better than its files.
    pub estimated_bytes: Option<u64>,
}

/// What is wrong with a catalogue.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// It isn't YAML, or has unknown keys.
    #[error("{0}")]
    Syntax(String),
    /// A value makes no sense.
    #[error("{at}: {why}")]
    Value {
        /// The key.
        at: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Catalog {
    /// One model, loaded at the start, that stays.
    #[must_use]
    pub fn of(spec: LoadSpec) -> Self {
        let names = if spec.names.is_empty() { vec![spec.model.clone()] } else { spec.names.clone() };
        let entry =
            Entry { names, spec, preload: true, pinned: true, fixed: true, idle_unload: None, estimated_bytes: None };
        Self { entries: vec![entry], config: ResidencyConfig::default() }
    }

    /// None at all: the server has other things to serve.
    #[must_use]
    pub fn none() -> Self {
        Self { entries: Vec::new(), config: ResidencyConfig::default() }
    }

    /// The same, loaded when it is first asked for, and unloaded when nobody has used it for `idle`.
    #[must_use]
    pub fn with_residency(mut self, lazy: bool, idle: Option<Duration>) -> Self {
        for entry in &mut self.entries {
            let comes_and_goes = lazy || idle.is_some();
            (entry.preload, entry.pinned, entry.fixed) = (!lazy, idle.is_none(), !comes_and_goes);
        }
        self.config.idle_unload = idle;
        self
    }

    /// Unloads models that nobody has used for `idle`, unless they say themselves.
    #[must_use]
    pub fn with_idle_unload(mut self, idle: Option<Duration>) -> Self {
        self.config.idle_unload = idle.or(self.config.idle_unload);
        self
    }

    /// Limits what loaded models may need together.
    #[must_use]
    pub fn with_budget(mut self, bytes: Option<u64>) -> Self {
        self.config.budget = bytes.or(self.config.budget);
        self
    }

    /// Reads the original's YAML registry; `base` has what a model doesn't say itself.
    ///
    /// # Errors
    /// [`CatalogError`] naming the key at fault.
    pub fn from_yaml(text: &str, base: &LoadSpec) -> Result<Self, CatalogError> {
        let file: File = serde_saphyr::from_str(text).map_err(|error| CatalogError::Syntax(error.to_string()))?;
        if file.models.is_empty() {
            return Err(wrong("models", "there must be at least one"));
        }
        let mut entries = Vec::with_capacity(file.models.len());
        let mut taken = HashSet::new();
        for (index, model) in file.models.into_iter().enumerate() {
            let entry = model.entry(&format!("models[{index}]"), base)?;
            if let Some(name) = entry.names.iter().find(|name| !taken.insert((*name).clone())) {
                return Err(wrong(&format!("models[{index}].name"), &format!("{name:?} is taken already")));
            }
            entries.push(entry);
        }
        Ok(Self { entries, config: file.manager.config()? })
    }
}

impl Entry {
    /// Bytes that the model needs when it is loaded: weights, KV storage as far as it is bounded, and features of images.
    /// Fetches its files if need be; blocks.
    pub fn bytes(&self, observer: &LoadObserver) -> anyhow::Result<u64> {
        if self.fixed {
            // Nobody competes with it.
            return Ok(0);
        }
        if let Some(bytes) = self.estimated_bytes {
            return Ok(bytes);
        }
        let path = resolve(&self.spec.model, &self.spec.hub, observer)?;
        let checkpoint = Checkpoint::open(&path)?;
        let weights = weight_bytes(&checkpoint)?;
        let sees = checkpoint.config().get("vision_config").is_some();
        let features = self.spec.vision.as_ref().filter(|_| sees).map_or(0, |vision| vision.cache_bytes as u64);
        Ok(weights + self.spec.load.kv_cache_bytes.unwrap_or(0) + features)
    }
}

fn weight_bytes(checkpoint: &Checkpoint) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for name in checkpoint.tensor_names() {
        bytes += checkpoint.spec(name)?.file_bytes;
    }
    Ok(bytes)
}

fn wrong(at: &str, why: &str) -> CatalogError {
    CatalogError::Value { at: at.to_owned(), why: why.to_owned() }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    manager: Settings,
    models: Vec<Model>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(alias = "memory_budget")]
    memory_budget_gb: Option<Amount>,
    idle_unload_seconds: Option<f64>,
    contention_policy: Option<Policy>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Policy {
    strategy: Option<String>,
    wait_timeout_s: Option<f64>,
    preempt_after_s: Option<f64>,
}

/// Gigabytes, or a text with a unit.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Amount {
    Gigabytes(f64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Model {
    name: Option<String>,
    #[serde(default)]
    names: Vec<String>,
    #[serde(alias = "path", alias = "source")]
    model: String,
    revision: Option<String>,
    preload: Option<bool>,
    pin: Option<bool>,
    idle_unload_seconds: Option<f64>,
    estimated_memory_gb: Option<Amount>,
    kv_cache_memory: Option<Amount>,
    max_model_len: Option<usize>,
    max_num_seqs: Option<usize>,
    max_num_batched_tokens: Option<usize>,
    prefill_step_size: Option<usize>,
    tool_call_parser: Option<String>,
    reasoning_parser: Option<String>,
    // The original's, of which only one value has a meaning here.
    continuous_batching: Option<bool>,
    mllm: Option<bool>,
    enable_mtp: Option<bool>,
    specprefill: Option<bool>,
}

impl Settings {
    fn config(self) -> Result<ResidencyConfig, CatalogError> {
        let budget = self.memory_budget_gb.map(|amount| amount.bytes("manager.memory_budget_gb")).transpose()?;
        let mut contention = Contention::default();
        if let Some(policy) = self.contention_policy {
            let at = "manager.contention_policy";
            let waits = policy.wait_timeout_s.or(policy.preempt_after_s);
            let wait = waits.map(|s| seconds(&format!("{at}.wait_timeout_s"), s)).transpose()?;
            let wait = wait.unwrap_or(Duration::from_secs(30));
            let strategy = policy.strategy.as_deref().unwrap_or("wait_then_fail");
            contention = Contention::by_name(strategy, wait).ok_or_else(|| {
                let names = "fail, wait, preempt, wait_then_fail or wait_then_preempt";
                wrong(&format!("{at}.strategy"), &format!("{strategy:?} is unknown: it must be {names}"))
            })?;
        }
        let idle_unload = idle("manager.idle_unload_seconds", self.idle_unload_seconds)?;
        Ok(ResidencyConfig { budget, idle_unload, contention })
    }
}

impl Model {
    fn entry(self, at: &str, base: &LoadSpec) -> Result<Entry, CatalogError> {
        let unsupported = [("mllm", self.mllm), ("enable_mtp", self.enable_mtp), ("specprefill", self.specprefill)];
        if let Some((key, _)) = unsupported.iter().find(|(_, value)| *value == Some(true)) {
            return Err(wrong(&format!("{at}.{key}"), "is not supported"));
        }
        if self.continuous_batching == Some(false) {
            return Err(wrong(&format!("{at}.continuous_batching"), "can't be switched off: requests always batch"));
        }
        let mut names: Vec<String> = self.name.into_iter().chain(self.names).collect();
        if names.is_empty() {
            names.push(self.model.clone());
        }
        let bytes = |key: &str, amount: Option<Amount>| amount.map(|a| a.bytes(&format!("{at}.{key}"))).transpose();
        let kv_bytes = bytes("kv_cache_memory", self.kv_cache_memory)?;
        let estimated_bytes = bytes("estimated_memory_gb", self.estimated_memory_gb)?;
        let mut spec = base.clone();
        spec.model = self.model;
        spec.names.clone_from(&names);
        spec.hub.revision = self.revision.or(spec.hub.revision);
        spec.load.kv_cache_bytes = kv_bytes.or(spec.load.kv_cache_bytes).or(Some(DEFAULT_KV_BYTES));
        spec.load.max_model_len = self.max_model_len.or(spec.load.max_model_len);
        if let Some(count) = self.max_num_seqs {
            (spec.load.max_num_seqs, spec.engine.max_num_seqs) = (count, count);
        }
        if let Some(tokens) = self.max_num_batched_tokens {
            (spec.load.max_num_batched_tokens, spec.engine.max_num_batched_tokens) = (tokens, tokens);
        }
        spec.engine.prefill_step_size = self.prefill_step_size.or(spec.engine.prefill_step_size);
        if let Some(name) = self.tool_call_parser {
            let unknown = || wrong(&format!("{at}.tool_call_parser"), &format!("{name:?} is unknown"));
            spec.formats.calls = Some(calls::by_name(&name).ok_or_else(unknown)?);
        }
        if let Some(name) = self.reasoning_parser {
            let unknown = || wrong(&format!("{at}.reasoning_parser"), &format!("{name:?} is unknown"));
            spec.formats.reasoning = Some(reasoning::by_name(&name).ok_or_else(unknown)?);
        }
        Ok(Entry {
            names,
            spec,
            preload: self.preload.unwrap_or(false),
            pinned: self.pin.unwrap_or(false),
            fixed: false,
            idle_unload: idle(&format!("{at}.idle_unload_seconds"), self.idle_unload_seconds)?,
            estimated_bytes,
        })
    }
}

impl Amount {
    fn bytes(self, at: &str) -> Result<u64, CatalogError> {
        match self {
            Self::Gigabytes(number) if number > 0.0 && number < 1e6 => Ok((number * f64::from(1 << 30)) as u64),
            Self::Gigabytes(number) => Err(wrong(at, &format!("is {number}: it must be above 0"))),
            Self::Text(text) => parse_bytes(&text).map_err(|why| wrong(at, &why)),
        }
    }
}

fn seconds(at: &str, seconds: f64) -> Result<Duration, CatalogError> {
    if (0.0..=1e9).contains(&seconds) {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(wrong(at, &format!("is {seconds}: it must be at least 0")))
}

/// 0 means never.
fn idle(at: &str, limit: Option<f64>) -> Result<Option<Duration>, CatalogError> {
    Ok(limit.map(|limit| seconds(at, limit)).transpose()?.filter(|limit| !limit.is_zero()))
}
