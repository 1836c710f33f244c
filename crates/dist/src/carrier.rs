//! How a rank gets hidden states from the one before, and gives them to the one after.

use std::{net::TcpStream, time::Duration};

use vllm_platform::HiddenDtype;

use crate::{
    session::Session,
    tcp::{self, Made},
    threaded::Threaded,
};

/// How long the reason may be on its way when a socket has broken, or a step has failed elsewhere.
const AFTERTHOUGHT: Duration = Duration::from_secs(1);

/// A rank's two neighbours.
pub struct Carrier {
    pub rank: usize,
    /// Numbers of a token's hidden state.
    pub width: usize,
    pub dtype: HiddenDtype,
    pub session: Session,
    pub way: Way,
}

/// What carries.
pub enum Way {
    Tcp {
        /// From rank + 1, with its name.
        before: Option<(TcpStream, String)>,
        /// To rank − 1.
        after: Option<TcpStream>,
    },
    Threaded(Threaded),
}

impl Carrier {
    /// What the rank before made of a step of `tokens` tokens.
    ///
    /// # Errors
    /// Why ranks are no longer together. Whoever asked ends the session.
    pub fn receive(&mut self, number: u64, tokens: usize) -> Result<Made, String> {
        let len = tokens * self.width;
        let (from, session) = (self.rank + 1, &self.session);
        match &mut self.way {
            Way::Tcp { before: Some((socket, peer)), .. } => tcp::receive(socket, number, len, self.dtype)
                .map_err(|why| lost(session, &format!("{peer} is gone: {why}"))),
            Way::Tcp { before: None, .. } => Err(lost(session, "nobody is before the first stage")),
            Way::Threaded(link) => {
                // One number more says whether the others mean anything.
                let mut numbers = link.receive(from, len + 1, session).map_err(|why| lost(session, &why))?;
                if numbers.pop() == Some(1.0) {
                    return Ok(Ok(numbers));
                }
                let why = session.failure(number, AFTERTHOUGHT);
                Ok(Err(why.unwrap_or_else(|| format!("a step failed on rank {from} or before"))))
            }
        }
    }

    /// Gives the rank after what this one made of a step of `tokens` tokens.
    ///
    /// # Errors
    /// As [`receive`](Self::receive).
    pub fn send(&mut self, number: u64, tokens: usize, made: Made) -> Result<(), String> {
        let session = &self.session;
        match &mut self.way {
            Way::Tcp { after: Some(socket), .. } => {
                let after = self.rank - 1;
                tcp::send(socket, number, &made, self.dtype)
                    .map_err(|why| lost(session, &format!("rank {after} is gone: {why}")))
            }
            Way::Tcp { after: None, .. } => Err(lost(session, "nobody is after the last stage")),
            Way::Threaded(link) => {
                let flag = if made.is_ok() { 1.0 } else { 0.0 };
                let mut numbers = made.unwrap_or_else(|_| vec![0.0; tokens * self.width]);
                numbers.push(flag);
                link.send(self.rank - 1, numbers, session).map_err(|why| lost(session, &why))
            }
        }
    }

    /// Whether texts of errors have to go over the lines.
    pub fn carries_no_text(&self) -> bool {
        matches!(self.way, Way::Threaded(_))
    }
}

/// Why ranks are no longer together: this, unless somebody knows better in a moment.
fn lost(session: &Session, why: &str) -> String {
    session.wait(AFTERTHOUGHT).unwrap_or_else(|| why.to_owned())
}
