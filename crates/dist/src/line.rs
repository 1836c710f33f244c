//! A line between rank 0 and another: messages both ways, and a beat each second that says "still there".

use std::{
    net::TcpStream,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

use crate::{SILENCE, assignment::Message, session::Session, wire};

/// A rank says something so often.
const BEAT: Duration = Duration::from_secs(1);

/// One end of a line. If it breaks, its session ends.
#[derive(Debug)]
pub struct Line {
    /// The other end, as errors call it.
    pub peer: String,
    writer: Arc<Mutex<TcpStream>>,
    incoming: Receiver<Message>,
    session: Session,
}

impl Line {
    /// Over a connection that has been greeted. Two threads read and beat until the session ends.
    ///
    /// # Errors
    /// If the system has no handles or threads left.
    pub fn new(stream: TcpStream, peer: String, session: &Session) -> Result<Self, String> {
        let told = |error: &std::io::Error| wire::io(error);
        stream.set_read_timeout(Some(SILENCE)).map_err(|error| told(&error))?;
        session.watch(&stream)?;
        let mut reader = stream.try_clone().map_err(|error| told(&error))?;
        let (sender, incoming) = channel();
        let writer = Arc::new(Mutex::new(stream));

        let (ends, name) = (session.clone(), peer.clone());
        let read = move || {
            loop {
                match wire::read(&mut reader, wire::LONGEST) {
                    Ok(Message::Beat) => {}
                    Ok(Message::Lost(why)) => return ends.end(why),
                    Ok(Message::StepFailed { number, why }) => ends.step_failed(number, why),
                    Ok(message) => {
                        if sender.send(message).is_err() {
                            return;
                        }
                    }
                    Err(why) => return ends.end(format!("{name} is gone: {why}")),
                }
            }
        };
        let (session_of_beats, pulse) = (session.clone(), Arc::clone(&writer));
        let beat = move || {
            while session_of_beats.wait(BEAT).is_none() {
                let mut writer = pulse.lock().unwrap_or_else(PoisonError::into_inner);
                // The reader finds out why it fails.
                if wire::write(&mut *writer, &Message::Beat).is_err() {
                    return;
                }
            }
        };
        let named = |name: &str| thread::Builder::new().name(name.into());
        named("line").spawn(read).map_err(|error| told(&error))?;
        named("beat").spawn(beat).map_err(|error| told(&error))?;
        Ok(Self { peer, writer, incoming, session: session.clone() })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// Why the session has ended, if it can't be sent.
    pub fn send(&self, message: &Message) -> Result<(), String> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        wire::write(&mut *writer, message).map_err(|why| {
            // The reader may know better, in a moment.
            let better = self.session.wait(Duration::from_millis(200));
            better.unwrap_or_else(|| {
                let why = format!("{} is gone: {why}", self.peer);
                self.session.end(why.clone());
                why
            })
        })
    }

    /// The next message, or why the session has ended.
    pub fn receive(&self) -> Result<Message, String> {
        loop {
            match self.incoming.recv_timeout(SILENCE) {
                Ok(message) => return Ok(message),
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(why) = self.session.ended() {
                        return Err(why);
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    let why = self.session.wait(SILENCE);
                    return Err(why.unwrap_or_else(|| format!("{} is gone", self.peer)));
                }
            }
        }
    }
}
