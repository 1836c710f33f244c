//! A picture to be encoded, and those who wait for it.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use vllm_platform::{ContentHash, Features, VisionInput};

use super::handle::VisionHandle;
use crate::{FeatureOrigin, FeatureSource, Wake, handle::lock};

/// Cuts a picture into patches. May be called again when the features have been forgotten.
pub(super) type Input = Arc<dyn Fn() -> VisionInput + Send + Sync>;

/// A picture.
#[derive(Clone)]
pub(super) struct Picture {
    pub key: ContentHash,
    /// Vectors that its features must have.
    pub tokens: usize,
    pub input: Input,
}

/// A picture whose features are being worked out. Held by those who wait for them: when they are gone, so is the job.
pub(super) struct Job {
    pub picture: Picture,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    result: Option<(FeatureOrigin, Result<Arc<Features>, String>)>,
    waiting: Vec<Wake>,
}

impl Job {
    pub fn new(picture: Picture) -> Self {
        Self { picture, progress: Mutex::default() }
    }

    /// The result, or `wake` is called when there is one.
    fn poll(&self, wake: &Wake) -> Option<(FeatureOrigin, Result<Arc<Features>, String>)> {
        let mut progress = lock(&self.progress);
        if progress.result.is_none() && !progress.waiting.iter().any(|known| Arc::ptr_eq(known, wake)) {
            progress.waiting.push(Arc::clone(wake));
        }
        progress.result.clone()
    }

    /// Gives everybody the result.
    pub fn end(&self, origin: FeatureOrigin, result: Result<Arc<Features>, String>) {
        let mut progress = lock(&self.progress);
        progress.result = Some((origin, result));
        let waiting = std::mem::take(&mut progress.waiting);
        drop(progress);
        waiting.iter().for_each(|wake| wake());
    }
}

/// How the desk answers to somebody who wants a picture's features.
pub(super) enum Answer {
    Found(Arc<Features>),
    /// They will come.
    Wait {
        job: Arc<Job>,
        /// Whether somebody else had asked before.
        joined: bool,
    },
    /// They will not.
    Refused(String),
}

/// Somebody's claim to a picture's features.
pub(super) struct Claim {
    engine: VisionHandle,
    picture: Picture,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// What it waits for, and whether for another's sake.
    job: Option<(Arc<Job>, bool)>,
    origin: Option<FeatureOrigin>,
}

impl Claim {
    pub fn new(engine: VisionHandle, picture: Picture) -> Self {
        Self { engine, picture, state: Mutex::default() }
    }
}

impl FeatureSource for Claim {
    fn poll(&self, wake: &Wake) -> Option<Result<Arc<Features>, String>> {
        let mut state = lock(&self.state);
        let (job, joined) = match &state.job {
            Some((job, joined)) => (Arc::clone(job), *joined),
            None => match self.engine.ask(&self.picture) {
                Answer::Found(features) => {
                    state.origin = Some(FeatureOrigin::Memory);
                    return Some(Ok(features));
                }
                Answer::Refused(why) => return Some(Err(why)),
                Answer::Wait { job, joined } => {
                    state.job = Some((Arc::clone(&job), joined));
                    (job, joined)
                }
            },
        };
        let (origin, result) = job.poll(wake)?;
        // The features are the caller's now: whoever keeps the claim does not keep them in memory.
        state.job = None;
        state.origin = Some(if joined { FeatureOrigin::Joined } else { origin });
        Some(result)
    }

    fn origin(&self) -> Option<FeatureOrigin> {
        lock(&self.state).origin
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("key", &self.picture.key).field("tokens", &self.picture.tokens).finish()
    }
}
