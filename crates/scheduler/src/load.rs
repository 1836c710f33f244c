//! How much an engine has to do: what those who share work out among engines go by.

use std::{
    collections::VecDeque,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use tokio::sync::watch;

use crate::handle::lock;

/// How far back [`Load::generation_throughput`] looks.
const WINDOW: Duration = Duration::from_secs(5);

/// Tokens are counted together that were generated within this time.
const GRAIN: Duration = Duration::from_millis(100);

/// An engine's load.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Load {
    /// Requests that are being computed.
    pub running: usize,
    /// Requests that wait for their turn.
    pub waiting: usize,
    /// Of the prompts that wait, tokens that were not in the prefix cache when it was last looked up for them, which is
    /// done again and again for a few of them at a time. Those that the engine has not seen yet count in full.
    pub waiting_uncached_tokens: usize,
    /// Tokens of prompts that have to be computed yet: of those that wait, the above, and what is left of those that run.
    pub prefill_pending_tokens: usize,
    /// Share of the KV cache that holds something, prefixes that nobody uses just now too; 1 is all. Like the next three,
    /// of the kind of layers that has least room left; layers with a window count only if there are no others.
    pub kv_usage: f64,
    /// Share of the KV cache that requests hold.
    pub active_kv_usage: f64,
    /// Tokens that there is room for in the blocks that hold something.
    pub used_tokens: usize,
    /// Tokens that there is room for.
    pub max_tokens: usize,
    /// Tokens generated a second, over the last seconds.
    pub generation_throughput: f64,
    /// Of the prompt tokens looked up in the prefix cache, the share that was found; `None` before the first, and if there is
    /// no prefix cache.
    pub cache_hit_rate: Option<f64>,
    /// Requests that may run at once.
    pub max_running: usize,
    /// As [`EngineHandle::silence`](crate::EngineHandle::silence).
    pub silence: Option<Duration>,
    /// Orders loads of one engine: it grows when the engine finds that something of the above has changed, which it sees of
    /// its own; throughput and silence change all the time.
    pub sample: u64,
}

/// Says when an engine's load has changed.
#[derive(Debug, Clone)]
pub struct LoadChanges(pub(crate) watch::Receiver<u64>);

impl LoadChanges {
    /// Waits for a change since the last call, or since this was made: all that happened meanwhile is one. False: the engine
    /// has stopped.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// What of the load the engine's thread and its handles both count.
#[derive(Debug)]
pub(crate) struct LoadBook {
    /// As of the engine's last look at its requests; without what changes by itself.
    figures: Mutex<Load>,
    /// Prompt tokens submitted that the engine hasn't seen.
    unseen_tokens: AtomicUsize,
    throughput: Mutex<Throughput>,
    changes: watch::Receiver<u64>,
}

impl LoadBook {
    /// The book, and what is sent the number of each [sample](Load::sample).
    pub fn new() -> (Self, watch::Sender<u64>) {
        let (sender, changes) = watch::channel(0);
        let book = Self {
            figures: Mutex::default(),
            unseen_tokens: AtomicUsize::new(0),
            throughput: Mutex::default(),
            changes,
        };
        (book, sender)
    }

    pub fn submitted(&self, prompt_tokens: usize) {
        self.unseen_tokens.fetch_add(prompt_tokens, SeqCst);
    }

    /// Undoes [`submitted`](Self::submitted): the engine has seen the request, or never will.
    pub fn seen(&self, prompt_tokens: usize) {
        self.unseen_tokens.fetch_sub(prompt_tokens, SeqCst);
    }

    pub fn generated(&self, tokens: usize, now: Instant) {
        lock(&self.throughput).add(tokens, now);
    }

    /// Takes in new figures; the number of the sample if they are other than before.
    pub fn update(&self, figures: Load) -> Option<u64> {
        let mut old = lock(&self.figures);
        let new = Load { sample: old.sample, ..figures };
        (*old != new).then(|| {
            *old = Load { sample: old.sample + 1, ..new };
            old.sample
        })
    }

    pub fn load(&self, waiting: usize, silence: Option<Duration>, now: Instant) -> Load {
        let unseen = self.unseen_tokens.load(SeqCst);
        let figures = *lock(&self.figures);
        Load {
            waiting,
            waiting_uncached_tokens: figures.waiting_uncached_tokens + unseen,
            prefill_pending_tokens: figures.prefill_pending_tokens + unseen,
            generation_throughput: lock(&self.throughput).per_second(now),
            silence,
            ..figures
        }
    }

    pub fn changes(&self) -> LoadChanges {
        let mut changes = self.changes.clone();
        changes.mark_unchanged();
        LoadChanges(changes)
    }
}

/// Tokens of the last seconds.
#[derive(Debug, Default)]
struct Throughput {
    /// When each grain of time began, and the tokens in it, oldest first.
    grains: VecDeque<(Instant, usize)>,
    /// When the first token ever came.
    began: Option<Instant>,
}

impl Throughput {
    fn add(&mut self, tokens: usize, now: Instant) {
        self.began.get_or_insert(now);
        match self.grains.back_mut() {
            Some((start, count)) if now.saturating_duration_since(*start) < GRAIN => *count += tokens,
            _ => self.grains.push_back((now, tokens)),
        }
        while self.grains.front().is_some_and(|(start, _)| now.saturating_duration_since(*start) > WINDOW) {
            self.grains.pop_front();
        }
    }

    /// Over the window, or the time since the first token if that is less; but no less than a grain of time.
    fn per_second(&self, now: Instant) -> f64 {
        let Some(began) = self.began else { return 0.0 };
        let recent = self.grains.iter().filter(|(start, _)| now.saturating_duration_since(*start) <= WINDOW);
        let tokens: usize = recent.map(|(_, count)| count).sum();
        tokens as f64 / now.saturating_duration_since(began).clamp(GRAIN, WINDOW).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds);
        let mut throughput = Throughput::default();
        assert_eq!(throughput.per_second(at(1.0)), 0.0, "nothing was generated yet");
        throughput.add(8, at(10.0));
        assert_eq!(throughput.per_second(at(10.0)), 80.0, "a moment is no time to divide by");
        for step in 1..=100 {
            throughput.add(8, at(10.0 + f64::from(step) * 0.05));
        }
        assert!(throughput.grains.len() <= 51, "{}", throughput.grains.len());
        let busy = throughput.per_second(at(15.0));
        assert!((busy - 160.0).abs() < 8.0, "{busy}");
        let half = throughput.per_second(at(17.5));
        assert!((half - 80.0).abs() < 8.0, "{half}");
        assert_eq!(throughput.per_second(at(21.0)), 0.0);
        throughput.add(5, at(60.0));
        assert_eq!(throughput.per_second(at(60.0)), 1.0, "what came before is long ago");
    }

    #[test]
    fn samples_are_numbered_by_change() {
        let (book, _sender) = LoadBook::new();
        let figures = Load { running: 1, max_running: 4, ..Load::default() };
        assert_eq!(book.update(figures), Some(1));
        assert_eq!(book.update(figures), None);
        assert_eq!(book.update(Load { running: 2, ..figures }), Some(2));
        book.submitted(10);
        let load = book.load(3, None, Instant::now());
        assert_eq!((load.running, load.waiting, load.waiting_uncached_tokens, load.sample), (2, 3, 10, 2));
        book.seen(10);
        assert_eq!(book.load(0, None, Instant::now()).prefill_pending_tokens, 0);
    }
}
