//! The responses that can be asked for again. In memory; what was not used for longest goes first.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use serde_json::Value;
use tokio::sync::watch;

use super::charge::{Charge, weight_of_items, weight_of_object};

/// A part of a conversation, as it is shown to clients.
pub type Item = Arc<Value>;

/// Whose a response is: [`identity`](crate::http::client::identity) of the key it was asked for with.
pub type Owner = Option<Arc<str>>;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Most responses.
    pub responses: usize,
    /// Most bytes of all together, about.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { responses: 10_000, bytes: 128 << 20 }
    }
}

/// One turn of a conversation: what was asked and what was answered. Turns that follow hold on to it, also when its
/// response is forgotten.
#[derive(Debug)]
pub struct Turn {
    previous: Option<Arc<Turn>>,
    input: Arc<[Item]>,
    output: Vec<Item>,
    _charge: Charge,
}

impl Turn {
    /// All items of the conversation up to here.
    #[must_use]
    pub fn items(&self) -> Vec<Item> {
        let turns: Vec<&Self> = std::iter::successors(Some(self), |turn| turn.previous.as_deref()).collect();
        turns.iter().rev().flat_map(|turn| turn.input.iter().chain(&turn.output)).cloned().collect()
    }
}

impl Drop for Turn {
    /// One by one: a conversation may be longer than the stack is deep.
    fn drop(&mut self) {
        let mut next = self.previous.take();
        while let Some(mut turn) = next.and_then(Arc::into_inner) {
            next = turn.previous.take();
        }
    }
}

/// A response, under way or ended.
#[derive(Debug)]
pub struct Entry {
    /// `resp_…`.
    pub id: String,
    /// Whether it goes on without its client.
    pub background: bool,
    /// What was asked, without the turns before.
    pub input: Arc<[Item]>,
    owner: Owner,
    previous: Option<Arc<Turn>>,
    /// Whether it can be asked for again.
    kept: AtomicBool,
    state: watch::Sender<State>,
}

/// How far a response is.
#[derive(Debug, Clone)]
pub struct State {
    /// As it is shown.
    pub object: Arc<Value>,
    /// Set when it has ended.
    pub turn: Option<Arc<Turn>>,
}

impl Entry {
    /// How far it is.
    #[must_use]
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Waits for its end.
    pub async fn ended(&self) {
        // It can't close: the sender lives in this entry.
        let _ = self.state.subscribe().wait_for(|state| state.turn.is_some()).await;
    }
}

/// All responses.
#[derive(Debug)]
pub struct Store {
    inner: Mutex<Inner>,
    bytes: Arc<AtomicUsize>,
    limits: Limits,
}

#[derive(Debug, Default)]
struct Inner {
    /// Those under way. There are never more than the engine takes.
    live: HashMap<String, Arc<Entry>>,
    ended: HashMap<String, Kept>,
    /// Ids of `ended`, by when they were last asked for.
    by_use: BTreeMap<u64, String>,
    /// Items of `ended`, by their ids.
    items: HashMap<(Owner, String), Item>,
    clock: u64,
}

#[derive(Debug)]
struct Kept {
    entry: Arc<Entry>,
    used: u64,
    _charge: Charge,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Store {
    /// An empty one.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { inner: Mutex::default(), bytes: Arc::default(), limits }
    }

    /// Enters a response that is under way. What becomes of it is said by [`Open::end`].
    pub fn open(self: &Arc<Self>, new: NewEntry) -> Open {
        let entry = Arc::new(Entry {
            id: new.id,
            background: new.background,
            input: new.input,
            owner: new.owner,
            previous: new.previous,
            kept: AtomicBool::new(new.kept),
            state: watch::Sender::new(State { object: Arc::new(new.object), turn: None }),
        });
        self.lock().live.insert(entry.id.clone(), Arc::clone(&entry));
        Open { store: Arc::clone(self), entry }
    }

    /// The response of that id, if it is this owner's and is or will be kept.
    #[must_use]
    pub fn get(&self, id: &str, owner: &Owner) -> Option<Arc<Entry>> {
        let mut inner = self.lock();
        let live = inner.live.get(id).filter(|entry| entry.kept.load(SeqCst)).cloned();
        live.or_else(|| inner.touch(id)).filter(|entry| entry.owner == *owner)
    }

    /// The response of that id that is under way, kept or not, if it is this owner's.
    #[must_use]
    pub fn live(&self, id: &str, owner: &Owner) -> Option<Arc<Entry>> {
        self.lock().live.get(id).filter(|entry| entry.owner == *owner).cloned()
    }

    /// The item of that id in any response that is kept, if it is this owner's.
    #[must_use]
    pub fn item(&self, id: &str, owner: &Owner) -> Option<Item> {
        self.lock().items.get(&(owner.clone(), id.to_owned())).cloned()
    }

    /// Forgets the response of that id, if it is this owner's. One under way will not be kept.
    pub fn remove(&self, id: &str, owner: &Owner) -> Option<Arc<Entry>> {
        let entry = self.get(id, owner)?;
        entry.kept.store(false, SeqCst);
        self.lock().forget(id);
        Some(entry)
    }

    fn end(&self, entry: &Arc<Entry>, object: Value, output: Vec<Item>) {
        let weight = weight_of_items(&entry.input) + weight_of_items(&output);
        let of_object = Charge::new(&self.bytes, weight_of_object(&object));
        let turn = Arc::new(Turn {
            previous: entry.previous.clone(),
            input: Arc::clone(&entry.input),
            output,
            _charge: Charge::new(&self.bytes, weight),
        });
        entry.state.send_replace(State { object: Arc::new(object), turn: Some(turn) });
        let mut inner = self.lock();
        inner.live.remove(&entry.id);
        if entry.kept.load(SeqCst) {
            inner.keep(entry, of_object);
            while inner.ended.len() > self.limits.responses || self.bytes.load(SeqCst) > self.limits.bytes {
                let Some((_, id)) = inner.by_use.pop_first() else { break };
                inner.forget(&id);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn touch(&mut self, id: &str) -> Option<Arc<Entry>> {
        let kept = self.ended.get_mut(id)?;
        self.by_use.remove(&kept.used);
        self.clock += 1;
        kept.used = self.clock;
        self.by_use.insert(self.clock, id.to_owned());
        Some(Arc::clone(&kept.entry))
    }

    fn keep(&mut self, entry: &Arc<Entry>, charge: Charge) {
        for item in entry.own_items() {
            if let Some(key) = key(&entry.owner, &item) {
                self.items.insert(key, item);
            }
        }
        self.ended.insert(entry.id.clone(), Kept { entry: Arc::clone(entry), used: 0, _charge: charge });
        self.touch(&entry.id);
    }

    fn forget(&mut self, id: &str) {
        let Some(kept) = self.ended.remove(id) else { return };
        self.by_use.remove(&kept.used);
        for item in kept.entry.own_items() {
            // Another response may have an item of the same id.
            if let Some(key) = key(&kept.entry.owner, &item)
                && self.items.get(&key).is_some_and(|known| Arc::ptr_eq(known, &item))
            {
                self.items.remove(&key);
            }
        }
    }
}

impl Entry {
    /// Items of this turn alone.
    fn own_items(&self) -> Vec<Item> {
        let turn = self.state().turn;
        turn.iter().flat_map(|turn| turn.input.iter().chain(&turn.output)).cloned().collect()
    }
}

fn key(owner: &Owner, item: &Value) -> Option<(Owner, String)> {
    Some((owner.clone(), item.get("id")?.as_str()?.to_owned()))
}

/// What a response begins with.
#[derive(Debug)]
pub struct NewEntry {
    /// `resp_…`.
    pub id: String,
    /// Whose it is.
    pub owner: Owner,
    /// Whether it can be asked for again.
    pub kept: bool,
    /// Whether it goes on without its client.
    pub background: bool,
    /// The turn that it follows.
    pub previous: Option<Arc<Turn>>,
    /// What was asked.
    pub input: Arc<[Item]>,
    /// As it is shown for now.
    pub object: Value,
}

/// A response under way, for whoever writes it.
#[derive(Debug)]
pub struct Open {
    store: Arc<Store>,
    entry: Arc<Entry>,
}

impl Open {
    /// It is this far.
    pub fn show(&self, object: Value) {
        self.entry.state.send_modify(|state| state.object = Arc::new(object));
    }

    /// It has ended; this is what it came to.
    pub fn end(self, object: Value, output: Vec<Item>) {
        self.store.end(&self.entry, object, output);
    }
}

#[cfg(test)]
mod tests;
