//! The right to use a model.

use std::{ops::Deref, sync::Arc};

use tokio::sync::watch;

use super::resident::Resident;
use crate::model::ServedModel;

/// A model in use: it is not unloaded as long as this or a clone of it lives.
#[derive(Debug, Clone)]
pub struct Lease(Arc<InUse>);

#[derive(Debug)]
struct InUse {
    model: Arc<ServedModel>,
    resident: Arc<Resident>,
    changed: watch::Sender<()>,
}

impl Lease {
    /// A use that `resident` has counted already.
    pub(super) fn new(model: Arc<ServedModel>, resident: Arc<Resident>, changed: watch::Sender<()>) -> Self {
        Self(Arc::new(InUse { model, resident, changed }))
    }
}

impl Deref for Lease {
    type Target = ServedModel;

    fn deref(&self) -> &ServedModel {
        &self.0.model
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.resident.end_use();
        self.changed.send_replace(());
    }
}
