//! An answer becoming items.

use std::{ops::ControlFlow, sync::Arc};

use serde_json::json;
use vllm_scheduler::GeneratedToken;

use super::{
    events::{Events, Place},
    items::new_id,
    object::Status,
    open_item::{OpenItem, OpenKind},
    request::Shape,
    store::Item,
    tally::{Part, Tally},
};
use crate::{
    http::{
        chat::{AnswerParser, ChatEvent, OutputPlan},
        logprobs::chat_entry,
    },
    residency::Lease,
};

/// The items of one answer, as far as they have come.
#[derive(Debug)]
pub struct Output {
    parser: AnswerParser,
    /// Nothing more is wanted of the answer.
    over: bool,
    items: Items,
}

#[derive(Debug)]
struct Items {
    shape: Shape,
    model: Lease,
    done: Vec<Item>,
    open: Option<OpenItem>,
    /// White space after another item: the start of a text, or of nothing.
    blank: String,
    blank_tokens: Vec<GeneratedToken>,
    tally: Tally,
}

impl Output {
    /// Nothing yet.
    pub fn new(plan: &OutputPlan, shape: Shape, model: Lease) -> Self {
        let tally = Tally::new(plan.reasoning.is_some_and(|(_, open)| open));
        let (done, blank) = (Vec::new(), String::new());
        Self {
            parser: plan.parser(),
            over: false,
            items: Items { shape, model, done, open: None, blank, blank_tokens: Vec::new(), tally },
        }
    }

    /// Takes more text, with the tokens it came with. After `Break` nothing more is wanted.
    pub fn push(
        &mut self,
        text: &str,
        tokens: &[GeneratedToken],
        count: usize,
        events: &mut Events<'_>,
    ) -> ControlFlow<()> {
        let Self { parser, items, over } = self;
        items.tally.take_in(count, tokens);
        if *over {
            return ControlFlow::Continue(());
        }
        let flow = parser.push(text, |event| items.event(&event, events));
        *over = flow.is_break();
        flow
    }

    /// The answer has ended.
    pub fn finish(&mut self, status: &Status, events: &mut Events<'_>) {
        let Self { parser, items, over } = self;
        if !*over {
            parser.finish(|event| items.event(&event, events));
        }
        let rest = items.tally.finish();
        items.tokens(&rest, events);
        let complete = *status == Status::Completed;
        // Even an answer without a word is a message.
        if complete && items.done.is_empty() && items.open.is_none() {
            let blank = std::mem::take(&mut items.blank);
            items.text(&blank, Vec::new(), events);
        }
        items.close(if complete { "completed" } else { "incomplete" }, events);
    }

    /// All items that are complete.
    #[must_use]
    pub fn items(&self) -> &[Item] {
        &self.items.done
    }

    /// Tokens of the chain of thought.
    #[must_use]
    pub fn reasoning_tokens(&self) -> usize {
        self.items.tally.reasoning()
    }
}

impl Items {
    fn event(&mut self, event: &ChatEvent, events: &mut Events<'_>) {
        match event {
            ChatEvent::Reasoning(text) => {
                self.tally.comes_of(Part::Reasoning);
                if !self.shape.hide_reasoning {
                    self.reasoning(text, events);
                }
            }
            ChatEvent::Text(text) => {
                let tokens = self.tally.comes_of(Part::Text);
                self.text(text, tokens, events);
            }
            ChatEvent::Call { id, name, .. } => {
                self.tally.comes_of(Part::Call);
                self.call(id, name, events);
            }
            ChatEvent::Arguments { text, .. } => {
                self.tally.comes_of(Part::Call);
                self.arguments(text, events);
            }
        }
    }

    fn reasoning(&mut self, text: &str, events: &mut Events<'_>) {
        if !self.is_open(&OpenKind::Reasoning) {
            self.open("rs", OpenKind::Reasoning, events);
        }
        let index = self.done.len();
        if let Some(open) = &mut self.open {
            open.text.push_str(text);
            events.delta(Place { index, id: &open.id }, "response.reasoning_text.delta", text, None);
        }
    }

    fn text(&mut self, text: &str, tokens: Vec<GeneratedToken>, events: &mut Events<'_>) {
        if self.is_open(&OpenKind::Message) {
            self.more_text(text, &tokens, events);
            return;
        }
        // Models part their calls by white space: that alone makes no message.
        self.blank.push_str(text);
        self.blank_tokens.extend(tokens);
        let separates = self.open.is_some() || !self.done.is_empty();
        if separates && self.blank.trim().is_empty() {
            return;
        }
        let (text, tokens) = (std::mem::take(&mut self.blank), std::mem::take(&mut self.blank_tokens));
        self.open("msg", OpenKind::Message, events);
        self.more_text(&text, &tokens, events);
    }

    fn more_text(&mut self, text: &str, tokens: &[GeneratedToken], events: &mut Events<'_>) {
        let index = self.done.len();
        let Some(open) = &mut self.open else { return };
        let known = open.logprobs.len();
        if self.shape.logprobs {
            let tokenizer = &self.model.tokenizer;
            open.logprobs.extend(tokens.iter().filter_map(|token| chat_entry(tokenizer, token)));
        }
        open.text.push_str(text);
        let logprobs = open.logprobs.get(known..).unwrap_or_default();
        if !(text.is_empty() && logprobs.is_empty()) {
            events.delta(Place { index, id: &open.id }, "response.output_text.delta", text, Some(logprobs));
        }
    }

    /// Tokens that end a text without adding to it.
    fn tokens(&mut self, tokens: &[GeneratedToken], events: &mut Events<'_>) {
        if self.is_open(&OpenKind::Message) {
            self.more_text("", tokens, events);
        }
    }

    fn call(&mut self, call_id: &str, name: &str, events: &mut Events<'_>) {
        let (call_id, name) = (call_id.to_owned(), name.to_owned());
        if self.shape.custom.contains(&name) {
            self.open("ctc", OpenKind::Custom { call_id, name }, events);
        } else {
            self.open("fc", OpenKind::Call { call_id, name }, events);
        }
    }

    fn arguments(&mut self, text: &str, events: &mut Events<'_>) {
        let index = self.done.len();
        let Some(open) = &mut self.open else { return };
        open.text.push_str(text);
        if matches!(open.kind, OpenKind::Call { .. }) && !text.is_empty() {
            events.call_delta(Place { index, id: &open.id }, "response.function_call_arguments.delta", text);
        }
    }

    fn is_open(&self, kind: &OpenKind) -> bool {
        self.open.as_ref().is_some_and(|open| std::mem::discriminant(&open.kind) == std::mem::discriminant(kind))
    }

    /// Begins an item; the one before it is complete by that.
    fn open(&mut self, prefix: &str, kind: OpenKind, events: &mut Events<'_>) {
        self.close("completed", events);
        self.blank.clear();
        self.blank_tokens.clear();
        let open = OpenItem { id: new_id(prefix), text: String::new(), logprobs: Vec::new(), kind };
        let place = Place { index: self.done.len(), id: &open.id };
        events.item_added(place.index, || open.item("in_progress", &self.shape));
        if let Some(part) = open.part() {
            events.part_added(place, || part);
        }
        self.open = Some(open);
    }

    fn close(&mut self, status: &str, events: &mut Events<'_>) {
        let Some(open) = self.open.take() else { return };
        let place = Place { index: self.done.len(), id: &open.id };
        let text = &open.text;
        match open.kind {
            OpenKind::Reasoning => {
                events.done(place, "response.reasoning_text.done", || json!({ "content_index": 0, "text": text }));
            }
            OpenKind::Message => events.done(
                place,
                "response.output_text.done",
                || json!({ "content_index": 0, "text": text, "logprobs": open.logprobs }),
            ),
            OpenKind::Call { .. } => {
                events.done(place, "response.function_call_arguments.done", || json!({ "arguments": text }));
            }
            OpenKind::Custom { .. } => {
                let input = open.input();
                events.call_delta(place, "response.custom_tool_call_input.delta", &input);
                events.done(place, "response.custom_tool_call_input.done", || json!({ "input": input }));
            }
        }
        if let Some(part) = open.part() {
            events.part_done(place, &part);
        }
        let item = open.item(status, &self.shape);
        events.item_done(place.index, &item);
        self.done.push(Arc::new(item));
    }
}
