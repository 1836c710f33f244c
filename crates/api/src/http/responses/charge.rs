//! What the store's memory is spent on.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use serde_json::Value;

use super::store::Item;

/// Bytes in the books, for as long as it lives.
#[derive(Debug)]
pub struct Charge {
    books: Arc<AtomicUsize>,
    bytes: usize,
}

impl Charge {
    /// Enters them.
    pub fn new(books: &Arc<AtomicUsize>, bytes: usize) -> Self {
        books.fetch_add(bytes, SeqCst);
        Self { books: Arc::clone(books), bytes }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.books.fetch_sub(self.bytes, SeqCst);
    }
}

/// What an entry costs beside its values.
const ENTRY_BYTES: usize = 1024;
/// What an item costs in the index.
const INDEX_BYTES: usize = 160;

/// What a response costs that is shown so.
pub fn weight_of_object(object: &Value) -> usize {
    ENTRY_BYTES + weight(object)
}

/// What items cost, with their places in the index.
pub fn weight_of_items(items: &[Item]) -> usize {
    items.iter().map(|item| INDEX_BYTES + weight(item)).sum()
}

/// Bytes of memory that a value takes, about.
fn weight(value: &Value) -> usize {
    /// A name in a map with its place in the index.
    const KEY: usize = 56;
    let inside = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(weight).sum(),
        Value::Object(map) => map.iter().map(|(name, value)| KEY + name.len() + weight(value)).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    };
    size_of::<Value>() + inside
}
