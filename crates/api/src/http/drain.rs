//! The word that the server is on its way down.

use tokio::sync::watch;

/// Says it, to all that listen.
#[derive(Debug)]
pub(crate) struct Drain(watch::Sender<bool>);

/// Hears it.
#[derive(Debug, Clone)]
pub struct Draining(watch::Receiver<bool>);

impl Default for Drain {
    fn default() -> Self {
        Self(watch::Sender::new(false))
    }
}

impl Drain {
    /// From now on the server is on its way down.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }

    /// To hear of it.
    pub fn listen(&self) -> Draining {
        Draining(self.0.subscribe())
    }
}

impl Draining {
    /// Whether it has been said.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is said.
    pub async fn begun(&mut self) {
        // Without a sender there is no server any more.
        let _ = self.0.wait_for(|&begun| begun).await;
    }
}
