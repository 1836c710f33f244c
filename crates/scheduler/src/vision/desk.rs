//! Where pictures are asked for: what is in memory, what is under way, and what is to be done.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};

use vllm_cache::{FeatureCache, SsdStats};
use vllm_platform::{ContentHash, Features};

use super::{
    VisionStats,
    job::{Answer, Job, Picture},
};
use crate::{FeatureOrigin, handle::lock};

/// Shared by all who ask and the engine's thread. The lock is held for moments only.
#[derive(Debug)]
pub(super) struct Desk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    cache: FeatureCache,
    /// Those under way.
    jobs: HashMap<ContentHash, Weak<Job>>,
    /// Of these, those that the tier below was not asked about yet, in order of arrival.
    new: VecDeque<(ContentHash, Weak<Job>)>,
    /// Those that are nowhere, in order of arrival.
    missing: VecDeque<(ContentHash, Weak<Job>)>,
    /// Those being read.
    reading: HashMap<ContentHash, Weak<Job>>,
    /// Set: why nothing new is taken.
    closed: Option<String>,
    stats: VisionStats,
}

impl Desk {
    pub fn new(cache_bytes: usize) -> Self {
        let state = State {
            cache: FeatureCache::new(cache_bytes),
            jobs: HashMap::new(),
            new: VecDeque::new(),
            missing: VecDeque::new(),
            reading: HashMap::new(),
            closed: None,
            stats: VisionStats::default(),
        };
        Self { state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Somebody wants a picture's features.
    pub fn ask(&self, picture: &Picture) -> Answer {
        let mut state = self.lock();
        if let Some(features) = state.cache.get(picture.key) {
            state.stats.hits += 1;
            return Answer::Found(features);
        }
        if let Some(job) = state.jobs.get(&picture.key).and_then(Weak::upgrade) {
            state.stats.joined += 1;
            return Answer::Wait { job, joined: true };
        }
        if let Some(why) = &state.closed {
            return Answer::Refused(why.clone());
        }
        let job = Arc::new(Job::new(picture.clone()));
        let entry = (picture.key, Arc::downgrade(&job));
        state.jobs.insert(entry.0, Weak::clone(&entry.1));
        state.new.push_back(entry);
        Answer::Wait { job, joined: false }
    }

    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_idle(&self) -> bool {
        let state = self.lock();
        state.new.is_empty() && state.missing.is_empty() && state.reading.is_empty()
    }

    /// Whether there is something to do.
    pub fn has_work(&self) -> bool {
        let state = self.lock();
        !state.new.is_empty() || !state.missing.is_empty()
    }

    /// The next picture to look up in the tier below, and the vectors it must have.
    pub fn next_new(&self) -> Option<(ContentHash, usize)> {
        let mut state = self.lock();
        while let Some((key, job)) = state.new.pop_front() {
            if let Some(tokens) = job.upgrade().map(|job| job.picture.tokens) {
                state.reading.insert(key, job);
                return Some((key, tokens));
            }
            state.skip(key);
        }
        None
    }

    /// The tier below does not have it.
    pub fn not_stored(&self, key: ContentHash) {
        let mut state = self.lock();
        if let Some(job) = state.reading.remove(&key) {
            state.missing.push_back((key, job));
        }
    }

    /// The job of a picture that is being read.
    pub fn read(&self, key: ContentHash) -> Option<Arc<Job>> {
        let mut state = self.lock();
        let job = state.reading.get(&key)?.upgrade();
        if job.is_none() {
            state.reading.remove(&key);
            state.skip(key);
        }
        job
    }

    /// The next picture to encode. It counts as under way until [`end`](Self::end).
    pub fn next_missing(&self) -> Option<Arc<Job>> {
        let mut state = self.lock();
        while let Some((key, job)) = state.missing.pop_front() {
            if let Some(job) = job.upgrade() {
                state.stats.misses += 1;
                state.stats.running = true;
                return Some(job);
            }
            state.skip(key);
        }
        None
    }

    /// Notes what came of a picture and gives it to all who wait for it.
    pub fn end(&self, job: &Job, origin: FeatureOrigin, result: Result<Arc<Features>, String>) {
        let mut state = self.lock();
        let key = job.picture.key;
        state.jobs.remove(&key);
        state.reading.remove(&key);
        match &result {
            Ok(features) => {
                state.cache.insert(key, features);
                state.stats.ssd_hits += u64::from(origin == FeatureOrigin::Ssd);
            }
            Err(_) => state.stats.failed += 1,
        }
        drop(state);
        job.end(origin, result);
    }

    /// Takes nothing new any more.
    pub fn close(&self, why: &str) {
        self.lock().closed.get_or_insert_with(|| why.to_owned());
    }

    /// Takes all that is under way off the desk.
    pub fn take_all(&self) -> Vec<Arc<Job>> {
        let mut state = self.lock();
        state.new.clear();
        state.missing.clear();
        state.reading.clear();
        state.jobs.drain().filter_map(|(_, job)| job.upgrade()).collect()
    }

    /// Forgets what is in memory; says how many pictures' features it were.
    pub fn clear(&self) -> usize {
        self.lock().cache.clear()
    }

    pub fn count(&self, change: impl FnOnce(&mut VisionStats)) {
        change(&mut self.lock().stats);
    }

    /// An encoder's run has ended, after so long.
    pub fn ran(&self, busy: Duration) {
        self.count(|stats| {
            stats.running = false;
            stats.busy += busy;
        });
    }

    pub fn set_ssd(&self, ssd: Option<SsdStats>) {
        self.count(|stats| stats.ssd = ssd);
    }

    pub fn stats(&self) -> VisionStats {
        let state = self.lock();
        let alive = |(_, job): &&(ContentHash, Weak<Job>)| job.strong_count() > 0;
        let cache = state.cache.stats();
        VisionStats {
            waiting: state.new.iter().chain(&state.missing).filter(alive).count() + state.reading.len(),
            entries: cache.entries,
            bytes: cache.bytes,
            capacity: cache.capacity,
            evictions: cache.evictions,
            ..state.stats
        }
    }
}

impl State {
    /// Nobody wants it any more, unless somebody came after those who are gone.
    fn skip(&mut self, key: ContentHash) {
        self.stats.skipped += 1;
        if self.jobs.get(&key).is_some_and(|job| job.strong_count() == 0) {
            self.jobs.remove(&key);
        }
    }
}
