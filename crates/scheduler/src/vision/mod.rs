//! An engine for encoders that look at pictures: see [`VisionEngine`].

mod desk;
mod handle;
mod job;
mod run;
mod tier;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use vllm_cache::SsdStats;
use vllm_platform::VisionEncoder;

pub use self::handle::VisionHandle;
use self::run::VisionLoop;
use crate::{EngineState, SsdOptions, StartError, engine::panic_text};

/// What a vision engine is started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VisionConfig {
    /// Most bytes of features kept in memory; 0: none but those somebody holds.
    pub cache_bytes: usize,
    /// A tier below memory. Its folder may be the language model's too: the caps of the two add up.
    pub ssd: Option<SsdOptions>,
}

impl Default for VisionConfig {
    fn default() -> Self {
        Self { cache_bytes: 512 << 20, ssd: None }
    }
}

/// Figures since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VisionStats {
    /// Where the engine stands.
    pub state: EngineState,
    /// Pictures that are wanted and not begun.
    pub waiting: usize,
    /// Whether the encoder is at work.
    pub running: bool,
    /// Pictures encoded.
    pub encoded: u64,
    /// Their patches.
    pub patches: u64,
    /// The vectors that the encoder gave for them, of one level.
    pub tokens: u64,
    /// Time that this took, giving way to others included.
    pub busy: Duration,
    /// Times that features were found in memory.
    pub hits: u64,
    /// Times that they were read from the SSD.
    pub ssd_hits: u64,
    /// Times that they were nowhere, so that the encoder was asked.
    pub misses: u64,
    /// Times that somebody wanted what was being worked out for another already.
    pub joined: u64,
    /// Pictures that nobody wanted any more when their turn came.
    pub skipped: u64,
    /// Pictures that could not be encoded.
    pub failed: u64,
    /// Pictures whose features are in memory.
    pub entries: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Most bytes there may be.
    pub capacity: usize,
    /// Pictures whose features were let go to make room.
    pub evictions: u64,
    /// The tier below memory, if there is one.
    pub ssd: Option<SsdStats>,
    /// When the last picture was done.
    pub last_encode: Option<Instant>,
}

/// Makes engines for encoders that look at pictures.
///
/// Pictures are encoded one at a time in the order they were first wanted, on a thread of its own that gives way to
/// engines that generate. Nothing is encoded twice: features are kept in memory, and below that on an SSD, and who wants
/// a picture that is being encoded for another gets the same features.
///
/// ```
/// use std::sync::{Arc, mpsc};
///
/// use vllm_platform::{ContentHash, VisionInput, testing::FakeVision};
/// use vllm_scheduler::{VisionConfig, VisionEngine, Wake};
///
/// let encoder = || Ok(Box::new(FakeVision::new(Default::default())) as Box<_>);
/// let engine = VisionEngine::start(encoder, VisionConfig::default()).unwrap();
/// let picture = || VisionInput { patches: vec![0.5; 6 * 4], patch_len: 4, grids: vec![[2, 3]] };
/// let source = engine.features(ContentHash([7; 16]), 6, picture);
///
/// let (sender, woken) = mpsc::channel();
/// let wake: Wake = Arc::new(move || { let _ = sender.send(()); });
/// let features = loop {
///     match source.poll(&wake) {
///         Some(features) => break features.unwrap(),
///         None => woken.recv().unwrap(),
///     }
/// };
/// assert_eq!(features.tokens(), 6);
/// ```
#[derive(Debug)]
pub struct VisionEngine;

impl VisionEngine {
    /// Makes an encoder on a new thread and returns when it is ready.
    ///
    /// # Errors
    /// [`StartError`] if `make` fails or panics, or the SSD tier cannot be opened.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn start<F>(make: F, config: VisionConfig) -> Result<VisionHandle, StartError>
    where
        F: FnOnce() -> vllm_platform::Result<Box<dyn VisionEncoder>> + Send + 'static,
    {
        let (ready, is_ready) = channel();
        let spawned = thread::Builder::new().name("vision".into()).spawn(move || {
            let made = catch_unwind(AssertUnwindSafe(make))
                .map_err(|panic| StartError::Panicked(panic_text(&*panic)))
                .and_then(|made| made.map_err(StartError::from))
                .and_then(|encoder| VisionLoop::new(encoder, &config));
            match made {
                Ok((engine, handle)) => {
                    if ready.send(Ok(handle)).is_ok() {
                        engine.run();
                    }
                }
                // Whoever asked is there until it has an answer.
                Err(error) => drop(ready.send(Err(error))),
            }
        });
        spawned.map_err(|error| StartError::Thread(error.to_string()))?;
        is_ready.recv().unwrap_or_else(|_| Err(StartError::Panicked("the thread is gone".into())))
    }
}
