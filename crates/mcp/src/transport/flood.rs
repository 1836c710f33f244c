//! Ends the connection to a server that says too much unasked.

use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use rmcp::{
    RoleClient,
    model::ServerJsonRpcMessage,
    service::{RxJsonRpcMessage, TxJsonRpcMessage},
    transport::Transport,
};

/// Requests and notifications that a server may send within [`WINDOW`]. Each costs a task and maybe an answer.
const MOST: usize = 10_000;
const WINDOW: Duration = Duration::from_secs(10);

/// A transport whose other side may not flood it.
#[derive(Debug)]
pub struct Guarded<T> {
    inner: T,
    server: String,
    count: Count,
}

impl<T> Guarded<T> {
    pub fn new(inner: T, server: &str) -> Self {
        Self { inner, server: server.to_owned(), count: Count { since: Instant::now(), messages: 0 } }
    }
}

impl<T: Transport<RoleClient>> Transport<RoleClient> for Guarded<T> {
    type Error = T::Error;

    fn name() -> Cow<'static, str> {
        T::name()
    }

    fn send(
        &mut self,
        item: TxJsonRpcMessage<RoleClient>,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send + 'static {
        self.inner.send(item)
    }

    async fn receive(&mut self) -> Option<RxJsonRpcMessage<RoleClient>> {
        let message = self.inner.receive().await?;
        let unasked = matches!(message, ServerJsonRpcMessage::Request(_) | ServerJsonRpcMessage::Notification(_));
        if unasked && self.count.is_flood(Instant::now()) {
            tracing::warn!(server = self.server, most = MOST, window = ?WINDOW, "MCP server floods: connection closed");
            return None;
        }
        Some(message)
    }

    async fn close(&mut self) -> Result<(), Self::Error> {
        self.inner.close().await
    }
}

#[derive(Debug)]
struct Count {
    since: Instant,
    messages: usize,
}

impl Count {
    fn is_flood(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self { since: now, messages: 0 };
        }
        self.messages += 1;
        self.messages > MOST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_messages_are_a_flood_only_when_they_come_together() {
        let start = Instant::now();
        let mut count = Count { since: start, messages: 0 };
        let slowly = (0..3 * MOST as u64).map(|i| start + Duration::from_millis(2 * i));
        assert!(slowly.into_iter().all(|now| !count.is_flood(now)));
        let mut count = Count { since: start, messages: 0 };
        assert_eq!((0..2 * MOST).position(|_| count.is_flood(start)), Some(MOST));
    }
}
