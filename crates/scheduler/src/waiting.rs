//! How many requests wait, of all clients and of each.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use crate::{SubmitError, handle::lock};

/// Places in a queue. Shared by those who submit and the thread that computes.
#[derive(Debug)]
pub(crate) struct Waiting {
    max: usize,
    max_per_client: usize,
    /// Requests submitted and not begun yet, those still on their way to the thread too.
    all: AtomicUsize,
    /// Of these, those of each client that has some.
    by_client: Mutex<HashMap<Arc<str>, usize>>,
}

impl Waiting {
    pub fn new(max: usize, max_per_client: usize) -> Self {
        Self { max, max_per_client, all: AtomicUsize::new(0), by_client: Mutex::default() }
    }

    pub fn len(&self) -> usize {
        self.all.load(SeqCst)
    }

    /// Takes a place for a request of `client`.
    pub fn join(&self, client: Option<&Arc<str>>) -> Result<(), SubmitError> {
        if self.all.fetch_add(1, SeqCst) >= self.max {
            self.all.fetch_sub(1, SeqCst);
            return Err(SubmitError::Busy { limit: self.max });
        }
        let Some(client) = client else { return Ok(()) };
        let mut clients = lock(&self.by_client);
        let waiting = clients.entry(Arc::clone(client)).or_default();
        if *waiting >= self.max_per_client {
            self.all.fetch_sub(1, SeqCst);
            return Err(SubmitError::ClientBusy { limit: self.max_per_client });
        }
        *waiting += 1;
        Ok(())
    }

    /// Gives a place back.
    pub fn leave(&self, client: Option<&Arc<str>>) {
        self.all.fetch_sub(1, SeqCst);
        let Some(client) = client else { return };
        let mut clients = lock(&self.by_client);
        if let Some(waiting) = clients.get_mut(client) {
            *waiting -= 1;
            if *waiting == 0 {
                clients.remove(client);
            }
        }
    }
}
