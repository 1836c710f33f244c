//! One listener's place in the journal.

use std::sync::{Arc, Weak, mpsc::Sender};

use tokio::sync::{oneshot, watch};

use super::{
    KvNews, KvSnapshot,
    journal::{At, Journal},
};
use crate::handle::Command;

/// What an engine's prefix cache tells. Dropping it is all it takes to listen no longer.
///
/// Nothing is kept for a listener but its place in what is kept for all: one that is slow, or comes back late, is given a
/// snapshot.
#[derive(Debug)]
pub struct KvEvents {
    commands: Weak<Sender<Command>>,
    journal: Arc<Journal>,
    news: watch::Receiver<u64>,
    place: Place,
}

#[derive(Debug)]
enum Place {
    /// The next batch's number.
    Before(u64),
    /// A snapshot is needed, and perhaps asked for already.
    Lost(Option<oneshot::Receiver<KvSnapshot>>),
}

impl KvEvents {
    /// From batch `from` on, or from the present state if it is 0.
    pub(crate) fn new(commands: Weak<Sender<Command>>, journal: Arc<Journal>, from: u64) -> Self {
        let news = journal.join();
        let place = if from == 0 { Place::Lost(None) } else { Place::Before(from) };
        Self { commands, journal, news, place }
    }

    /// The next thing to know, once there is one; `None` when the engine has stopped. Nothing is lost if it is not waited
    /// for to the end.
    pub async fn next(&mut self) -> Option<KvNews> {
        loop {
            match &mut self.place {
                Place::Lost(Some(answer)) => {
                    let snapshot = answer.await.ok()?;
                    self.place = Place::Before(snapshot.sequence + 1);
                    return Some(KvNews::Snapshot(snapshot));
                }
                Place::Lost(asked) => {
                    let (reply, answer) = oneshot::channel();
                    self.commands.upgrade()?.send(Command::KvSnapshot(reply)).ok()?;
                    *asked = Some(answer);
                }
                Place::Before(next) => {
                    // Before looking, so that what comes while it looks is not slept through.
                    self.news.mark_unchanged();
                    match self.journal.at(*next) {
                        At::Batch(batch) => {
                            *next += 1;
                            return Some(KvNews::Batch(batch));
                        }
                        At::Nothing => self.news.changed().await.ok()?,
                        At::Lost => self.place = Place::Lost(None),
                    }
                }
            }
        }
    }
}

impl Drop for KvEvents {
    fn drop(&mut self) {
        self.journal.leave();
    }
}
