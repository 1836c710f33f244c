//! The engine's thread: commands in, steps, events out.

mod ends;
mod figures;
mod flush;

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, watch};
use vllm_platform::{Error, ModelRunner, SeqId};

use self::flush::Flush;
use super::{client::Client, panic_text, tier::Tier};
use crate::{
    EngineConfig, EngineHandle, EngineState, FailureKind, Request, StartError, Stats, Wake,
    handle::{Command, Shared, lock},
    kv_events::{Journal, Recorder},
    load::LoadBook,
    planner::{Limits, MediaNews, Outcome, Planner, Scheduled},
    sequence::Sequence,
    turn,
    waiting::Waiting,
};

/// Steps that may panic in a row before the engine gives up.
const MAX_PANICS: u32 = 2;

/// How long the engine waits for the SSD or an encoder before it looks at its clients again.
const PATIENCE: Duration = Duration::from_millis(20);

/// What the loop does next.
#[derive(PartialEq, Eq)]
enum Pace {
    /// There is something to compute or to copy.
    Busy,
    /// All who are there wait for the SSD or for features.
    Waiting,
    /// Nobody is there.
    Idle,
}

pub(super) struct EngineLoop {
    runner: Box<dyn ModelRunner>,
    planner: Planner,
    tier: Option<Tier>,
    clients: HashMap<SeqId, Client>,
    commands: Receiver<Command>,
    /// Called by others when there is news for this thread.
    wake: Wake,
    shared: Arc<Shared>,
    state: watch::Sender<EngineState>,
    stats: Stats,
    next_seq: u64,
    panics_in_a_row: u32,
    memory_read: Option<Instant>,
    profiled: Profiled,
    /// Told when the load has changed.
    load_changes: watch::Sender<u64>,
    recorder: Recorder,
    flushes: Vec<Flush>,
}

/// What was spent since somebody last asked for a profile.
struct Profiled {
    since: Instant,
    steps: u64,
    in_steps: Duration,
}

impl Profiled {
    fn new() -> Self {
        Self { since: Instant::now(), steps: 0, in_steps: Duration::ZERO }
    }
}

impl EngineLoop {
    pub fn new(runner: Box<dyn ModelRunner>, config: EngineConfig) -> Result<(Self, EngineHandle), StartError> {
        let info = runner.info().clone();
        let limits = Limits {
            max_num_seqs: config.max_num_seqs,
            max_num_batched_tokens: config.max_num_batched_tokens,
            prefill_step_size: config.prefill_step_size.unwrap_or(usize::MAX),
        };
        let mut planner = Planner::new(limits, &info.kv_cache, config.prefix_cache);
        let (sender, commands) = channel();
        let sender = Arc::new(sender);
        // Neither the tier nor an encoder must keep the engine alive that nobody else has a handle of.
        let weak = Arc::downgrade(&sender);
        let wake: Wake = Arc::new(move || drop(weak.upgrade().map(|sender| sender.send(Command::Wake))));
        let wakes = Arc::clone(&wake);
        let tier = config.ssd.as_ref().map(|options| Tier::open(options, &info, move || wakes())).transpose();
        let tier = tier.map_err(|error| StartError::Ssd(error.to_string()))?;
        planner.set_searching(tier.is_some());
        let (load, load_changes) = LoadBook::new();
        let (journal, recorder) = Journal::new();
        let shared = Arc::new(Shared {
            info,
            max_num_batched_tokens: config.max_num_batched_tokens,
            waiting: Waiting::new(config.max_waiting, config.max_waiting_per_client),
            draining: AtomicBool::new(false),
            stats: Mutex::default(),
            memory: Mutex::default(),
            busy_since: Mutex::default(),
            load,
            journal,
        });
        let (state, state_receiver) = watch::channel(EngineState::Running);
        let handle = EngineHandle {
            commands: sender,
            shared: Arc::clone(&shared),
            state: state_receiver,
            thread: Arc::default(),
        };
        let mut engine = Self {
            runner,
            planner,
            tier,
            clients: HashMap::new(),
            commands,
            wake,
            shared,
            state,
            stats: Stats::default(),
            next_seq: 0,
            panics_in_a_row: 0,
            memory_read: None,
            profiled: Profiled::new(),
            load_changes,
            recorder,
            flushes: Vec::new(),
        };
        engine.publish();
        Ok((engine, handle))
    }

    pub fn run(mut self) {
        let mut pace = Pace::Idle;
        let end = loop {
            if !self.take_commands(&pace) {
                break EngineState::Stopped;
            }
            self.drop_cancelled();
            pace = self.turn();
            self.recorder.record(self.planner.cache());
            self.planner.look_again();
            self.publish();
            self.flush_if_idle();
            if self.panics_in_a_row >= MAX_PANICS {
                break EngineState::Broken;
            }
        };
        self.shared.draining.store(true, SeqCst);
        // What was submitted and not seen yet ends like everything else.
        while let Ok(command) = self.commands.try_recv() {
            if let Command::Submit { request, events, submitted } = command {
                self.admit(*request, events, submitted);
            }
        }
        let seqs: Vec<SeqId> = self.clients.keys().copied().collect();
        for seq in seqs {
            if end == EngineState::Stopped {
                self.cancel(seq);
            } else {
                self.fail(seq, FailureKind::Stopped, "the engine has stopped: the model runner panicked");
            }
        }
        self.publish();
        // Blocks that were computed and not written yet are written; the model's memory is given back before anybody is
        // told that the engine has stopped.
        if let Some(tier) = self.tier.as_mut().filter(|_| end == EngineState::Stopped) {
            while tier.write_behind(&mut self.planner, &mut *self.runner) {}
        }
        let Self { runner, state, commands, tier, .. } = self;
        drop((tier, runner, commands));
        state.send_replace(end);
    }

    /// Takes what has been commanded, waiting for it as `pace` allows; false: time to stop.
    fn take_commands(&mut self, pace: &Pace) -> bool {
        let mut may_wait = true;
        loop {
            let idle = self.planner.is_idle();
            if idle && *pace != Pace::Busy && *self.state.borrow() == EngineState::Draining {
                return false;
            }
            let command = match pace {
                Pace::Idle if idle => match self.commands.recv() {
                    Ok(command) => command,
                    // All handles are gone: nobody can ever ask for anything.
                    Err(_) => return false,
                },
                Pace::Waiting if may_wait => match self.commands.recv_timeout(PATIENCE) {
                    Ok(command) => command,
                    Err(RecvTimeoutError::Timeout) => return true,
                    Err(RecvTimeoutError::Disconnected) => {
                        // Nobody can wake this thread any more, and requests may still be there.
                        thread::sleep(PATIENCE);
                        return !idle;
                    }
                },
                _ => match self.commands.try_recv() {
                    Ok(command) => command,
                    Err(TryRecvError::Empty | TryRecvError::Disconnected) => return true,
                },
            };
            match command {
                Command::Submit { request, events, submitted } => self.admit(*request, events, submitted),
                Command::Abort(id) => drop(self.abort(&id)),
                Command::Stop(id) => self.stop(&id),
                Command::Cancel(id, reply) => drop(reply.send(self.abort(&id))),
                Command::Describe(reply) => drop(reply.send(self.describe())),
                Command::ClearCache(reply) => drop(reply.send(self.clear_cache())),
                Command::FlushCache(until, reply) => {
                    self.flushes.push(Flush { until, reply });
                    self.flush_if_idle();
                }
                Command::KvSnapshot(reply) => drop(reply.send(self.recorder.snapshot(self.planner.cache()))),
                Command::Profile(reply) => drop(reply.send(self.profile())),
                // Time to look at the tier, and to ask for features again.
                Command::Wake => return true,
                Command::Drain => drop(self.state.send_replace(EngineState::Draining)),
                Command::Shutdown => return false,
            }
            may_wait = false;
        }
    }

    fn admit(&mut self, request: Request, events: mpsc::UnboundedSender<crate::Event>, submitted: Instant) {
        let seq = SeqId(self.next_seq);
        self.next_seq += 1;
        self.shared.load.seen(request.prompt.len());
        self.clients.insert(seq, Client::new(&request, events, submitted));
        self.planner.add(Sequence::new(seq, request));
        self.note_work();
    }

    /// Asks for features that those who wait need.
    fn ask_for_media(&mut self) {
        let MediaNews { asked, ready, failed } = self.planner.ask_for_media(&self.wake, self.tier.is_some());
        let now = Instant::now();
        for (seq, spans) in asked {
            if let Some(timeline) = self.clients.get_mut(&seq).and_then(Client::timeline) {
                timeline.asks(spans, now);
            }
        }
        for seq in ready {
            if let Some(timeline) = self.clients.get_mut(&seq).and_then(Client::timeline) {
                timeline.has_features(now);
            }
        }
        for (seq, why) in failed {
            self.fail(seq, FailureKind::Media, &why);
        }
    }

    /// One turn: what the SSD has read, features, a step, what is to be written.
    fn turn(&mut self) -> Pace {
        if let Some(tier) = &mut self.tier {
            tier.take_in(&mut self.planner, &mut *self.runner);
            let now = Instant::now();
            for (seq, blocks) in tier.read_ahead(&mut self.planner) {
                if let Some(timeline) = self.clients.get_mut(&seq).and_then(Client::timeline) {
                    timeline.reads(blocks, now);
                }
            }
        }
        self.ask_for_media();
        let computed = !self.planner.is_idle() && self.step();
        let more = match &mut self.tier {
            Some(tier) => tier.write_behind(&mut self.planner, &mut *self.runner),
            None => {
                self.planner.cache().take_new();
                false
            }
        };
        match (computed || more, self.planner.is_idle()) {
            (true, _) => Pace::Busy,
            (false, false) => Pace::Waiting,
            (false, true) => Pace::Idle,
        }
    }

    /// Computes a step; false if there was nothing to compute.
    fn step(&mut self) -> bool {
        let start = Instant::now();
        if let Some(why) = self.runner.kv_lost() {
            tracing::warn!(why, "all KV is computed anew");
            self.planner.forget_kv();
        }
        let scheduled = self.planner.schedule();
        self.note_scheduled(&scheduled, start);
        // A step may take long: what it admitted no longer waits, so it must be seen to run.
        self.publish();
        let prompt_tokens = self.planner.prompt_tokens();
        let plan = self.planner.step_plan();
        if plan.rows.is_empty() {
            return false;
        }
        let tokens = plan.num_tokens();
        let runner = &mut self.runner;
        let device = turn::DEVICE.step();
        let begun = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| runner.step(&plan)));
        self.profiled.in_steps += begun.elapsed();
        self.profiled.steps += 1;
        drop(device);
        drop(plan);
        self.stats.steps += 1;
        self.stats.histograms.iteration_tokens.record(tokens as f64);
        let result = match result {
            Ok(result) => {
                self.panics_in_a_row = 0;
                result.map_err(|error| match error {
                    Error::OutOfMemory(_) => (FailureKind::OutOfMemory, error.to_string()),
                    error => (FailureKind::Step, error.to_string()),
                })
            }
            Err(panic) => {
                self.panics_in_a_row += 1;
                Err((FailureKind::Step, format!("the model runner panicked: {}", panic_text(&*panic))))
            }
        };
        let end = Instant::now();
        self.note_prefills(start, end);
        let completed =
            result.and_then(|output| self.planner.complete(output.sampled).map_err(|error| (FailureKind::Step, error)));
        match completed {
            Ok(outcomes) => {
                self.stats.prompt_tokens += prompt_tokens as u64;
                self.report(outcomes, end);
            }
            Err((kind, error)) => self.fail_step(kind, &error),
        }
        self.stats.last_step = Some(end);
        *lock(&self.shared.busy_since) = None;
        self.note_work();
        true
    }

    fn note_scheduled(&mut self, scheduled: &Scheduled, start: Instant) {
        let now = Instant::now();
        for seq in &scheduled.preempted {
            if let Some(timeline) = self.clients.get_mut(seq).and_then(Client::timeline) {
                timeline.preempted(now);
            }
        }
        for admitted in &scheduled.admitted {
            let Some(client) = self.clients.get_mut(&admitted.seq) else { continue };
            if client.started.is_none() {
                client.started = Some(now);
                self.shared.waiting.leave(client.owner.as_ref());
            }
            if let Some(timeline) = client.timeline() {
                timeline.admitted(admitted.cached, start, now);
            }
        }
        if let Some(tier) = &self.tier {
            tier.touch(self.planner.take_touched().into_iter());
        }
    }

    fn note_prefills(&mut self, start: Instant, end: Instant) {
        for (seq, tokens, is_prefill) in self.planner.step_shares() {
            let timeline = self.clients.get_mut(&seq).and_then(Client::timeline);
            if let Some(timeline) = timeline.filter(|_| is_prefill) {
                timeline.prefilled(tokens, start, end);
            }
        }
    }

    fn report(&mut self, outcomes: Vec<Outcome>, now: Instant) {
        self.shared.load.generated(outcomes.len(), now);
        for Outcome { seq, token, stop, ended } in outcomes {
            self.stats.generated_tokens += 1;
            if let Some(client) = self.clients.get_mut(&seq) {
                client.generated(token, now, &mut self.stats.histograms);
            }
            if let Some((reason, sequence)) = ended
                && let Some(client) = self.forget(seq)
            {
                self.end(client, &sequence, reason, stop, now);
            }
        }
    }

    fn fail_step(&mut self, kind: FailureKind, error: &str) {
        let sequences = self.planner.fail();
        tracing::error!(error, requests = sequences.len(), "a step failed");
        for sequence in sequences {
            if let Some(client) = self.forget(sequence.id) {
                self.stats.failed += 1;
                client.fail(kind, error);
            }
        }
    }
}
