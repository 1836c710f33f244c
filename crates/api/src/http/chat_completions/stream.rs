//! Chunks of a stream.

use std::ops::ControlFlow;

use bytes::BytesMut;
use serde_json::json;
use vllm_scheduler::GeneratedToken;

use super::response::{Envelope, finish_reason, logprobs_json};
use crate::http::{
    chat::{AnswerParser, ChatEvent, OutputPlan},
    sse::{Chunk, Encoder, write_event, write_json},
    usage::Usage,
};
use crate::residency::Lease;

/// Writes chunks: only what stands between the same beginning and the same end is made for each.
pub struct ChatEncoder {
    pub(super) writer: Writer,
    answers: Vec<AnswerState>,
}

struct AnswerState {
    /// None if text is just text.
    parser: Option<AnswerParser>,
    /// Whether its role has been sent.
    started: bool,
}

pub(super) struct Writer {
    pub(super) envelope: Envelope,
    model: Lease,
    include_usage: bool,
    /// A chunk up to the index of its choice.
    head: Vec<u8>,
    /// A chunk after its choice.
    tail: &'static [u8],
}

const NO_REASON: &[u8] = b",\"logprobs\":null,\"finish_reason\":null";

impl ChatEncoder {
    pub fn new(envelope: Envelope, model: Lease, output: &OutputPlan, count: usize, include_usage: bool) -> Self {
        let mut head = BytesMut::new();
        write_event(&mut head, &envelope.chunk(json!([])));
        // The event's `]}` and its end, two newlines, come after the choice.
        head.truncate(head.len() - "]}\n\n".len());
        head.extend_from_slice(b"{\"index\":");
        let tail: &[u8] = if include_usage { b"}],\"usage\":null}\n\n" } else { b"}]}\n\n" };
        let answer = || AnswerState { parser: (!output.is_plain()).then(|| output.parser()), started: false };
        Self {
            writer: Writer { envelope, model, include_usage, head: head.to_vec(), tail },
            answers: (0..count).map(|_| answer()).collect(),
        }
    }
}

impl Encoder for ChatEncoder {
    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) -> ControlFlow<()> {
        let (writer, answer, index) = (&self.writer, &mut self.answers[chunk.index], chunk.index);
        if !std::mem::replace(&mut answer.started, true) {
            writer.role(out, index);
        }
        let mut flow = ControlFlow::Continue(());
        // With log probabilities every token has a chunk, even one whose text is held back.
        let mut tokens = chunk.tokens;
        match &mut answer.parser {
            None if chunk.text.is_empty() => {}
            None => writer.content(out, index, "content", chunk.text, std::mem::take(&mut tokens)),
            Some(parser) => {
                flow = parser.push(chunk.text, |event| writer.event(out, index, &event, std::mem::take(&mut tokens)));
                if chunk.ending.is_some() && flow.is_continue() {
                    parser.finish(|event| writer.event(out, index, &event, std::mem::take(&mut tokens)));
                }
            }
        }
        if !tokens.is_empty() {
            writer.content(out, index, "content", "", tokens);
        }
        if let Some(ending) = &chunk.ending {
            let calls = answer.parser.as_ref().map_or(0, AnswerParser::calls);
            writer.finish(out, index, finish_reason(ending, calls));
        }
        flow
    }

    fn end(&mut self, out: &mut BytesMut, usage: Usage) {
        self.writer.usage(out, usage);
    }
}

impl Writer {
    /// Writes an answer's first chunk.
    pub fn role(&self, out: &mut BytesMut, index: usize) {
        let role = |out: &mut BytesMut| out.extend_from_slice(b"{\"role\":\"assistant\",\"content\":\"\"}");
        self.write(out, index, role, &[NO_REASON]);
    }

    /// Writes an answer's last chunk.
    pub fn finish(&self, out: &mut BytesMut, index: usize, reason: &str) {
        let empty = |out: &mut BytesMut| out.extend_from_slice(b"{}");
        let reason = reason.as_bytes();
        self.write(out, index, empty, &[b",\"logprobs\":null,\"finish_reason\":\"", reason, b"\""]);
    }

    /// Writes the usage, if it was asked for.
    pub fn usage(&self, out: &mut BytesMut, usage: Usage) {
        if self.include_usage {
            let mut chunk = self.envelope.chunk(json!([]));
            chunk["usage"] = usage.to_json();
            write_event(out, &chunk);
        }
    }

    /// Writes a chunk of `delta`, which is JSON.
    fn write(&self, out: &mut BytesMut, index: usize, delta: impl FnOnce(&mut BytesMut), rest: &[&[u8]]) {
        out.extend_from_slice(&self.head);
        write_json(out, &index);
        out.extend_from_slice(b",\"delta\":");
        delta(out);
        for part in rest {
            out.extend_from_slice(part);
        }
        out.extend_from_slice(self.tail);
    }

    /// Writes a chunk of `delta` with the tokens that came since the last one.
    fn delta(&self, out: &mut BytesMut, index: usize, delta: impl FnOnce(&mut BytesMut), tokens: &[GeneratedToken]) {
        if tokens.is_empty() {
            return self.write(out, index, delta, &[NO_REASON]);
        }
        let logprobs = logprobs_json(&self.model, tokens).to_string();
        self.write(out, index, delta, &[b",\"logprobs\":", logprobs.as_bytes(), b",\"finish_reason\":null"]);
    }

    fn content(&self, out: &mut BytesMut, index: usize, field: &str, text: &str, tokens: &[GeneratedToken]) {
        let delta = |out: &mut BytesMut| {
            out.extend_from_slice(b"{");
            write_json(out, field);
            out.extend_from_slice(b":");
            write_json(out, text);
            out.extend_from_slice(b"}");
        };
        self.delta(out, index, delta, tokens);
    }

    /// Writes what an event says, with the tokens that came since the last one.
    pub fn event(&self, out: &mut BytesMut, index: usize, event: &ChatEvent, tokens: &[GeneratedToken]) {
        let delta = match event {
            ChatEvent::Text(text) => return self.content(out, index, "content", text, tokens),
            // Clients know it by one or the other.
            ChatEvent::Reasoning(text) => json!({ "reasoning_content": text, "reasoning": text }),
            ChatEvent::Call { index, id, name } => json!({ "tool_calls": [
                { "index": index, "id": id, "type": "function", "function": { "name": name, "arguments": "" } }
            ] }),
            ChatEvent::Arguments { index, text } => {
                json!({ "tool_calls": [{ "index": index, "function": { "arguments": text } }] })
            }
        };
        self.delta(out, index, |out| write_json(out, &delta), tokens);
    }
}
