//! An answer that comes piece by piece.

use std::task::{Context, Poll};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{Failure, background::stopped};

/// What an engine tells whoever submitted a request.
#[derive(Debug)]
pub(crate) enum Answer<E> {
    Event(E),
    /// That was all.
    End,
    /// There will be no more.
    Failed(Failure),
}

/// The events of one request, in order. Dropping it cancels the request as soon as the model has ended the piece of work
/// that is under way.
#[derive(Debug)]
pub struct AnswerStream<E> {
    events: UnboundedReceiver<Answer<E>>,
    ended: bool,
}

impl<E> AnswerStream<E> {
    pub(crate) fn new(events: UnboundedReceiver<Answer<E>>) -> Self {
        Self { events, ended: false }
    }

    /// The next event; `None` after the last one or a [`Failure`].
    pub async fn next(&mut self) -> Option<Result<E, Failure>> {
        std::future::poll_fn(|context| self.poll_next(context)).await
    }

    /// [`AnswerStream::next`] for callers without tokio.
    ///
    /// # Panics
    /// On a thread that runs async tasks.
    pub fn blocking_next(&mut self) -> Option<Result<E, Failure>> {
        if self.ended {
            return None;
        }
        let answer = self.events.blocking_recv();
        self.note(answer)
    }

    /// [`AnswerStream::next`] for hand-written futures.
    pub fn poll_next(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<E, Failure>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        self.events.poll_recv(context).map(|answer| self.note(answer))
    }

    fn note(&mut self, answer: Option<Answer<E>>) -> Option<Result<E, Failure>> {
        let answer = answer.unwrap_or_else(|| Answer::Failed(stopped()));
        self.ended = !matches!(answer, Answer::Event(_));
        match answer {
            Answer::Event(event) => Some(Ok(event)),
            Answer::End => None,
            Answer::Failed(failure) => Some(Err(failure)),
        }
    }
}
