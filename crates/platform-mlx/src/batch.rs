//! A ragged batch on the device.

use std::{
    cell::Cell,
    sync::{Arc, PoisonError, RwLock},
};

use crate::{Layout, Tensor};

/// Tokens of all sequences of a step, prefill chunks and decode tokens alike, in one ragged row.
///
/// Only [`crate::kv::KvStore::attend`] knows about sequences; everything else in a model works row by row.
pub struct Batch {
    /// Token ids, `[tokens]`, u32.
    pub tokens: Tensor,
    /// Position of each token in its sequence, `[tokens]`, u32.
    pub positions: Tensor,
    layout: StepLayout,
    inspected: Cell<bool>,
}

/// The layout of the step that is being computed, for kernels: a graph that is replayed sees another one each time.
#[derive(Debug, Clone)]
pub struct StepLayout(Arc<RwLock<Arc<Layout>>>);

impl StepLayout {
    fn new(layout: Arc<Layout>) -> Self {
        Self(Arc::new(RwLock::new(layout)))
    }

    /// That of now.
    #[must_use]
    pub fn get(&self) -> Arc<Layout> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn set(&self, layout: Arc<Layout>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = layout;
    }
}

impl Batch {
    /// A batch of that layout.
    #[must_use]
    pub fn new(layout: Arc<Layout>) -> Self {
        let shape = [dim(layout.len())];
        Self {
            tokens: Tensor::from_slice(layout.tokens(), &shape),
            positions: Tensor::from_slice(&layout.positions, &shape),
            layout: StepLayout::new(layout),
            inspected: Cell::new(false),
        }
    }

    /// The layout as it is now, while the graph is built. Whoever asks makes something of it that holds for this batch only:
    /// the graph will not be used for another one. Kernels look [when they run](Self::at_evaluation).
    #[must_use]
    pub fn layout(&self) -> Arc<Layout> {
        self.inspected.set(true);
        self.layout.get()
    }

    /// For kernels: the layout of the step that is being computed when they run.
    #[must_use]
    pub fn at_evaluation(&self) -> StepLayout {
        self.layout.clone()
    }

    /// Whether the graph depends on more than the number of rows and of those wanted.
    pub(crate) fn was_inspected(&self) -> bool {
        self.inspected.get()
    }

    /// Rows in the batch.
    #[must_use]
    pub fn len(&self) -> usize {
        self.layout.get().len()
    }

    /// Never: a batch has at least one row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layout.get().is_empty()
    }

    /// How many rows' results are asked for.
    #[must_use]
    pub fn wanted(&self) -> usize {
        self.layout.get().wanted().len()
    }
}

/// A dimension as MLX counts it.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
pub(crate) fn dim(n: usize) -> i32 {
    debug_assert!(i32::try_from(n).is_ok(), "dimension {n} exceeds MLX's i32");
    n as i32
}
