//! What the thread of an engine that speaks does: one utterance at a time.

use std::time::{Duration, Instant};

use vllm_platform::{MemoryInfo, Synthesizer, SynthesizerInfo, Utterance};

use super::{SpeakRequest, SpeechStats, queue::Queue};
use crate::{
    Failure, FailureKind, WorkStats,
    background::{Caller, Room, Service},
};

/// A model and who wants something said.
pub(super) struct Speaking {
    model: Box<dyn Synthesizer>,
    queue: Queue,
}

impl Speaking {
    pub fn new(model: Box<dyn Synthesizer>) -> Self {
        Self { model, queue: Queue::default() }
    }
}

impl Service for Speaking {
    type Request = SpeakRequest;
    type Event = Vec<f32>;
    type Info = SynthesizerInfo;
    type Stats = SpeechStats;

    fn admit(&mut self, request: SpeakRequest, caller: Caller<Vec<f32>>) {
        self.queue.push(request, caller);
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    fn remove(&mut self, which: &dyn Fn(&Caller<Vec<f32>>) -> bool) -> Vec<Caller<Vec<f32>>> {
        self.queue.remove(which)
    }

    fn turn(&mut self, room: &mut Room<Self>) {
        let Some(mut job) = self.queue.take_next() else { return };
        room.begin(&mut job.caller, Instant::now());
        let spoken = job.utterance();
        let utterance = Utterance {
            symbols: &spoken.symbols,
            style: &spoken.style,
            speed: job.request.speed,
            seed: job.request.seed,
        };
        let model = &mut self.model;
        let result = room.call(|pause| model.synthesize(&utterance, pause)).and_then(finite);
        match result {
            Ok(mut samples) => {
                let (symbols, first) = (spoken.symbols.len() as u64, job.next == 0);
                room.count(|stats| {
                    stats.utterances += 1;
                    stats.symbols += symbols;
                    stats.samples += samples.len() as u64;
                    if first {
                        stats.first_chunk.record(job.caller.submitted.elapsed().as_secs_f64());
                    }
                });
                let silence = silence(spoken.pause, self.model.info().sample_rate);
                samples.resize(samples.len() + silence, 0.0);
                job.caller.tell(samples);
                if let Some(caller) = self.queue.put_back(job) {
                    room.finish(caller, None);
                }
            }
            Err(failure) => {
                let caller = self.queue.end(job);
                room.fail(caller, failure);
            }
        }
    }

    fn memory(&self) -> vllm_platform::Result<MemoryInfo> {
        self.model.memory()
    }

    fn work(stats: &mut SpeechStats) -> &mut WorkStats {
        &mut stats.work
    }
}

/// Samples of a silence.
fn silence(pause: Duration, sample_rate: u32) -> usize {
    (pause.as_secs_f64() * f64::from(sample_rate)).round() as usize
}

/// Numbers that are none would be heard as bangs, or break whoever encodes them.
fn finite(samples: Vec<f32>) -> Result<Vec<f32>, Failure> {
    match samples.iter().position(|sample| !sample.is_finite()) {
        None => Ok(samples),
        Some(place) => {
            let message = format!("the model gave a sound whose sample {place} is not a finite number");
            Err(Failure { kind: FailureKind::Step, message })
        }
    }
}
