//! What a model family implements, and where it registers.

use vllm_platform::inventory;

use crate::{Batch, LoadContext, Result, Tensor, kv::KvStore};

/// What one attention layer keeps in the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerSpec {
    /// Key/value heads.
    pub kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// A query sees this many keys, itself included; `None`: all before it.
    pub window: Option<usize>,
}

/// A causal language model. Written once for all devices; see `docs/adding-a-model.md`.
pub trait CausalLm {
    /// The attention layers that were loaded, first to last.
    fn layers(&self) -> Vec<LayerSpec>;

    /// Longest sequence the model was made for, in tokens.
    fn context_length(&self) -> usize;

    /// Rows of the output matrix.
    fn vocab_size(&self) -> usize;

    /// `batch.tokens` `[tokens]` → hidden states after the last norm, [tokens, hidden]. A [stage](LoadContext::stage) that isn't the
    /// first goes on from what it received, and one that isn't the last ends with what its last layer made.
    ///
    /// # Errors
    /// MLX's own.
    fn forward(&self, batch: &Batch, kv: &mut dyn KvStore) -> Result<Tensor>;

    /// Hidden states [rows, hidden] → logits [rows, vocab]; asked of the last stage only.
    ///
    /// # Errors
    /// MLX's own.
    fn logits(&self, hidden: &Tensor) -> Result<Tensor>;
}

type LoadCausalLm = fn(&LoadContext<'_>) -> Result<Box<dyn CausalLm>>;

/// A family of models: one architecture name and how to load it.
///
/// ```no_run
/// use vllm_platform_mlx::{LoadContext, Result, inventory, model::{CausalLm, Family}};
///
/// inventory::submit! { Family::causal_lm("MyForCausalLM", load) }
///
/// fn load(ctx: &LoadContext<'_>) -> Result<Box<dyn CausalLm>> {
///     let embedding = ctx.at("model").embedding("embed_tokens", 32_000, 4096)?;
///     // … the other layers, and a struct that holds them and is a `CausalLm`.
///     # drop(embedding);
///     # Err(vllm_platform_mlx::Error::Config("an example".into()))
/// }
/// ```
pub struct Family {
    /// As in `config.json`'s `architectures`.
    pub architecture: &'static str,
    pub(crate) load: LoadCausalLm,
    pub(crate) stages: bool,
}

impl Family {
    /// A causal language model of `architecture`.
    #[must_use]
    pub const fn causal_lm(architecture: &'static str, load: LoadCausalLm) -> Self {
        Self { architecture, load, stages: false }
    }

    /// Whose layers may be spread over machines: it loads what [`LoadContext::stage`] says and no more.
    #[must_use]
    pub const fn in_stages(self) -> Self {
        Self { stages: true, ..self }
    }
}

inventory::collect!(Family);

/// Families linked into this binary, sorted by name.
#[must_use]
pub fn families() -> Vec<&'static Family> {
    let mut families: Vec<_> = inventory::iter::<Family>().collect();
    families.sort_by_key(|family| family.architecture);
    families
}
