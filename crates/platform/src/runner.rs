//! What a backend implements.

use crate::{DeviceChoice, DeviceKind, MemoryInfo, ModelInfo, ModelSource, Result, StepOutput, StepPlan};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Device to run on.
    pub device: DeviceChoice,
    /// Threads for work on the CPU; `None`: one for each physical core.
    pub threads: Option<usize>,
    /// Longest sequence to serve; `None`: the model's own.
    pub max_model_len: Option<usize>,
    /// Bytes for KV storage; `None`: the platform decides from its memory.
    pub kv_cache_bytes: Option<u64>,
    /// Sequences that may run at once: bounds the KV storage a platform picks by itself.
    pub max_num_seqs: usize,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self { device: DeviceChoice::Auto, threads: None, max_model_len: None, kv_cache_bytes: None, max_num_seqs: 16 }
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
}
