//! Features of pictures in memory.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Weak},
};

use vllm_platform::{ContentHash, Features};

/// What a [`FeatureCache`] holds and did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FeatureCacheStats {
    /// Pictures whose features it holds.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Most bytes it may hold.
    pub capacity: usize,
    /// Times that features were found.
    pub hits: u64,
    /// Times that they were not.
    pub misses: u64,
    /// Pictures whose features were let go to make room.
    pub evictions: u64,
}

/// The features used last, as many as its bytes allow.
///
/// What is larger than all of it is not kept. What somebody else still holds is found as long as they do, kept or not:
/// it costs nothing.
///
/// ```
/// use std::sync::Arc;
///
/// use vllm_cache::FeatureCache;
/// use vllm_platform::{ContentHash, Features};
///
/// let mut cache = FeatureCache::new(100);
/// let (key, other) = (ContentHash([1; 16]), ContentHash([2; 16]));
/// cache.insert(key, &Arc::new(Features::new(vec![0.0; 20], 1, 4)));
/// assert!(cache.get(key).is_some());
/// cache.insert(other, &Arc::new(Features::new(vec![0.0; 20], 1, 4)));
/// assert!(cache.get(key).is_none(), "there is room for one");
/// ```
#[derive(Debug)]
pub struct FeatureCache {
    capacity: usize,
    bytes: usize,
    entries: HashMap<ContentHash, Entry>,
    /// Keys by last use.
    by_use: BTreeMap<u64, ContentHash>,
    /// Not kept, but perhaps held by somebody.
    lent: HashMap<ContentHash, Weak<Features>>,
    clock: u64,
    hits: u64,
    misses: u64,
    evictions: u64,
}

#[derive(Debug)]
struct Entry {
    features: Arc<Features>,
    used: u64,
}

impl FeatureCache {
    /// A cache of at most `capacity` bytes.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity,
            bytes: 0,
            entries: HashMap::new(),
            by_use: BTreeMap::new(),
            lent: HashMap::new(),
            clock: 0,
            hits: 0,
            misses: 0,
            evictions: 0,
        }
    }

    /// Features, which count as used now.
    pub fn get(&mut self, key: ContentHash) -> Option<Arc<Features>> {
        let found = self.find(key);
        *(if found.is_some() { &mut self.hits } else { &mut self.misses }) += 1;
        found
    }

    fn find(&mut self, key: ContentHash) -> Option<Arc<Features>> {
        let Some(entry) = self.entries.get_mut(&key) else { return self.lent.get(&key)?.upgrade() };
        self.by_use.remove(&entry.used);
        self.clock += 1;
        entry.used = self.clock;
        self.by_use.insert(entry.used, key);
        Some(Arc::clone(&entry.features))
    }

    /// Keeps features, and lets those go that were not used for the longest time.
    pub fn insert(&mut self, key: ContentHash, features: &Arc<Features>) {
        self.remove(key);
        let bytes = features.bytes();
        if bytes > self.capacity {
            self.lend(key, features);
            return;
        }
        while self.bytes + bytes > self.capacity {
            let Some((_, &oldest)) = self.by_use.first_key_value() else { break };
            if let Some(features) = self.remove(oldest) {
                self.evictions += 1;
                self.lend(oldest, &features);
            }
        }
        self.clock += 1;
        self.by_use.insert(self.clock, key);
        self.bytes += bytes;
        self.entries.insert(key, Entry { features: Arc::clone(features), used: self.clock });
    }

    fn remove(&mut self, key: ContentHash) -> Option<Arc<Features>> {
        self.lent.remove(&key);
        let entry = self.entries.remove(&key)?;
        self.by_use.remove(&entry.used);
        self.bytes -= entry.features.bytes();
        Some(entry.features)
    }

    fn lend(&mut self, key: ContentHash, features: &Arc<Features>) {
        // One reference here is the caller's: whether there are others is seen next time.
        self.lent.retain(|_, lent| lent.strong_count() > 0);
        self.lent.insert(key, Arc::downgrade(features));
    }

    /// Lets all of them go; says how many it were.
    pub fn clear(&mut self) -> usize {
        let entries = self.entries.len();
        self.entries.clear();
        self.by_use.clear();
        self.lent.clear();
        self.bytes = 0;
        entries
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> FeatureCacheStats {
        FeatureCacheStats {
            entries: self.entries.len(),
            bytes: self.bytes,
            capacity: self.capacity,
            hits: self.hits,
            misses: self.misses,
            evictions: self.evictions,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> ContentHash {
        ContentHash([number; 16])
    }

    fn features(numbers: usize) -> Arc<Features> {
        Arc::new(Features::new(vec![1.0; numbers], 1, 1))
    }

    #[test]
    fn the_least_recently_used_goes_first() {
        let mut cache = FeatureCache::new(40);
        for number in 0..3 {
            cache.insert(key(number), &features(3));
        }
        assert!(cache.get(key(0)).is_some());
        cache.insert(key(3), &features(3));
        let there: Vec<bool> = (0..4).map(|number| cache.get(key(number)).is_some()).collect();
        assert_eq!(there, [true, false, true, true]);
        let stats = cache.stats();
        assert_eq!((stats.entries, stats.bytes, stats.hits, stats.misses, stats.evictions), (3, 36, 4, 1, 1));
        cache.insert(key(4), &features(9));
        assert_eq!((cache.stats().entries, cache.stats().bytes), (1, 36), "all make room for a large one");
        assert_eq!((cache.clear(), cache.stats().bytes, cache.get(key(4))), (1, 0, None));
    }

    #[test]
    fn what_comes_again_takes_the_place_of_the_old() {
        let mut cache = FeatureCache::new(40);
        for numbers in [10, 4, 8] {
            cache.insert(key(0), &features(numbers));
            assert_eq!((cache.stats().entries, cache.stats().bytes), (1, 4 * numbers));
        }
        assert_eq!(cache.stats().evictions, 0);
    }

    #[test]
    fn what_is_too_large_is_found_while_somebody_holds_it() {
        let mut cache = FeatureCache::new(8);
        let (large, small) = (features(3), features(2));
        cache.insert(key(0), &large);
        cache.insert(key(1), &small);
        cache.insert(key(2), &features(1));
        assert_eq!(cache.stats().bytes, 4, "the large one took nothing, the small one made room");
        assert!(cache.get(key(0)).is_some() && cache.get(key(1)).is_some() && cache.get(key(2)).is_some());
        drop((large, small));
        assert!(cache.get(key(0)).is_none() && cache.get(key(1)).is_none() && cache.get(key(2)).is_some());
    }
}
