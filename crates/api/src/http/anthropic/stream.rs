//! Events of a stream.

use std::ops::ControlFlow;

use bytes::BytesMut;
use serde_json::{Value, json};
use vllm_scheduler::FinishReason;

use super::{
    error::error_json,
    response::{Envelope, text_block, usage_json},
    thinking::sign,
};
use crate::{
    answer::Ending,
    http::{
        ApiError,
        chat::{AnswerParser, ChatEvent, OutputPlan},
        sse::{Chunk, Encoder, write_json, write_named_event},
        usage::Usage,
    },
};

/// Writes an answer as content blocks, one after the other.
pub struct MessageEncoder {
    envelope: Envelope,
    request_id: String,
    /// Of the prompt.
    prompt_tokens: usize,
    /// None if text is just text.
    parser: Option<AnswerParser>,
    blocks: Blocks,
    ending: Option<Ending>,
}

impl MessageEncoder {
    pub fn new(envelope: Envelope, request_id: String, prompt_tokens: usize, output: &OutputPlan) -> Self {
        let blocks = Blocks { omit_thinking: envelope.omit_thinking, ..Blocks::default() };
        let parser = (!output.is_plain()).then(|| output.parser());
        Self { envelope, request_id, prompt_tokens, parser, blocks, ending: None }
    }
}

impl Encoder for MessageEncoder {
    /// How much of the prompt is in the cache is not known yet: all of it counts as input until the end says better.
    fn start(&mut self, out: &mut BytesMut) {
        let usage = Usage { prompt_tokens: self.prompt_tokens, ..Usage::default() };
        let message = self.envelope.message(Vec::new(), usage);
        write_named_event(out, "message_start", &json!({ "type": "message_start", "message": message }));
    }

    fn chunk(&mut self, out: &mut BytesMut, chunk: Chunk<'_>) -> ControlFlow<()> {
        let mut flow = ControlFlow::Continue(());
        match &mut self.parser {
            None => self.blocks.text(out, chunk.text),
            Some(parser) => {
                flow = parser.push(chunk.text, |event| self.blocks.event(out, &event));
                if chunk.ending.is_some() && flow.is_continue() {
                    parser.finish(|event| self.blocks.event(out, &event));
                }
            }
        }
        self.ending = chunk.ending.or_else(|| self.ending.take());
        flow
    }

    fn end(&mut self, out: &mut BytesMut, usage: Usage) {
        let Some(ending) = self.ending.take() else {
            return self.error(out, &ApiError::engine("the answer broke off"));
        };
        if ending.reason == FinishReason::Abort {
            // There is no stop reason for it.
            return self.error(out, &ApiError::cancelled());
        }
        self.blocks.end(out);
        let calls = self.parser.as_ref().map_or(0, AnswerParser::calls);
        let (reason, sequence) = self.envelope.stop_reason(&ending, calls);
        let delta = json!({
            "type": "message_delta",
            "delta": { "stop_reason": reason, "stop_sequence": sequence },
            "usage": usage_json(usage),
        });
        write_named_event(out, "message_delta", &delta);
        write_named_event(out, "message_stop", &json!({ "type": "message_stop" }));
    }

    fn error(&mut self, out: &mut BytesMut, error: &ApiError) {
        write_named_event(out, "error", &error_json(error, Some(&self.request_id)));
    }

    fn close(&mut self, _out: &mut BytesMut) {}

    fn heartbeat(&self) -> &'static [u8] {
        b"event: ping\ndata: {\"type\":\"ping\"}\n\n"
    }
}

/// The content blocks of an answer.
#[derive(Default)]
struct Blocks {
    omit_thinking: bool,
    open: Option<Open>,
    /// Blocks begun.
    count: usize,
    /// Blanks that would begin a block of text: models write them between their thoughts and what they do next.
    blanks: String,
}

/// The block that is being written.
#[derive(PartialEq)]
enum Open {
    Text,
    /// With all of it so far, to be signed.
    Thinking(String),
    ToolUse,
}

impl Blocks {
    fn event(&mut self, out: &mut BytesMut, event: &ChatEvent) {
        match event {
            ChatEvent::Text(text) => self.text(out, text),
            ChatEvent::Reasoning(text) => self.thinking(out, text),
            ChatEvent::Call { id, name, .. } => {
                let block = json!({ "type": "tool_use", "id": id, "name": name, "input": {} });
                self.begin(out, Open::ToolUse, &block);
            }
            ChatEvent::Arguments { text, .. } => self.delta(out, "input_json_delta", "partial_json", text),
        }
    }

    fn text(&mut self, out: &mut BytesMut, text: &str) {
        if self.open == Some(Open::Text) {
            return self.delta(out, "text_delta", "text", text);
        }
        self.blanks.push_str(text);
        if !text.trim().is_empty() {
            let text = std::mem::take(&mut self.blanks);
            self.begin(out, Open::Text, &text_block(""));
            self.delta(out, "text_delta", "text", &text);
        }
    }

    fn thinking(&mut self, out: &mut BytesMut, text: &str) {
        if !matches!(self.open, Some(Open::Thinking(_))) {
            let block = json!({ "type": "thinking", "thinking": "", "signature": "" });
            self.begin(out, Open::Thinking(String::new()), &block);
        }
        if let Some(Open::Thinking(thought)) = &mut self.open {
            thought.push_str(text);
        }
        if !self.omit_thinking {
            self.delta(out, "thinking_delta", "thinking", text);
        }
    }

    fn begin(&mut self, out: &mut BytesMut, open: Open, block: &Value) {
        self.stop(out);
        self.blanks.clear();
        self.open = Some(open);
        let event = json!({ "type": "content_block_start", "index": self.count, "content_block": block });
        write_named_event(out, "content_block_start", &event);
        self.count += 1;
    }

    fn stop(&mut self, out: &mut BytesMut) {
        match self.open.take() {
            None => return,
            Some(Open::Thinking(thought)) => {
                self.delta(out, "signature_delta", "signature", &sign(&thought, self.omit_thinking));
            }
            Some(Open::Text | Open::ToolUse) => {}
        }
        let event = json!({ "type": "content_block_stop", "index": self.count.saturating_sub(1) });
        write_named_event(out, "content_block_stop", &event);
    }

    fn end(&mut self, out: &mut BytesMut) {
        if self.count == 0 {
            // As in a whole response.
            self.begin(out, Open::Text, &text_block(""));
        }
        self.stop(out);
    }

    /// Writes what comes once a token without building a tree for it.
    fn delta(&self, out: &mut BytesMut, kind: &str, field: &str, text: &str) {
        if text.is_empty() {
            return;
        }
        out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
        write_json(out, &self.count.saturating_sub(1));
        for part in [",\"delta\":{\"type\":\"", kind, "\",\"", field, "\":"] {
            out.extend_from_slice(part.as_bytes());
        }
        write_json(out, text);
        out.extend_from_slice(b"}}\n\n");
    }
}
