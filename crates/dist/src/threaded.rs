//! A transport of the platform's on a thread of its own, so that waiting for a rank that has died can be given up.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::Duration,
};

use crate::{Error, OpenLink, Result, session::Session};

/// How often a wait looks whether there is still something to wait for.
const GLANCE: Duration = Duration::from_millis(50);

enum Command {
    Send(usize, Vec<f32>),
    Receive(usize, usize),
}

/// A [`Link`](vllm_platform::Link) that can be abandoned. Its thread may then wait for ever.
pub struct Threaded {
    commands: Sender<Command>,
    done: Receiver<vllm_platform::Result<Vec<f32>>>,
}

impl Threaded {
    /// Joins the others: returns when all are there, or the session ends.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such transport here, or it counts the ranks otherwise.
    pub fn open(transport: &str, open: &OpenLink, rank: usize, size: usize, session: &Session) -> Result<Self> {
        let (commands, todo) = channel::<Command>();
        let (report, done) = channel();
        let (open, name) = (std::sync::Arc::clone(open), transport.to_owned());
        let work = move || {
            let mut link = match open(&name) {
                Ok(link) if (link.rank(), link.size()) == (rank, size) => link,
                Ok(link) => {
                    let (found, all) = (link.rank(), link.size());
                    let why =
                        format!("{name}: the environment says rank {found} of {all}, this is rank {rank} of {size}");
                    return drop(report.send(Err(vllm_platform::Error::Model(why))));
                }
                Err(error) => return drop(report.send(Err(error))),
            };
            if report.send(Ok(Vec::new())).is_err() {
                return;
            }
            for command in todo {
                let result = match command {
                    Command::Send(to, numbers) => link.send(to, &numbers).map(|()| Vec::new()),
                    Command::Receive(from, len) => link.receive(from, len),
                };
                if report.send(result).is_err() {
                    return;
                }
            }
        };
        let spawned = thread::Builder::new().name("link".into()).spawn(work);
        spawned.map_err(|error| Error::Refused(error.to_string()))?;
        let this = Self { commands, done };
        this.wait(session).map_err(|why| match session.ended() {
            Some(why) => Error::Gone(why),
            None => Error::Refused(why),
        })?;
        Ok(this)
    }

    pub fn send(&self, to: usize, numbers: Vec<f32>, session: &Session) -> std::result::Result<(), String> {
        // A thread that is gone has said why.
        let _ = self.commands.send(Command::Send(to, numbers));
        self.wait(session).map(drop)
    }

    pub fn receive(&self, from: usize, len: usize, session: &Session) -> std::result::Result<Vec<f32>, String> {
        let _ = self.commands.send(Command::Receive(from, len));
        self.wait(session)
    }

    fn wait(&self, session: &Session) -> std::result::Result<Vec<f32>, String> {
        loop {
            match self.done.recv_timeout(GLANCE) {
                Ok(result) => return result.map_err(|error| error.to_string()),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(why) = session.ended() {
                        return Err(why);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return Err("the transport's thread is gone".into()),
            }
        }
    }
}
