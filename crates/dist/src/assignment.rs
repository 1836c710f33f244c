//! What ranks tell each other over their lines.

use std::{fmt, ops::Range};

use serde::{Deserialize, Serialize};
use vllm_platform::{Activations, HiddenDtype, KvDtype, KvStoreChoice, LoadOptions, ModelInfo, StageRunner};

use crate::plan::PlanData;

/// How hidden states travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Transport {
    /// Sockets of ours: a rank that dies fails a step, and can come back.
    #[default]
    Tcp,
    /// MLX's ring over TCP.
    Ring,
    /// MLX over RDMA on Thunderbolt.
    Jaccl,
    /// NVIDIA's collectives, by way of MLX.
    Nccl,
}

impl Transport {
    /// As options and the platform call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Ring => "ring",
            Self::Jaccl => "jaccl",
            Self::Nccl => "nccl",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What is said on a line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// The first word of one who follows.
    Machine(Machine),
    /// What it is to do.
    Assign(Box<Assignment>),
    /// It has loaded that.
    Ready(StageFacts),
    /// Hidden states may be sent from now on: connect.
    Connect,
    /// It has.
    Connected,
    /// A step to compute.
    Step { number: u64, plan: PlanData },
    /// It failed here: the text goes to whoever asked. Only where the transport carries no texts.
    StepFailed { number: u64, why: String },
    /// Still there.
    Beat,
    /// It can't go on.
    Lost(String),
}

/// A machine that could have some layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// Of the model that it has, as in [`vllm_platform::ModelOutline::fingerprint`].
    pub fingerprint: String,
    /// The model as its operator named it.
    pub model: String,
    /// Its device.
    pub device: String,
    /// Bytes for weights and KV.
    pub memory: u64,
}

/// What a rank is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Assignment {
    /// Tells this joining of ranks from others.
    pub session: u64,
    pub rank: usize,
    /// How many ranks there are.
    pub size: usize,
    pub layers: Range<usize>,
    /// Where the rank listens whose hidden states it gets; `None`: it has the first layers.
    pub before: Option<String>,
    pub transport: Transport,
    pub settings: Settings,
}

/// What all ranks must load alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    activations: Activations,
    max_model_len: Option<usize>,
    max_num_seqs: usize,
    max_num_batched_tokens: usize,
    kv_store: KvStoreChoice,
    kv_cache_dtype: Option<KvDtype>,
}

impl Settings {
    pub fn of(options: &LoadOptions) -> Self {
        Self {
            activations: options.activations,
            max_model_len: options.max_model_len,
            max_num_seqs: options.max_num_seqs,
            max_num_batched_tokens: options.max_num_batched_tokens,
            kv_store: options.kv_store,
            kv_cache_dtype: options.kv_cache_dtype,
        }
    }

    /// A rank's own options, and these.
    pub fn apply(&self, options: &LoadOptions) -> LoadOptions {
        LoadOptions {
            activations: self.activations,
            max_model_len: self.max_model_len,
            max_num_seqs: self.max_num_seqs,
            max_num_batched_tokens: self.max_num_batched_tokens,
            kv_store: self.kv_store,
            kv_cache_dtype: self.kv_cache_dtype,
            ..options.clone()
        }
    }
}

/// A stage that is loaded, as far as others must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StageFacts {
    pub device: String,
    pub weight_bytes: u64,
    pub width: usize,
    pub hidden: HiddenDtype,
    block_size: usize,
    kv_dtype: KvDtype,
    rewind: Option<usize>,
    /// Window and blocks of each group.
    groups: Vec<(Option<usize>, usize)>,
}

impl StageFacts {
    pub fn of(stage: &dyn StageRunner) -> Self {
        let ModelInfo { device, weight_bytes, kv_cache, .. } = stage.info();
        Self {
            device: device.to_string(),
            weight_bytes: *weight_bytes,
            width: stage.width(),
            hidden: stage.hidden_dtype(),
            block_size: kv_cache.block_size,
            kv_dtype: kv_cache.dtype,
            rewind: kv_cache.rewind,
            groups: kv_cache.groups.iter().map(|group| (group.window, group.num_blocks)).collect(),
        }
    }

    /// Why a step can't be the same here and there: block tables, or hidden states, would mean something else.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let windows = |facts: &Self| facts.groups.iter().map(|&(window, _)| window).collect::<Vec<_>>();
        let differs =
            |what: &str, here: String, there: String| Some(format!("{what}: {here} on rank 0, {there} there"));
        if self.block_size != other.block_size {
            return differs("tokens of a KV block", self.block_size.to_string(), other.block_size.to_string());
        }
        if windows(self) != windows(other) {
            let [here, there] = [self, other].map(|facts| format!("{:?}", windows(facts)));
            return differs("attention windows of the layers (try another --pipeline-split)", here, there);
        }
        if self.rewind != other.rewind {
            return differs("what the KV store forgets", format!("{:?}", self.rewind), format!("{:?}", other.rewind));
        }
        if self.kv_dtype != other.kv_dtype {
            return differs("--kv-cache-dtype", self.kv_dtype.to_string(), other.kv_dtype.to_string());
        }
        if self.hidden != other.hidden {
            return differs("activations", format!("{:?}", self.hidden), format!("{:?}", other.hidden));
        }
        None
    }

    /// Blocks of each group.
    pub fn blocks(&self) -> impl Iterator<Item = usize> + '_ {
        self.groups.iter().map(|&(_, blocks)| blocks)
    }
}
