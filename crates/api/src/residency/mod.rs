//! The models of a server: which there are, which are loaded, and for how long.
//!
//! A model is loaded at the start or when it is first asked for: one at a time, and only once however many wait for it.
//! Loaded models share a memory budget. Where it is short, those go that were not used for longest, never one that is
//! pinned, and one that is in use only if [`Contention`] says so. A [`Lease`] keeps a model in use.

mod catalog;
mod contention;
mod lease;
mod resident;
#[cfg(test)]
pub(crate) mod tests;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

pub use catalog::{Catalog, CatalogError};
pub use contention::Contention;
pub use lease::Lease;
use resident::Resident;
pub use resident::{Phase, ResidentStatus};
use tokio::sync::{Mutex, watch};

use crate::model::{LoadObserver, LoadSpec, ServedModel};

/// Loads a model; blocks. Tests load fakes.
pub type Loader = Arc<dyn Fn(LoadSpec, &LoadObserver) -> anyhow::Result<ServedModel> + Send + Sync>;

/// How long an engine may take to give its memory back.
const UNLOAD_PATIENCE: Duration = Duration::from_secs(20);

/// Why a model can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// There is no model of that name.
    #[error("the model {name:?} does not exist: this server has {}", .known.join(", "))]
    Unknown {
        /// The name asked for.
        name: String,
        /// All names there are.
        known: Vec<String>,
    },
    /// It is the server's only one, and still being loaded.
    #[error("the model is being loaded: try again")]
    Loading,
    /// It could not be loaded.
    #[error("the model {name:?} could not be loaded: {why}")]
    Failed {
        /// The model.
        name: String,
        /// The error, on one line.
        why: String,
    },
    /// Other models hold the memory.
    #[error(
        "there is no room for the model {name:?}: it needs {} MiB, and of {} MiB in all other models hold too much",
        needed >> 20,
        budget >> 20
    )]
    NoRoom {
        /// The model.
        name: String,
        /// Bytes that it needs.
        needed: u64,
        /// Bytes that there are in all.
        budget: u64,
    },
    /// The server is on its way down.
    #[error("the server is shutting down")]
    ShuttingDown,
}

/// What an operator sets for all models together.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct ResidencyConfig {
    /// Bytes that loaded models may need together; `None`: no limit.
    pub budget: Option<u64>,
    /// Models that nobody used for so long are unloaded; `None`: never.
    pub idle_unload: Option<Duration>,
    /// What happens when models in use fill the budget.
    pub contention: Contention,
}

/// All models of a server. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Residency(Arc<Shared>);

struct Shared {
    models: Vec<Arc<Resident>>,
    config: ResidencyConfig,
    load: Loader,
    observer: LoadObserver,
    /// Held by whoever loads or unloads.
    turn: Mutex<()>,
    /// Told of each change of a model's state or use.
    changed: watch::Sender<()>,
    closing: AtomicBool,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Residency").field("models", &self.models).field("config", &self.config).finish_non_exhaustive()
    }
}

impl Residency {
    /// Models that are loaded by `load`, which tells `observer` how it gets on.
    #[must_use]
    pub fn new(catalog: Catalog, load: Loader, observer: LoadObserver) -> Self {
        let models = catalog.entries.into_iter().map(|entry| Arc::new(Resident::new(entry))).collect();
        Self(Arc::new(Shared {
            models,
            config: catalog.config,
            load,
            observer,
            turn: Mutex::new(()),
            changed: watch::Sender::new(()),
            closing: AtomicBool::new(false),
        }))
    }

    /// One model that is there already and stays.
    #[must_use]
    pub fn of(model: Arc<ServedModel>) -> Self {
        let load: Loader = Arc::new(|_, _| anyhow::bail!("it was not loaded by this server"));
        let residency = Self::new(Catalog::of(LoadSpec::named(&model.names)), load, Arc::new(|_| {}));
        residency.0.models[0].set_loaded(model, 0);
        residency
    }

    /// The model of that name, loaded if it isn't.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub async fn lease(&self, name: &str) -> Result<Lease, LeaseError> {
        let resident = self.find(name)?;
        loop {
            if self.0.closing.load(SeqCst) {
                return Err(LeaseError::ShuttingDown);
            }
            let mut outcome = match resident.enter(&self.0.changed) {
                resident::Entry::In(lease) => return Ok(lease),
                resident::Entry::Wait(outcome) => outcome,
                resident::Entry::Load(sender, outcome) => {
                    let (this, resident) = (self.clone(), Arc::clone(&resident));
                    // By itself: it goes on when those who asked have gone away.
                    tokio::spawn(async move { this.load(&resident, &sender).await });
                    outcome
                }
            };
            match outcome.wait_for(Option::is_some).await.map(|outcome| (*outcome).clone()) {
                Ok(Some(Err(error))) => return Err(error),
                Ok(_) => {}
                Err(_) => return Err(LeaseError::Failed { name: name.to_owned(), why: "loading broke off".into() }),
            }
        }
    }

    /// Loads the models that are to be there from the start, one after the other.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn preload(&self) -> Result<(), LeaseError> {
        for resident in self.0.models.iter().filter(|resident| resident.entry.preload) {
            self.lease(resident.name()).await?;
        }
        Ok(())
    }

    /// Unloads what nobody uses, for as long as it is polled.
    pub async fn reap(&self) {
        let limits = self.0.models.iter().filter_map(|resident| self.idle_limit(resident));
        let Some(shortest) = limits.min() else { return };
        let pause = (shortest / 2).clamp(Duration::from_millis(10), Duration::from_secs(5));
        loop {
            tokio::time::sleep(pause).await;
            for resident in &self.0.models {
                let Some(limit) = self.idle_limit(resident) else { continue };
                if resident.is_idle_for(limit) {
                    let _turn = self.0.turn.lock().await;
                    if let Some(model) = resident.leave(|status| status.is_idle_for(limit)) {
                        tracing::info!(model = resident.name(), "unloading: nobody has used it for {limit:?}");
                        self.unload(resident, model).await;
                    }
                }
            }
        }
    }

    /// Says of each model what it is at, in the order of the catalogue.
    #[must_use]
    pub fn status(&self) -> Vec<ResidentStatus> {
        self.0.models.iter().map(|resident| resident.status()).collect()
    }

    /// The loaded models, in the order of the catalogue.
    #[must_use]
    pub fn loaded(&self) -> Vec<Arc<ServedModel>> {
        self.0.models.iter().filter_map(|resident| resident.status().loaded).collect()
    }

    /// Settings for all models together.
    #[must_use]
    pub fn config(&self) -> ResidencyConfig {
        self.0.config
    }

    /// Whether there is but one model.
    #[must_use]
    pub fn is_single(&self) -> bool {
        self.0.models.len() == 1
    }

    /// Waits for the engine of a model that can't be loaded again to stop, and says why that is the end. For ever, if
    /// there is none such.
    pub async fn lost(&self) -> String {
        let fixed = self.0.models.iter().filter(|resident| resident.entry.fixed);
        let engines: Vec<Arc<ServedModel>> = fixed.filter_map(|resident| resident.status().loaded).collect();
        match engines.first() {
            Some(model) => model.lost().await,
            None => std::future::pending().await,
        }
    }

    /// Stops all engines, at once, and waits for them a little. No model is loaded any more.
    pub async fn close(&self) {
        self.0.closing.store(true, SeqCst);
        let models = self.loaded();
        for model in &models {
            model.shutdown();
        }
        for model in &models {
            // Gives the device's memory back in order, but never hangs on it.
            let _ = tokio::time::timeout(Duration::from_secs(5), model.stopped()).await;
        }
    }

    fn find(&self, name: &str) -> Result<Arc<Resident>, LeaseError> {
        let found = self.0.models.iter().find(|resident| resident.entry.names.iter().any(|known| known == name));
        found.cloned().ok_or_else(|| {
            let known = self.0.models.iter().flat_map(|resident| resident.entry.names.iter().cloned()).collect();
            LeaseError::Unknown { name: name.to_owned(), known }
        })
    }

    fn idle_limit(&self, resident: &Resident) -> Option<Duration> {
        resident.entry.idle_unload.or(self.0.config.idle_unload).filter(|_| !resident.entry.pinned)
    }

    async fn load(&self, resident: &Arc<Resident>, outcome: &resident::OutcomeSender) {
        let _turn = self.0.turn.lock().await;
        let result = self.load_in_turn(resident).await;
        if let Err(error) = &result {
            tracing::error!(model = resident.name(), %error, "not loaded");
            resident.set_failed(error.to_string());
        }
        self.0.changed.send_replace(());
        outcome.send_replace(Some(result));
    }

    async fn load_in_turn(&self, resident: &Arc<Resident>) -> Result<(), LeaseError> {
        let failed = |error: &anyhow::Error| {
            let why = error.chain().map(ToString::to_string).collect::<Vec<_>>().join(": ");
            LeaseError::Failed { name: resident.name().to_owned(), why }
        };
        let broke_off = |error: tokio::task::JoinError| anyhow::anyhow!("loading broke off: {error}");
        let (entry, observer) = (resident.entry.clone(), Arc::clone(&self.0.observer));
        let sized = tokio::task::spawn_blocking(move || entry.bytes(&observer)).await;
        let bytes = sized.map_err(broke_off).and_then(|bytes| bytes).map_err(|error| failed(&error))?;
        self.make_room(resident, bytes).await?;
        let (spec, observer) = (resident.entry.spec.clone(), Arc::clone(&self.0.observer));
        let load = Arc::clone(&self.0.load);
        let loaded = tokio::task::spawn_blocking(move || load(spec, &observer)).await;
        let model = loaded.map_err(broke_off).and_then(|model| model).map_err(|error| failed(&error))?;
        resident.set_loaded(Arc::new(model), bytes);
        Ok(())
    }

    /// Unloads others until a model that needs `bytes` has room.
    async fn make_room(&self, wanted: &Resident, bytes: u64) -> Result<(), LeaseError> {
        let Some(budget) = self.0.config.budget else { return Ok(()) };
        let no_room = || LeaseError::NoRoom { name: wanted.name().to_owned(), needed: bytes, budget };
        if bytes > budget {
            return Err(no_room());
        }
        let start = tokio::time::Instant::now();
        loop {
            let mut changed = self.0.changed.subscribe();
            let mut others: Vec<(&Arc<Resident>, ResidentStatus)> =
                self.0.models.iter().map(|resident| (resident, resident.status())).collect();
            others.retain(|(_, status)| status.phase == Phase::Loaded);
            if others.iter().map(|(_, status)| status.bytes).sum::<u64>() + bytes <= budget {
                return Ok(());
            }
            others.retain(|(resident, _)| !resident.entry.pinned);
            others.sort_by_key(|(_, status)| status.last_used);
            if let Some((resident, _)) = others.iter().find(|(_, status)| status.uses == 0) {
                if let Some(model) = resident.leave(|status| status.uses == 0) {
                    tracing::info!(
                        model = resident.name(),
                        for_model = wanted.name(),
                        "unloading: its memory is needed"
                    );
                    self.unload(resident, model).await;
                }
                continue;
            }
            let wait = self.0.config.contention.wait;
            let left = wait.map(|wait| wait.saturating_sub(start.elapsed()));
            if left.is_none_or(|left| !left.is_zero()) && !others.is_empty() {
                let word = changed.changed();
                match left {
                    Some(left) => drop(tokio::time::timeout(left, word).await),
                    None => drop(word.await),
                }
                continue;
            }
            if !self.0.config.contention.preempt {
                return Err(no_room());
            }
            let Some((resident, _)) = others.first() else { return Err(no_room()) };
            if let Some(model) = resident.leave(|_| true) {
                tracing::warn!(model = resident.name(), for_model = wanted.name(), "unloading it in mid-use");
                self.unload(resident, model).await;
            }
        }
    }

    async fn unload(&self, resident: &Resident, model: Arc<ServedModel>) {
        model.shutdown();
        if tokio::time::timeout(UNLOAD_PATIENCE, model.stopped()).await.is_err() {
            tracing::error!(model = resident.name(), "its engine does not stop: its memory is not free yet");
        }
        drop(model);
        resident.set_unloaded();
        self.0.changed.send_replace(());
    }
}
