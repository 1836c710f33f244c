//! What the thread of an engine does with a transducer: chunks of all requests heard together, and put together again.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use vllm_platform::{HeardToken, Mel, Transducer};
use vllm_speech::{transducer::take_sentences, vad::SpeechWindow};

use super::{
    TranscriptEvent, TranscriptionConfig,
    join::join,
    queue::{Account, Entry, Queue},
    run::{Hearing, done, failed_step},
    sound::{Part, Prepared},
};
use crate::background::{Caller, Room};

/// A chunk costs as much as so many tokens for each of its frames: it is only their proportions that count.
const FRAMES_OF_A_TOKEN: usize = 60;

/// A transducer and who wants something written down.
pub(super) struct Transducing {
    model: Box<dyn Transducer>,
    max_encode: usize,
    queue: Queue<Job>,
}

/// A request.
struct Job {
    account: Account,
    words: bool,
    duration: f64,
    /// Chunks that were not heard yet, in order of time.
    chunks: VecDeque<Chunk>,
    /// What was heard and is no sentence yet; times are the sound's.
    heard: Vec<HeardToken>,
    /// Where the chunk before the next one ends.
    end: Duration,
    segments: usize,
    windows: usize,
    tokens: usize,
}

/// A part of a sound, and where it is.
struct Chunk {
    mel: Mel,
    place: SpeechWindow,
}

impl Chunk {
    fn begin(&self) -> Duration {
        seconds(self.place.start(0.0))
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}

impl Entry for Job {
    fn account(&self) -> &Account {
        &self.account
    }

    fn account_mut(&mut self) -> &mut Account {
        &mut self.account
    }

    fn waiting(&self) -> usize {
        self.chunks.len()
    }
}

impl Job {
    fn new(prepared: Prepared, account: Account) -> Self {
        let Prepared { parts, options, duration, .. } = prepared;
        let chunk = |Part { mel, place }| {
            let place = place.unwrap_or(SpeechWindow { stretches: Vec::new() });
            Chunk { mel, place }
        };
        Self {
            account,
            words: options.word_timestamps,
            duration,
            chunks: parts.into_iter().map(chunk).collect(),
            heard: Vec::new(),
            end: Duration::ZERO,
            segments: 0,
            windows: 0,
            tokens: 0,
        }
    }

    /// Takes what was heard in the next chunk, and tells the sentences that are complete.
    fn take(&mut self, tokens: Vec<HeardToken>, pieces: &[String]) {
        let Some(chunk) = self.chunks.pop_front() else { return };
        self.windows += 1;
        self.tokens += tokens.len();
        let original =
            |token: HeardToken| HeardToken { start: seconds(chunk.place.start(token.start.as_secs_f64())), ..token };
        let next = tokens.into_iter().map(original).collect();
        join(&mut self.heard, next, chunk.begin(), self.end);
        self.end = seconds(chunk.place.end(f64::INFINITY));
        // What the next chunk hears again may still change.
        let known = self.chunks.front().map(Chunk::begin);
        for segment in take_sentences(&mut self.heard, pieces, known, self.words, self.segments) {
            self.segments += 1;
            self.account.caller.tell(TranscriptEvent::Segment(segment));
        }
    }
}

impl Transducing {
    pub fn new(model: Box<dyn Transducer>, config: &TranscriptionConfig) -> Self {
        Self { model, max_encode: config.max_encode, queue: Queue::new() }
    }

    pub fn model(&self) -> &dyn Transducer {
        &*self.model
    }

    pub fn admit(&mut self, request: Prepared, caller: Caller<TranscriptEvent>) {
        self.queue.push(caller, |account| Job::new(request, account));
    }

    pub fn is_idle(&self) -> bool {
        self.queue.jobs.is_empty()
    }

    pub fn remove(&mut self, which: &dyn Fn(&Caller<TranscriptEvent>) -> bool) -> Vec<Caller<TranscriptEvent>> {
        let jobs = self.queue.take(|job| which(&job.account.caller));
        jobs.into_iter().map(|job| job.account.caller).collect()
    }

    /// Hears the chunks that are next.
    pub fn turn(&mut self, room: &mut Room<Hearing>) {
        self.hear(room);
        let ended = self.queue.take(|job| job.chunks.is_empty());
        for job in ended {
            done(job.account.caller, job.duration, job.tokens, job.windows, room);
        }
    }

    fn hear(&mut self, room: &mut Room<Hearing>) {
        let longest = self.queue.jobs.iter().filter_map(|job| job.chunks.front()).map(|chunk| chunk.mel.frames).max();
        let cost = longest.unwrap_or(0) / FRAMES_OF_A_TOKEN + 1;
        let mut batch = self.queue.next(self.max_encode, cost);
        batch.sort_unstable();
        // Chunks of one request are heard in order.
        let nth = |at: usize| batch[..at].iter().filter(|&&job| job == batch[at]).count();
        let sounds: Vec<&Mel> = (0..batch.len()).map(|at| &self.queue.jobs[batch[at]].chunks[nth(at)].mel).collect();
        if sounds.is_empty() {
            return;
        }
        let start = Instant::now();
        let model = &mut self.model;
        let result = room.call(|pause| model.transcribe(&sounds, pause)).and_then(|heard| match heard.len() {
            found if found == sounds.len() => Ok(heard),
            found => Err(failed_step(format!("the model gave {found} texts for {} sounds", sounds.len()))),
        });
        for &job in &batch {
            room.begin(&mut self.queue.jobs[job].account.caller, start);
        }
        room.count(|stats| stats.encode_time += start.elapsed());
        match result {
            Ok(heard) => {
                room.count(|stats| {
                    stats.windows += batch.len() as u64;
                    stats.tokens += heard.iter().map(|tokens| tokens.len() as u64).sum::<u64>();
                });
                for (&job, tokens) in batch.iter().zip(heard) {
                    self.queue.jobs[job].take(tokens, self.model.pieces());
                }
            }
            Err(failure) => {
                let ids: Vec<u64> = batch.iter().map(|&job| self.queue.jobs[job].account.id).collect();
                for job in self.queue.take(|job| ids.contains(&job.account.id)) {
                    room.fail(job.account.caller, failure.clone());
                }
            }
        }
    }
}
