//! The engine's thread: pictures in, features out.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Instant,
};

use tokio::sync::watch;
use vllm_platform::{Features, VisionEncoder, VisionInfo, VisionInput};

use super::{
    VisionConfig, VisionHandle,
    desk::Desk,
    handle::{Command, Shared},
    job::{Job, Picture},
    tier::Tier,
};
use crate::{EngineState, FeatureOrigin, StartError, engine::panic_text, handle::lock, turn};

/// Runs of the encoder that may panic in a row before the engine gives up.
const MAX_PANICS: u32 = 2;

pub(super) struct VisionLoop {
    encoder: Box<dyn VisionEncoder>,
    lookup: Lookup,
    commands: Receiver<Command>,
    shared: Arc<Shared>,
    state: watch::Sender<EngineState>,
    panics_in_a_row: u32,
}

/// What goes on between slices of the encoder's work, too.
struct Lookup {
    shared: Arc<Shared>,
    tier: Option<Tier>,
}

impl VisionLoop {
    pub fn new(encoder: Box<dyn VisionEncoder>, config: &VisionConfig) -> Result<(Self, VisionHandle), StartError> {
        let info = encoder.info().clone();
        let (sender, commands) = channel();
        let sender = Arc::new(sender);
        // The tier must not keep the engine alive that nobody else has a handle of.
        let weak = Arc::downgrade(&sender);
        let wake = move || {
            // An engine that is gone needs no news.
            let _ = weak.upgrade().map(|sender| sender.send(Command::Look));
        };
        let tier = config.ssd.as_ref().map(|options| Tier::open(options, &info, wake)).transpose();
        let tier = tier.map_err(|error| StartError::Ssd(error.to_string()))?;
        let shared = Arc::new(Shared {
            info,
            desk: Desk::new(config.cache_bytes),
            memory: Mutex::default(),
            busy_since: Mutex::default(),
        });
        let (state, state_receiver) = watch::channel(EngineState::Running);
        let handle = VisionHandle { commands: sender, shared: Arc::clone(&shared), state: state_receiver };
        let lookup = Lookup { shared: Arc::clone(&shared), tier };
        let engine = Self { encoder, lookup, commands, shared, state, panics_in_a_row: 0 };
        engine.publish();
        Ok((engine, handle))
    }

    pub fn run(mut self) {
        let end = loop {
            if !self.take_commands() {
                break EngineState::Stopped;
            }
            self.lookup.turn();
            if let Some(job) = self.shared.desk.next_missing() {
                self.encode(&job);
            }
            self.publish();
            if self.panics_in_a_row >= MAX_PANICS {
                break EngineState::Broken;
            }
        };
        let why = match end {
            EngineState::Broken => "the vision encoder has stopped: it panicked",
            _ => "the server is shutting down",
        };
        self.shared.desk.close(why);
        for job in self.shared.desk.take_all() {
            self.shared.desk.end(&job, FeatureOrigin::Encoded, Err(why.into()));
        }
        // What is queued for the SSD is written and the model's memory given back before anybody is told.
        let Self { encoder, lookup, commands, state, .. } = self;
        drop((lookup, encoder, commands));
        state.send_replace(end);
    }

    /// Takes what has been commanded, waiting for it if there is nothing to do; false: time to stop.
    fn take_commands(&mut self) -> bool {
        loop {
            let desk = &self.shared.desk;
            if *self.state.borrow() == EngineState::Draining && desk.is_idle() {
                return false;
            }
            let command = if desk.has_work() { self.commands.try_recv().ok() } else { self.commands.recv().ok() };
            match command {
                Some(Command::Look) => {
                    // Nobody can put work on the desk that has been seen here without saying so.
                    self.lookup.turn();
                }
                Some(Command::Used { key, tokens }) => {
                    if let Some(tier) = &self.lookup.tier {
                        tier.touch(key, tokens);
                    }
                }
                Some(Command::ClearTier) => {
                    if let Some(tier) = &mut self.lookup.tier {
                        tier.clear();
                    }
                }
                Some(Command::Drain) => drop(self.state.send_replace(EngineState::Draining)),
                Some(Command::Shutdown) => return false,
                // Nothing more to take; or all handles are gone, and nobody can ever ask for anything.
                None => return self.shared.desk.has_work(),
            }
        }
    }

    fn encode(&mut self, job: &Job) {
        let start = Instant::now();
        let result = self.features(&job.picture);
        self.shared.desk.ran(start.elapsed());
        *lock(&self.shared.busy_since) = None;
        if let Err(error) = &result {
            tracing::error!(error, key = %job.picture.key, "a picture was not encoded");
        }
        let result = result.map(Arc::new);
        self.shared.desk.end(job, FeatureOrigin::Encoded, result.clone());
        if let (Some(tier), Ok(features)) = (&mut self.lookup.tier, result) {
            tier.write(job.picture.key, &features);
        }
    }

    fn features(&mut self, picture: &Picture) -> Result<Features, String> {
        let input = catch_unwind(AssertUnwindSafe(|| (picture.input)()))
            .map_err(|panic| format!("preparing a picture panicked: {}", panic_text(&*panic)))?;
        check_input(&input, &self.shared.info)?;
        let mut slice = turn::DEVICE.slice();
        let busy_since = &self.shared.busy_since;
        *lock(busy_since) = Some(Instant::now());
        let (encoder, lookup) = (&mut self.encoder, &mut self.lookup);
        let mut pause = || {
            lookup.turn();
            *lock(busy_since) = None;
            slice.pause();
            *lock(busy_since) = Some(Instant::now());
        };
        let encoded = catch_unwind(AssertUnwindSafe(|| encoder.encode(&input, &mut pause)));
        drop(slice);
        let features = match encoded {
            Ok(result) => {
                self.panics_in_a_row = 0;
                result.map_err(|error| error.to_string())?
            }
            Err(panic) => {
                self.panics_in_a_row += 1;
                return Err(format!("the vision encoder panicked: {}", panic_text(&*panic)));
            }
        };
        check_features(&features, picture.tokens, &self.shared.info)?;
        self.shared.desk.count(|stats| {
            stats.encoded += 1;
            stats.patches += input.num_patches() as u64;
            stats.tokens += features.tokens() as u64;
            stats.last_encode = Some(Instant::now());
        });
        Ok(features)
    }

    /// Shows to the handles what only this thread can see.
    fn publish(&self) {
        self.lookup.publish();
        if let Ok(memory) = self.encoder.memory() {
            *lock(&self.shared.memory) = memory;
        }
    }
}

impl Lookup {
    /// Asks the tier for what is new on the desk, and takes in what it has found.
    fn turn(&mut self) {
        let desk = &self.shared.desk;
        while let Some((key, tokens)) = desk.next_new() {
            if !self.tier.as_mut().is_some_and(|tier| tier.read(key, tokens)) {
                desk.not_stored(key);
            }
        }
        if let Some(tier) = &mut self.tier {
            tier.take_in(desk);
        }
        self.publish();
    }

    fn publish(&self) {
        self.shared.desk.set_ssd(self.tier.as_ref().map(Tier::stats));
    }
}

fn check_input(input: &VisionInput, info: &VisionInfo) -> Result<(), String> {
    if input.patch_len != info.patch_len {
        return Err(format!("patches have {} numbers, and the encoder takes {}", input.patch_len, info.patch_len));
    }
    let (wanted, found) = (input.num_patches() * input.patch_len, input.patches.len());
    if wanted == 0 || wanted != found {
        let patches = input.num_patches();
        return Err(format!("{found} numbers are not {patches} patches of {}", input.patch_len));
    }
    Ok(())
}

fn check_features(features: &Features, tokens: usize, info: &VisionInfo) -> Result<(), String> {
    let found = [features.levels(), features.tokens(), features.width()];
    let wanted = [info.levels, tokens, info.width];
    if found != wanted {
        return Err(format!("the vision encoder gave features of {found:?}, and {wanted:?} are wanted"));
    }
    Ok(())
}
