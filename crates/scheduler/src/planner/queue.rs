//! Who waits, and whose turn it is.

use std::{collections::HashMap, sync::Arc};

use vllm_platform::SeqId;

use crate::sequence::Sequence;

/// What a client has had, in tokens computed for it.
///
/// Method: virtual token counters (Sheng et al., "Fairness in Serving Large Language Models", arXiv:2401.00588). The
/// client that has had least is next. One that comes (back) is lifted to the least of those that are there, so that
/// nobody saves up a claim by staying away.
#[derive(Debug, Default)]
pub(crate) struct Shares {
    clients: HashMap<Option<Arc<str>>, Client>,
}

#[derive(Debug, Default)]
struct Client {
    served: u64,
    /// Sequences it has, waiting or running.
    present: usize,
    running: usize,
}

impl Shares {
    pub fn arrive(&mut self, client: &Option<Arc<str>>) {
        let floor = self.clients.values().map(|client| client.served).min().unwrap_or(0);
        let entry = self.clients.entry(client.clone()).or_insert(Client { served: floor, ..Client::default() });
        entry.present += 1;
    }

    pub fn leave(&mut self, client: &Option<Arc<str>>) {
        if let Some(entry) = self.clients.get_mut(client) {
            entry.present -= 1;
            if entry.present == 0 {
                self.clients.remove(client);
            }
        }
    }

    pub fn start(&mut self, client: &Option<Arc<str>>) {
        self.clients.entry(client.clone()).or_default().running += 1;
    }

    pub fn stop(&mut self, client: &Option<Arc<str>>) {
        if let Some(entry) = self.clients.get_mut(client) {
            entry.running -= 1;
        }
    }

    pub fn charge(&mut self, client: &Option<Arc<str>>, tokens: usize) {
        if let Some(entry) = self.clients.get_mut(client) {
            entry.served += tokens as u64;
        }
    }

    pub fn served(&self, client: &Option<Arc<str>>) -> u64 {
        self.clients.get(client).map_or(0, |client| client.served)
    }

    /// Whether `poor` runs less than its fair part of `places` places while `rich` runs more than that.
    pub fn is_unfair(&self, rich: &Option<Arc<str>>, poor: &Option<Arc<str>>, places: usize) -> bool {
        let running = |client| self.clients.get(client).map_or(0, |client: &Client| client.running);
        let clients = self.clients.len().max(1);
        running(poor) < (places / clients).max(1) && running(rich) > places.div_ceil(clients)
    }
}

/// Sequences that wait: by priority, then by what their client has had, then by arrival.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Vec<Sequence>,
}

impl Queue {
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub fn push(&mut self, sequence: Sequence) {
        self.waiting.push(sequence);
    }

    pub fn iter(&self) -> impl Iterator<Item = &Sequence> {
        self.waiting.iter()
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Sequence> {
        self.waiting.iter_mut()
    }

    /// One of them, by a number that need not be less than there are.
    pub fn any_mut(&mut self, number: usize) -> Option<&mut Sequence> {
        let index = number.checked_rem(self.waiting.len())?;
        self.waiting.get_mut(index)
    }

    pub fn get_mut(&mut self, seq: SeqId) -> Option<&mut Sequence> {
        self.waiting.iter_mut().find(|s| s.id == seq)
    }

    pub fn remove(&mut self, seq: SeqId) -> Option<Sequence> {
        let index = self.waiting.iter().position(|s| s.id == seq)?;
        Some(self.waiting.swap_remove(index))
    }

    /// Whose turn it is, among those that `ready` admits.
    pub fn next(&self, shares: &Shares, ready: impl Fn(&Sequence) -> bool) -> Option<SeqId> {
        let ready = self.waiting.iter().filter(|s| ready(s));
        ready.min_by_key(|s| (s.priority, shares.served(&s.client), s.id)).map(|s| s.id)
    }
}
