//! Everybody's view of a vision engine.

use std::{
    sync::{Arc, Mutex, mpsc::Sender},
    time::{Duration, Instant},
};

use tokio::sync::watch;
use vllm_cache::seen_by;
use vllm_platform::{ContentHash, MemoryInfo, VisionInfo, VisionInput};

use super::{
    VisionStats,
    desk::Desk,
    job::{Answer, Claim, Picture},
};
use crate::{EngineState, FeatureSource, handle::lock};

/// What a handle tells the engine's thread.
#[derive(Debug)]
pub(super) enum Command {
    /// There is something new on the desk, or in the tier.
    Look,
    /// Features were found in memory.
    Used {
        key: ContentHash,
        tokens: usize,
    },
    ClearTier,
    Drain,
    Shutdown,
}

/// What the engine's thread and its handles both see.
#[derive(Debug)]
pub(super) struct Shared {
    pub info: VisionInfo,
    pub desk: Desk,
    pub memory: Mutex<MemoryInfo>,
    /// Since when the encoder is at a picture, or since it last gave way to others.
    pub busy_since: Mutex<Option<Instant>>,
}

/// A running engine. Cheap to clone; the engine ends when it was told to, or the last clone and the last source are gone.
#[derive(Debug, Clone)]
pub struct VisionHandle {
    pub(super) commands: Arc<Sender<Command>>,
    pub(super) shared: Arc<Shared>,
    pub(super) state: watch::Receiver<EngineState>,
}

impl VisionHandle {
    /// The features of the pictures that `key` names, `tokens` vectors. Nothing is done before they are
    /// [asked for](FeatureSource::poll); `input`, which cuts the pictures into patches, is called on the engine's thread,
    /// and only if the features are neither in memory nor on the SSD.
    ///
    /// After [`drain`](Self::drain) sources that were not asked yet fail: drain engines that use them first.
    #[must_use]
    pub fn features(
        &self,
        key: ContentHash,
        tokens: usize,
        input: impl Fn() -> VisionInput + Send + Sync + 'static,
    ) -> Arc<dyn FeatureSource> {
        Arc::new(Claim::new(self.clone(), Picture { key, tokens, input: Arc::new(input) }))
    }

    /// Names what this encoder sees in `content`: for [`RequestMedia::key`](crate::RequestMedia::key), so that the KV of
    /// another encoder's features is never taken for that of this one's.
    #[must_use]
    pub fn seen(&self, content: ContentHash) -> ContentHash {
        seen_by(&self.shared.info.fingerprint, content)
    }

    pub(super) fn ask(&self, picture: &Picture) -> Answer {
        let answer = self.shared.desk.ask(picture);
        let command = match &answer {
            Answer::Found(_) => Command::Used { key: picture.key, tokens: picture.tokens },
            Answer::Wait { joined: false, .. } => Command::Look,
            Answer::Wait { .. } | Answer::Refused(_) => return answer,
        };
        // A thread that has ended has closed the desk before, and ended what was on it.
        let _ = self.commands.send(command);
        answer
    }

    /// The encoder in numbers.
    #[must_use]
    pub fn info(&self) -> &VisionInfo {
        &self.shared.info
    }

    /// Figures as of now; those of the SSD as of a moment ago.
    #[must_use]
    pub fn stats(&self) -> VisionStats {
        VisionStats { state: *self.state.borrow(), ..self.shared.desk.stats() }
    }

    /// Memory of the encoder's device, as of the last picture's end.
    #[must_use]
    pub fn memory(&self) -> MemoryInfo {
        *lock(&self.shared.memory)
    }

    /// How long the encoder has been at work without giving way to others; `None` if it has nothing to do.
    #[must_use]
    pub fn silence(&self) -> Option<Duration> {
        lock(&self.shared.busy_since).map(|since| since.elapsed())
    }

    /// Forgets all features, in memory and on the SSD; says of how many pictures they were in memory.
    pub fn clear_cache(&self) -> usize {
        let _ = self.commands.send(Command::ClearTier);
        self.shared.desk.clear()
    }

    /// Takes nothing new, and lets the engine stop when what is under way is done.
    pub fn drain(&self) {
        self.shared.desk.close("the server is shutting down");
        let _ = self.commands.send(Command::Drain);
    }

    /// Fails all that is under way and stops the engine.
    pub fn shutdown(&self) {
        self.shared.desk.close("the server is shutting down");
        let _ = self.commands.send(Command::Shutdown);
    }

    /// Waits until the engine has stopped after [`drain`](Self::drain), [`shutdown`](Self::shutdown) or a breakdown.
    pub async fn stopped(&self) -> EngineState {
        let ended = |state: &EngineState| matches!(state, EngineState::Stopped | EngineState::Broken);
        // The sender lives on the thread: if it is gone without a word, so is the thread.
        self.state.clone().wait_for(ended).await.map_or(EngineState::Broken, |state| *state)
    }
}
