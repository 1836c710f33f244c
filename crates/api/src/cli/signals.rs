//! What ends a server, and what makes it read its settings again.

#[cfg(unix)]
use std::io::IsTerminal as _;

use super::reload::Reloader;

/// Ctrl-C, and what service managers send. Kept for the whole run, so that no signal falls between two waits.
pub struct Signals {
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    hangup: tokio::signal::unix::Signal,
    #[cfg(unix)]
    reloader: Reloader,
    /// Whether a person started it, who ends it by closing the window.
    #[cfg(unix)]
    in_terminal: bool,
}

impl Signals {
    #[cfg(unix)]
    pub fn install(reloader: Reloader) -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            reloader,
            in_terminal: std::io::stderr().is_terminal(),
        })
    }

    #[cfg(not(unix))]
    pub fn install(_: Reloader) -> anyhow::Result<Self> {
        Ok(Self {})
    }

    /// Waits for a signal to end. One to reload is done meanwhile.
    #[cfg(unix)]
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => {}
            }
            if self.in_terminal && !std::io::stderr().is_terminal() {
                return;
            }
            tokio::task::block_in_place(|| self.reloader.reload());
        }
    }

    #[cfg(not(unix))]
    pub async fn next(&mut self) {
        let _ = tokio::signal::ctrl_c().await;
    }
}
