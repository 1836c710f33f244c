//! What the thread of an engine does with a listener: windows encoded together, and all texts a step further.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use vllm_platform::{Listener, ListenerInfo, Mel, TextId, TextRow, WindowId};
use vllm_speech::whisper::Vocabulary;

use super::{
    TranscriptEvent, TranscriptionConfig,
    job::Job,
    queue::Queue,
    run::{Hearing, done, failed_step},
    sound::Prepared,
    strand::Feeding,
};
use crate::{
    Failure,
    background::{Caller, Room},
};

/// About so many steps of a text take as long as encoding a window.
const ENCODE_COST: usize = 50;

/// A listener and who wants something written down.
pub(super) struct Listening {
    model: Box<dyn Listener>,
    vocabulary: Arc<Vocabulary>,
    info: ListenerInfo,
    bands: usize,
    frames_per_second: f64,
    max_windows: usize,
    max_encode: usize,
    queue: Queue<Job>,
}

/// A job's strand, by their places.
type Place = (usize, usize);

impl Listening {
    pub fn new(model: Box<dyn Listener>, vocabulary: Arc<Vocabulary>, config: &TranscriptionConfig) -> Self {
        let (mel, info) = (model.info().mel.clone(), model.listener_info().clone());
        Self {
            vocabulary,
            info,
            bands: mel.bands,
            frames_per_second: f64::from(mel.sample_rate) / mel.hop as f64,
            max_windows: config.max_windows,
            max_encode: config.max_encode,
            queue: Queue::new(),
            model,
        }
    }

    pub fn model(&self) -> &dyn Listener {
        &*self.model
    }

    pub fn admit(&mut self, request: Prepared, caller: Caller<TranscriptEvent>) {
        let (vocabulary, info) = (&self.vocabulary, &self.info);
        self.queue.push(caller, |account| Job::new(request, account, vocabulary, info));
    }

    pub fn is_idle(&self) -> bool {
        self.queue.jobs.is_empty()
    }

    pub fn remove(&mut self, which: &dyn Fn(&Caller<TranscriptEvent>) -> bool) -> Vec<Caller<TranscriptEvent>> {
        let jobs = self.queue.take(|job| which(&job.account.caller));
        jobs.iter().for_each(|job| self.forget(job.held()));
        jobs.into_iter().map(|job| job.account.caller).collect()
    }

    /// Encodes what there is room for, then goes on with every text that is under way, by one token each.
    pub fn turn(&mut self, room: &mut Room<Hearing>) {
        self.encode(room);
        self.align(room);
        self.step(room);
        self.tell(room);
    }

    fn encode(&mut self, room: &mut Room<Hearing>) {
        let free = self.max_windows.saturating_sub(self.held()).min(self.max_encode);
        let mut nth = vec![0; self.queue.jobs.len()];
        let mut places: Vec<Place> = Vec::new();
        for job in self.queue.next(free, ENCODE_COST) {
            places.extend(self.queue.jobs[job].waiting_strand(nth[job]).map(|strand| (job, strand)));
            nth[job] += 1;
        }
        let (bands, frames) = (self.bands, self.info.window_frames);
        let window = |&(job, strand): &Place| self.queue.jobs[job].strands[strand].window(bands, frames);
        let windows: Vec<Mel> = places.iter().filter_map(window).collect();
        if windows.is_empty() {
            return;
        }
        let start = Instant::now();
        for &(job, _) in &places {
            room.begin(&mut self.queue.jobs[job].account.caller, start);
        }
        let windows: Vec<&Mel> = windows.iter().collect();
        let model = &mut self.model;
        let result = room.call(|pause| model.encode(&windows, pause));
        room.count(|stats| stats.encode_time += start.elapsed());
        match result {
            Ok(ids) if ids.len() != windows.len() => {
                let why = format!("the model gave {} windows for {}", ids.len(), windows.len());
                self.forget(ids.into_iter());
                self.fail(&places, &failed_step(why), room);
            }
            Ok(ids) => {
                for (&(job, strand), id) in places.iter().zip(ids) {
                    let job = &mut self.queue.jobs[job];
                    job.windows += 1;
                    job.strands[strand].encoded(id);
                }
                room.count(|stats| stats.windows += places.len() as u64);
            }
            Err(failure) => self.fail(&places, &failure, room),
        }
    }

    /// Asks the model where the words of complete texts are.
    fn align(&mut self, room: &mut Room<Hearing>) {
        let mut failed = Vec::new();
        for (at, job) in self.queue.jobs.iter_mut().enumerate() {
            for strand in &mut job.strands {
                let Some((window, tokens)) = strand.alignment() else { continue };
                let model = &mut self.model;
                let wanted = tokens.len() * self.info.encoded_frames * self.info.alignment_heads.len();
                let result = room.call(|_| model.alignment(window, tokens)).and_then(|found| match found.len() {
                    len if len == wanted => Ok(found),
                    len => Err(failed_step(format!("the model gave {len} weights for {wanted}"))),
                });
                match result {
                    Ok(found) => strand.aligned(found),
                    Err(failure) => {
                        failed.push(((at, 0), failure));
                        break;
                    }
                }
            }
        }
        // From the last on, so that the places of the others stay theirs.
        for (place, failure) in failed.into_iter().rev() {
            self.fail(&[place], &failure, room);
        }
    }

    fn step(&mut self, room: &mut Room<Hearing>) {
        let mut places: Vec<Place> = Vec::new();
        let mut feedings: Vec<Feeding> = Vec::new();
        for (at, job) in self.queue.jobs.iter().enumerate() {
            for (strand, feeding) in job.strands.iter().map(|strand| strand.feeding(&self.vocabulary)).enumerate() {
                if let Some(feeding) = feeding {
                    places.push((at, strand));
                    feedings.push(feeding);
                }
            }
        }
        if feedings.is_empty() {
            return;
        }
        let start = Instant::now();
        let model = &mut self.model;
        let result = room.call(|_| feed(&mut **model, &feedings));
        room.count(|stats| {
            stats.decode_steps += 1;
            stats.decode_rows += feedings.len() as u64;
            stats.decode_time += start.elapsed();
        });
        let result = result.and_then(|(texts, logits)| {
            let size = self.vocabulary.size();
            let fits = |(feeding, logits): (&Feeding, &Vec<f32>)| logits.len() == feeding.logits * size;
            if logits.len() == feedings.len() && feedings.iter().zip(&logits).all(fits) {
                Ok((texts, logits))
            } else {
                Err(failed_step("the model gave logits of another shape than it was asked for".into()))
            }
        });
        let (texts, logits) = match result {
            Ok(found) => found,
            Err(failure) => return self.fail(&places, &failure, room),
        };
        for (index, (text, mut logits)) in texts.into_iter().zip(logits).enumerate() {
            let (job, strand) = places[index];
            self.queue.charge(job, feedings[index].tokens.len());
            let job = &mut self.queue.jobs[job];
            job.strands[strand].fed(text);
            let outcome = job.strands[strand].take(&mut logits, &self.vocabulary);
            job.tokens += 1;
            room.count(|stats| {
                stats.tokens += 1;
                stats.fallbacks += outcome.fallbacks as u64;
            });
            if let Some(language) = outcome.language {
                job.heard_language(language, &self.vocabulary, &self.info);
            }
            self.forget(outcome.forget.into_iter());
        }
    }

    /// Tells what was heard, and ends the requests that have all of it.
    fn tell(&mut self, room: &mut Room<Hearing>) {
        for job in self.queue.take(|job| job.refused.is_some()) {
            self.forget(job.held());
            room.fail(job.account.caller, failed_step(job.refused.unwrap_or_default()));
        }
        let mut ended = Vec::new();
        for job in &mut self.queue.jobs {
            if job.tell(self.frames_per_second) {
                ended.push(job.account.id);
            }
        }
        self.note_held(room);
        for job in self.queue.take(|job| ended.contains(&job.account.id)) {
            done(job.account.caller, job.duration, job.tokens, job.windows, room);
        }
    }

    /// Fails the jobs of a call that failed.
    fn fail(&mut self, places: &[Place], failure: &Failure, room: &mut Room<Hearing>) {
        let ids: Vec<u64> = places.iter().map(|&(job, _)| self.queue.jobs[job].account.id).collect();
        let jobs = self.queue.take(|job| ids.contains(&job.account.id));
        jobs.iter().for_each(|job| self.forget(job.held()));
        self.note_held(room);
        jobs.into_iter().for_each(|job| room.fail(job.account.caller, failure.clone()));
    }

    fn held(&self) -> usize {
        self.queue.jobs.iter().map(|job| job.held().count()).sum()
    }

    fn note_held(&self, room: &Room<Hearing>) {
        let held = self.held();
        room.count(|stats| stats.windows_held = held);
    }

    /// Gives windows back, with their texts.
    fn forget(&mut self, windows: impl Iterator<Item = WindowId>) {
        for window in windows {
            let forgotten = catch_unwind(AssertUnwindSafe(|| self.model.forget(window)));
            if forgotten.is_err() {
                tracing::error!(window = window.0, "the model panicked when it was to forget a window");
            }
        }
    }
}

/// Feeds all texts, of which some begin and others end: the text of each, and its logits.
fn feed(model: &mut dyn Listener, feedings: &[Feeding]) -> vllm_platform::Result<(Vec<TextId>, Vec<Vec<f32>>)> {
    let mut texts = Vec::with_capacity(feedings.len());
    for feeding in feedings {
        texts.push(match feeding.text {
            Some(text) if !feeding.begins => text,
            old => {
                old.into_iter().for_each(|text| model.end(text));
                model.begin(feeding.window)?
            }
        });
    }
    let row = |(feeding, &text): (&'_ Feeding, &TextId)| (feeding.logits, text);
    let wanted: Vec<_> = feedings.iter().zip(&texts).map(row).collect();
    let rows =
        feedings.iter().zip(wanted).map(|(feeding, (logits, text))| TextRow { text, tokens: &feeding.tokens, logits });
    let logits = model.step(&rows.collect::<Vec<_>>())?;
    Ok((texts, logits))
}
