//! The events of a stream, numbered.

use bytes::BytesMut;
use serde::Serialize;
use serde_json::{Value, json};

use crate::http::sse::write_named_event;

/// Writes events as they happen, or only lets them happen if nobody listens.
#[derive(Debug)]
pub struct Events<'a> {
    /// Where to; `None`: nowhere.
    pub out: Option<&'a mut BytesMut>,
    /// Number of the next one.
    pub next: &'a mut u64,
}

/// Where in a response something happens.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Item, by its number.
    pub index: usize,
    /// Item, by its id.
    pub id: &'a str,
}

/// What every token makes: written without a tree.
#[derive(Serialize)]
struct Delta<'a> {
    r#type: &'static str,
    sequence_number: u64,
    item_id: &'a str,
    output_index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    content_index: Option<usize>,
    delta: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    logprobs: Option<&'a [Value]>,
}

impl Events<'_> {
    /// Of the response as a whole: `response.created` and the like.
    pub fn response(&mut self, name: &'static str, response: impl FnOnce() -> Value) {
        self.write(name, || json!({ "response": response() }));
    }

    /// An item begins.
    pub fn item_added(&mut self, index: usize, item: impl FnOnce() -> Value) {
        self.write("response.output_item.added", || json!({ "output_index": index, "item": item() }));
    }

    /// An item is complete.
    pub fn item_done(&mut self, index: usize, item: &Value) {
        self.write("response.output_item.done", || json!({ "output_index": index, "item": item }));
    }

    /// The part of an item begins; no item here has more than one.
    pub fn part_added(&mut self, place: Place<'_>, part: impl FnOnce() -> Value) {
        self.at(place, "response.content_part.added", || json!({ "content_index": 0, "part": part() }));
    }

    /// The part of an item is complete.
    pub fn part_done(&mut self, place: Place<'_>, part: &Value) {
        self.at(place, "response.content_part.done", || json!({ "content_index": 0, "part": part }));
    }

    /// An item's text, reasoning or arguments are complete.
    pub fn done(&mut self, place: Place<'_>, name: &'static str, fields: impl FnOnce() -> Value) {
        self.at(place, name, fields);
    }

    /// More of a part's text.
    pub fn delta(&mut self, place: Place<'_>, name: &'static str, delta: &str, logprobs: Option<&[Value]>) {
        self.write_delta(place, name, Some(0), delta, logprobs);
    }

    /// More of a call's arguments, which are no part.
    pub fn call_delta(&mut self, place: Place<'_>, name: &'static str, delta: &str) {
        self.write_delta(place, name, None, delta, None);
    }

    fn write_delta(
        &mut self,
        place: Place<'_>,
        name: &'static str,
        content_index: Option<usize>,
        delta: &str,
        logprobs: Option<&[Value]>,
    ) {
        if let Some(out) = &mut self.out {
            let (item_id, output_index, sequence_number) = (place.id, place.index, *self.next);
            let delta = Delta { r#type: name, sequence_number, item_id, output_index, content_index, delta, logprobs };
            write_named_event(out, name, &delta);
            *self.next += 1;
        }
    }

    fn at(&mut self, place: Place<'_>, name: &'static str, fields: impl FnOnce() -> Value) {
        self.write(name, || {
            let mut event = json!({ "item_id": place.id, "output_index": place.index });
            extend(&mut event, fields());
            event
        });
    }

    fn write(&mut self, name: &'static str, fields: impl FnOnce() -> Value) {
        if let Some(out) = &mut self.out {
            let mut event = json!({ "type": name, "sequence_number": *self.next });
            extend(&mut event, fields());
            write_named_event(out, name, &event);
            *self.next += 1;
        }
    }
}

fn extend(event: &mut Value, fields: Value) {
    if let (Value::Object(event), Value::Object(fields)) = (event, fields) {
        event.extend(fields);
    }
}
