//! The requests under way, by the names their clients know them by.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use vllm_scheduler::RequestId;

use crate::residency::Lease;

/// All requests under way. Holds an entry for as long as its [`Registered`] lives.
#[derive(Debug, Default)]
pub struct Registry {
    /// Several requests may have one name: a client is free to send the same `x-request-id` again.
    by_name: Mutex<HashMap<String, Vec<Arc<Entry>>>>,
}

/// One HTTP request with all that the engine computes for it.
#[derive(Debug)]
pub struct Entry {
    /// The response's own id, `chatcmpl-…` or `cmpl-…`.
    pub id: String,
    /// The model that answers it.
    pub model: Lease,
    /// Its requests to the engine.
    pub engine_ids: Vec<RequestId>,
    cancelled: AtomicBool,
}

impl Entry {
    /// From now on its end is its canceller's doing.
    pub fn set_cancelled(&self) {
        self.cancelled.store(true, SeqCst);
    }
}

impl Registry {
    /// Enters a request under the response's id and the id of the HTTP request.
    pub fn register(
        self: &Arc<Self>,
        id: &str,
        request_id: &str,
        model: &Lease,
        engine_ids: Vec<RequestId>,
    ) -> Registered {
        let entry =
            Arc::new(Entry { id: id.to_owned(), model: model.clone(), engine_ids, cancelled: AtomicBool::new(false) });
        let names = [id.to_owned(), request_id.to_owned()];
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &names {
            by_name.entry(name.clone()).or_default().push(Arc::clone(&entry));
        }
        drop(by_name);
        Registered { registry: Arc::clone(self), names, entry }
    }

    /// The requests of that name.
    pub fn find(&self, name: &str) -> Vec<Arc<Entry>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned().unwrap_or_default()
    }
}

/// A place in the registry, given up when dropped.
#[derive(Debug)]
pub struct Registered {
    registry: Arc<Registry>,
    names: [String; 2],
    entry: Arc<Entry>,
}

impl Registered {
    /// Whether somebody asked for its end.
    pub fn is_cancelled(&self) -> bool {
        self.entry.cancelled.load(SeqCst)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut by_name = self.registry.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        for name in &self.names {
            if let Some(entries) = by_name.get_mut(name) {
                entries.retain(|entry| !Arc::ptr_eq(entry, &self.entry));
                if entries.is_empty() {
                    by_name.remove(name);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::tests::lease;

    #[tokio::test]
    async fn entries_are_found_by_either_name_and_leave_nothing_behind() {
        let (registry, model) = (Arc::new(Registry::default()), lease().await);
        let first = registry.register("chatcmpl-1", "mine", &model, vec!["chatcmpl-1-0".into()]);
        let second = registry.register("chatcmpl-2", "mine", &model, vec!["chatcmpl-2-0".into()]);
        assert_eq!((registry.find("mine").len(), registry.find("chatcmpl-2").len()), (2, 1));
        registry.find("chatcmpl-1")[0].set_cancelled();
        assert_eq!((first.is_cancelled(), second.is_cancelled()), (true, false));
        drop(first);
        assert_eq!(registry.find("mine")[0].id, "chatcmpl-2");
        drop(second);
        assert!(registry.by_name.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn one_name_for_both_is_no_trouble() {
        let (registry, model) = (Arc::new(Registry::default()), lease().await);
        drop(registry.register("same", "same", &model, Vec::new()));
        assert!(registry.find("same").is_empty());
    }
}
