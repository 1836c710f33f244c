//! A response from its first event to its last, whoever listens.

use std::ops::ControlFlow;

use bytes::BytesMut;
use serde_json::Value;
use vllm_scheduler::GeneratedToken;

use super::{
    events::Events,
    object::{Head, Status, usage_json},
    output::Output,
    store::Open,
};
use crate::{http::usage::Usage, residency::Lease};

/// Writes one response into its stream, if it has one, and into the store.
#[derive(Debug)]
pub struct ResponseWriter {
    /// What doesn't change.
    pub head: Head,
    /// Who answers.
    pub model: Lease,
    /// The items so far.
    pub output: Output,
    /// Its place in the store, until it has ended.
    pub open: Option<Open>,
    /// Number of the next event.
    pub next_event: u64,
}

impl ResponseWriter {
    /// Writes the events that come before any answer.
    pub fn start(&mut self, out: &mut BytesMut) {
        let object = self.head.object(&Status::InProgress, &[], None);
        let mut events = Events { out: Some(out), next: &mut self.next_event };
        events.response("response.created", || object.clone());
        events.response("response.in_progress", || object);
    }

    /// Its answer has begun: it waits no longer.
    pub fn begin(&self) {
        if let Some(open) = &self.open {
            open.show(self.head.object(&Status::InProgress, &[], None));
        }
    }

    /// Takes a piece of the answer.
    pub fn push(
        &mut self,
        text: &str,
        tokens: &[GeneratedToken],
        count: usize,
        out: Option<&mut BytesMut>,
    ) -> ControlFlow<()> {
        self.output.push(text, tokens, count, &mut Events { out, next: &mut self.next_event })
    }

    /// The answer has ended: returns the whole response.
    pub fn end(&mut self, status: &Status, usage: Option<Usage>, out: Option<&mut BytesMut>) -> Value {
        let mut events = Events { out, next: &mut self.next_event };
        self.output.finish(status, &mut events);
        let usage = usage.map(|usage| usage_json(&self.model, usage, self.output.reasoning_tokens()));
        let object = self.head.object(status, self.output.items(), usage);
        let name = match status {
            Status::Completed => "response.completed",
            Status::Failed(_) => "response.failed",
            // There is no event for one that was cancelled: its status says it.
            _ => "response.incomplete",
        };
        events.response(name, || object.clone());
        if let Some(open) = self.open.take() {
            open.end(object.clone(), self.output.items().to_vec());
        }
        object
    }
}

impl Drop for ResponseWriter {
    /// Its client went away.
    fn drop(&mut self) {
        if self.open.is_some() {
            self.end(&Status::Cancelled, None, None);
        }
    }
}
