//! What a backend implements.

use std::{ops::Range, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    BlockId, DeviceChoice, DeviceKind, EncoderOptions, EncoderRunner, Error, KvDtype, Link, MemoryInfo, ModelInfo,
    ModelOutline, ModelPurpose, ModelSource, Result, SpeechOptions, StageRunner, StepOutput, StepPlan, Synthesizer,
    Transcriber, VisionEncoder,
};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Device to run on.
    pub device: DeviceChoice,
    /// Threads for work on the CPU; `None`: one for each physical core.
    pub threads: Option<usize>,
    /// Whether each of them is bound to a core of its own.
    pub pin_threads: bool,
    /// What the CPU's kernels make of activations that meet quantized weights.
    pub activations: Activations,
    /// Longest sequence to serve; `None`: the model's own.
    pub max_model_len: Option<usize>,
    /// Bytes for KV storage; `None`: what `memory_utilization` leaves.
    pub kv_cache_bytes: Option<u64>,
    /// Share of the device's memory, above 0 and at most 1, for weights and KV storage together.
    pub memory_utilization: f64,
    /// Bytes that features of pictures may take, if the model's vision encoder is to be loaded beside it: both are left out of
    /// what `memory_utilization` leaves.
    pub media_cache_bytes: Option<u64>,
    /// Sequences that may run at once: bounds the KV storage a platform picks by itself.
    pub max_num_seqs: usize,
    /// Most tokens of a step: windowed layers need room for a window and one step's chunk.
    pub max_num_batched_tokens: usize,
    /// How the KV of sequences is kept; `Auto`: as suits the device.
    pub kv_store: KvStoreChoice,
    /// What keys and values are stored as; `None`: as suits the device and the activations.
    pub kv_cache_dtype: Option<KvDtype>,
}

/// What the CPU's kernels make of activations that they multiply with quantized weights of 4 or 8 bits, and of those of
/// convolutions in models that make sound (whose weights become integers of as many bytes when they are loaded), where the
/// processor has byte dot products. Elsewhere activations stay as they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Activations {
    /// 16-bit integers, under a common power of two for each 32; before convolutions 14-bit ones, under a common scale for each
    /// frame.
    #[default]
    Int16,
    /// 8-bit integers, under a common scale for each 32, or before convolutions for each frame: faster with long prompts, large
    /// batches and sound, and less precise.
    Int8,
    /// f32: as they are, everywhere.
    F32,
}

/// How the KV of sequences is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum KvStoreChoice {
    /// As suits the device.
    #[default]
    Auto,
    /// Small blocks that sequences share, and an attention kernel of our own.
    Paged,
    /// One extent a sequence, and the platform's own attention.
    Contiguous,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Auto,
            threads: None,
            pin_threads: false,
            activations: Activations::default(),
            max_model_len: None,
            kv_cache_bytes: None,
            memory_utilization: 0.9,
            media_cache_bytes: None,
            max_num_seqs: 16,
            max_num_batched_tokens: 256,
            kv_store: KvStoreChoice::Auto,
            kv_cache_dtype: None,
        }
    }
}

/// Called while a model loads, with tensors done and tensors in all.
pub type LoadProgress<'a> = &'a mut dyn FnMut(usize, usize);

/// A backend: its devices, its memory, and models on them.
pub trait Platform {
    /// Devices present, best first, asked of the backend itself.
    fn devices(&self) -> Vec<DeviceKind>;

    /// Memory of one device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self, device: DeviceKind) -> Result<MemoryInfo>;

    /// What somebody who looks for the cause of a problem wants to know of this backend: names and values.
    fn facts(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Architectures that can be loaded, as in `config.json`'s `architectures`, sorted.
    fn architectures(&self) -> Vec<&'static str>;

    /// Loads a model. The runner stays on the calling thread.
    ///
    /// # Errors
    /// [`crate::Error::Model`] naming the file, tensor or key at fault.
    fn load(
        &self,
        source: &ModelSource,
        options: &LoadOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Box<dyn ModelRunner>>;

    /// What a model is made of, for whoever spreads its layers over machines. Reads a little of every tensor.
    ///
    /// # Errors
    /// [`crate::Error::Model`] if its files are unusable, or its layers can't be apart from each other.
    fn outline(&self, _source: &ModelSource) -> Result<ModelOutline> {
        Err(Error::Model("this platform spreads no models over machines".into()))
    }

    /// Loads some layers of a model that has an [`outline`](Self::outline), with what comes before the first and after the last
    /// where they are among them. The runner stays on the calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_stage(
        &self,
        _source: &ModelSource,
        _options: &LoadOptions,
        _layers: Range<usize>,
        _progress: LoadProgress<'_>,
    ) -> Result<Box<dyn StageRunner>> {
        Err(Error::Model("this platform spreads no models over machines".into()))
    }

    /// Joins the processes that the environment names, over a transport of the platform's own. Blocks until all are there. The
    /// link stays on the calling thread.
    ///
    /// # Errors
    /// If there is no such transport here, or the environment doesn't say who the others are.
    fn link(&self, transport: &str) -> Result<Box<dyn Link>> {
        Err(Error::Model(format!("this platform has no transport {transport}")))
    }

    /// What a model's files say it is for, from its small files alone.
    ///
    /// # Errors
    /// [`crate::Error::Model`] naming the file or key at fault.
    fn purpose(&self, source: &ModelSource) -> Result<ModelPurpose>;

    /// Loads a model that gives embeddings or scores. The runner stays on the calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_encoder(
        &self,
        source: &ModelSource,
        options: &EncoderOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Box<dyn EncoderRunner>>;

    /// Loads the vision encoder of a model that [`load`](Self::load) loads the rest of; `None` if it has none. It stays on the
    /// calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_vision(
        &self,
        source: &ModelSource,
        options: &VisionOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Option<Box<dyn VisionEncoder>>>;

    /// Loads a model that writes down speech. It stays on the calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_transcriber(
        &self,
        source: &ModelSource,
        options: &SpeechOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Transcriber>;

    /// Loads a model that speaks. It stays on the calling thread.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    fn load_synthesizer(
        &self,
        source: &ModelSource,
        options: &SpeechOptions,
        progress: LoadProgress<'_>,
    ) -> Result<Box<dyn Synthesizer>>;
}

/// How to load a vision encoder.
#[derive(Debug, Clone, Copy, Default)]
pub struct VisionOptions {
    /// Device to run on.
    pub device: DeviceChoice,
    /// Threads for work on the CPU; `None`: one for each physical core.
    pub threads: Option<usize>,
    /// Whether each of them is bound to a core of its own.
    pub pin_threads: bool,
    /// As [`LoadOptions::activations`].
    pub activations: Activations,
}

/// What a runner spent on one kind of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkTime {
    /// Of the work, as the platform calls it.
    pub name: String,
    /// How often it was done.
    pub calls: u64,
    /// In all.
    pub time: Duration,
}

/// A loaded model. Lives on one thread (MLX arrays and streams belong to the thread that made them).
pub trait ModelRunner {
    /// The model in numbers.
    fn info(&self) -> &ModelInfo;

    /// Memory of the model's device.
    ///
    /// # Errors
    /// If the backend cannot say.
    fn memory(&self) -> Result<MemoryInfo>;

    /// Computes one step: writes the KV of every row's tokens into its blocks and samples where asked.
    ///
    /// # Errors
    /// [`crate::Error::OutOfMemory`] or [`crate::Error::Step`]; the blocks of the plan's rows then hold nothing
    /// that may be relied on, and the runner is ready for the next step.
    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput>;

    /// Whether all KV that was written is gone, since the last call; the reason. Asked before each step is planned: nothing that
    /// was computed before may be relied on afterwards.
    fn kv_lost(&mut self) -> Option<String> {
        None
    }

    /// What the steps since the last call were spent on, and from here on counts: empty the first time, and where the
    /// platform can't tell. Counting costs some tens of nanoseconds for each operation of a step.
    fn profile(&mut self) -> Vec<WorkTime> {
        Vec::new()
    }

    /// The first `tokens` tokens of a block of one group, over all its layers, as bytes for a slower tier.
    ///
    /// The bytes are little-endian numbers of [`KvCacheSpec::dtype`](crate::KvCacheSpec::dtype) (with their scales, if it
    /// has any) in an order of the platform's own; only [`import_block`](Self::import_block) of a runner with the same
    /// [`ModelInfo::kv_fingerprint`] understands them.
    ///
    /// # Errors
    /// [`crate::Error::Step`] if there is no such block or it never held as many tokens.
    fn export_block(&mut self, group: usize, block: BlockId, tokens: usize) -> Result<Vec<u8>>;

    /// Restores a block from what [`export_block`](Self::export_block) gave for as many tokens.
    ///
    /// # Errors
    /// [`crate::Error::Step`] if there is no such block or the bytes are not of that length; the block's content is
    /// then undefined.
    fn import_block(&mut self, group: usize, block: BlockId, tokens: usize, bytes: &[u8]) -> Result<()>;
}
