//! One model with its state.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::{Lease, LeaseError, catalog};
use crate::model::ServedModel;

/// How a load ended; `None` before it has.
pub(super) type Outcome = watch::Receiver<Option<Result<(), LeaseError>>>;
pub(super) type OutcomeSender = watch::Sender<Option<Result<(), LeaseError>>>;

/// What a model is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Phase {
    Unloaded,
    Loading,
    Loaded,
    Unloading,
}

impl Phase {
    /// As `/v1/status` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unloaded => "unloaded",
            Self::Loading => "loading",
            Self::Loaded => "loaded",
            Self::Unloading => "unloading",
        }
    }
}

/// A model as `/v1/status` shows it.
#[derive(Debug, Clone)]
pub struct ResidentStatus {
    /// Names it answers to.
    pub names: Vec<String>,
    /// What it is at.
    pub phase: Phase,
    /// Requests that use it.
    pub uses: usize,
    /// When the last of them ended, or it was loaded.
    pub last_used: Option<Instant>,
    /// What it needs while it is loaded; 0 if that isn't known yet.
    pub bytes: u64,
    /// Whether it is never unloaded for others.
    pub pinned: bool,
    /// Why it could not be loaded the last time.
    pub last_error: Option<String>,
    /// The model, while it is loaded.
    pub loaded: Option<Arc<ServedModel>>,
}

impl ResidentStatus {
    /// Whether it is loaded and nobody has used it for so long.
    #[must_use]
    pub fn is_idle_for(&self, limit: Duration) -> bool {
        self.phase == Phase::Loaded && self.uses == 0 && self.last_used.is_some_and(|then| then.elapsed() >= limit)
    }
}

/// A model of the catalogue.
#[derive(Debug)]
pub(super) struct Resident {
    pub entry: catalog::Entry,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    place: Place,
    uses: usize,
    last_used: Option<Instant>,
    bytes: u64,
    last_error: Option<String>,
}

#[derive(Debug)]
enum Place {
    Unloaded,
    Loading(Outcome),
    Loaded(Arc<ServedModel>),
    Unloading,
}

/// What somebody who wants to use a model has to do.
pub(super) enum Entry {
    /// Go ahead.
    In(Lease),
    /// Wait for the load that is under way.
    Wait(Outcome),
    /// Load it and tell all who wait.
    Load(OutcomeSender, Outcome),
}

impl Resident {
    pub fn new(entry: catalog::Entry) -> Self {
        let state = State { place: Place::Unloaded, uses: 0, last_used: None, bytes: 0, last_error: None };
        Self { entry, state: Mutex::new(state) }
    }

    /// The name it is known by in logs.
    pub fn name(&self) -> &str {
        self.entry.names.first().map_or("", String::as_str)
    }

    /// Enters, or says what has to be done for that.
    pub fn enter(self: &Arc<Self>, changed: &watch::Sender<()>) -> Entry {
        let mut state = self.state();
        match &state.place {
            Place::Loaded(model) if self.entry.fixed || model.is_alive() => {
                let model = Arc::clone(model);
                return Entry::In(self.count_use(&mut state, model, changed));
            }
            Place::Loading(outcome) => return Entry::Wait(outcome.clone()),
            Place::Loaded(_) => tracing::error!(model = self.name(), "its engine is dead: loading it again"),
            // An unload under way ends first: both need their turn.
            Place::Unloaded | Place::Unloading => {}
        }
        let (sender, outcome) = watch::channel(None);
        state.place = Place::Loading(outcome.clone());
        Entry::Load(sender, outcome)
    }

    fn count_use(self: &Arc<Self>, state: &mut State, model: Arc<ServedModel>, changed: &watch::Sender<()>) -> Lease {
        state.uses += 1;
        Lease::new(model, Arc::clone(self), changed.clone())
    }

    pub fn end_use(&self) {
        let mut state = self.state();
        state.uses = state.uses.saturating_sub(1);
        state.last_used = Some(Instant::now());
    }

    pub fn set_loaded(&self, model: Arc<ServedModel>, bytes: u64) {
        let mut state = self.state();
        state.place = Place::Loaded(model);
        (state.bytes, state.last_used, state.last_error) = (bytes, Some(Instant::now()), None);
    }

    pub fn set_failed(&self, why: String) {
        let mut state = self.state();
        state.place = Place::Unloaded;
        state.last_error = Some(why);
    }

    /// Takes the model out if `may` still says so: nobody enters from now on.
    pub fn leave(&self, may: impl FnOnce(&ResidentStatus) -> bool) -> Option<Arc<ServedModel>> {
        let mut state = self.state();
        let status = self.status_of(&state);
        match &state.place {
            Place::Loaded(model) if may(&status) => {
                let model = Arc::clone(model);
                state.place = Place::Unloading;
                Some(model)
            }
            _ => None,
        }
    }

    /// Its engine has stopped. Whoever asked for it meanwhile has made it a load to come.
    pub fn set_unloaded(&self) {
        let mut state = self.state();
        if matches!(state.place, Place::Unloading) {
            state.place = Place::Unloaded;
        }
    }

    pub fn is_idle_for(&self, limit: Duration) -> bool {
        self.status().is_idle_for(limit)
    }

    pub fn status(&self) -> ResidentStatus {
        self.status_of(&self.state())
    }

    fn status_of(&self, state: &State) -> ResidentStatus {
        ResidentStatus {
            names: self.entry.names.clone(),
            phase: match state.place {
                Place::Unloaded => Phase::Unloaded,
                Place::Loading(_) => Phase::Loading,
                Place::Loaded(_) => Phase::Loaded,
                Place::Unloading => Phase::Unloading,
            },
            uses: state.uses,
            last_used: state.last_used,
            bytes: state.bytes,
            pinned: self.entry.pinned,
            last_error: state.last_error.clone(),
            loaded: match &state.place {
                Place::Loaded(model) => Some(Arc::clone(model)),
                _ => None,
            },
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
