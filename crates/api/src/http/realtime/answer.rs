//! What an answer becomes for its client: items, their parts, and the events that tell of them.

use serde_json::{Value, json};

use super::{
    conversation::{Entry, Spoken, new_item_id},
    outbox::Gone,
    response::{Progress, Reporter},
    settings::Settings,
    speak::Said,
};
use crate::http::chat::ChatEvent;

/// A message under way.
struct Message {
    id: String,
    index: usize,
    text: String,
    spoken: Vec<Spoken>,
}

/// A tool call under way.
struct Call {
    id: String,
    index: usize,
    call_id: String,
    name: String,
    arguments: String,
}

/// The items of an answer.
pub struct Answer {
    response: String,
    settings: Settings,
    reporter: Reporter,
    message: Option<Message>,
    call: Option<Call>,
    /// Those that are complete, each with its place.
    items: Vec<(usize, Value)>,
    next: usize,
}

impl Answer {
    /// One without items.
    pub fn new(response: String, settings: Settings, reporter: Reporter) -> Self {
        Self { response, settings, reporter, message: None, call: None, items: Vec::new(), next: 0 }
    }

    /// Its complete items, in order.
    pub fn items(&self) -> Vec<Value> {
        let mut items = self.items.clone();
        items.sort_by_key(|(index, _)| *index);
        items.into_iter().map(|(_, item)| item).collect()
    }

    /// Takes a piece of it. The chain of thought is not part of a talk.
    pub async fn push(&mut self, event: ChatEvent) -> Result<(), Gone> {
        match event {
            ChatEvent::Reasoning(_) => Ok(()),
            ChatEvent::Text(text) => self.text(&text).await,
            ChatEvent::Call { id, name, .. } => {
                self.end_call("completed").await?;
                let call = Call { id: new_item_id(), index: self.index(), call_id: id, name, arguments: String::new() };
                self.added(call.index, call_item(&call, "in_progress")).await?;
                self.call = Some(call);
                Ok(())
            }
            ChatEvent::Arguments { text, .. } => {
                let Some(call) = &mut self.call else { return Ok(()) };
                call.arguments.push_str(&text);
                let fields = json!({
                    "item_id": call.id, "output_index": call.index, "call_id": call.call_id, "delta": text,
                });
                self.event("response.function_call_arguments.delta", fields).await
            }
        }
    }

    async fn text(&mut self, text: &str) -> Result<(), Gone> {
        if self.message.is_none() {
            // Models often begin with a line of nothing.
            if text.trim().is_empty() {
                return Ok(());
            }
            let message = Message { id: new_item_id(), index: self.index(), text: String::new(), spoken: Vec::new() };
            self.added(message.index, self.message_item(&message, "in_progress")).await?;
            let part = self.part("");
            let fields =
                json!({ "item_id": message.id, "output_index": message.index, "content_index": 0, "part": part });
            self.message = Some(message);
            self.event("response.content_part.added", fields).await?;
        }
        let Some(message) = &mut self.message else { return Ok(()) };
        message.text.push_str(text);
        let mut fields = message.place();
        fields["delta"] = json!(text);
        let kind =
            if self.settings.speaks { "response.output_audio_transcript.delta" } else { "response.output_text.delta" };
        self.event(kind, fields).await
    }

    /// Takes a piece of its speech.
    pub async fn say(&mut self, said: &Said) -> Result<(), Gone> {
        let Some(message) = &mut self.message else { return Ok(()) };
        if said.spoken.bytes > 0 || message.spoken.is_empty() {
            message.spoken.push(said.spoken);
        } else if let Some(last) = message.spoken.last_mut() {
            last.seconds += said.spoken.seconds;
        }
        let mut fields = message.place();
        fields["delta"] = json!(self.settings.output.encode(&said.samples));
        self.event("response.output_audio.delta", fields).await
    }

    /// Ends what is under way, `completed` or `incomplete`.
    pub async fn end(&mut self, status: &str) -> Result<(), Gone> {
        if let Some(message) = self.message.take() {
            let place = message.place();
            let with = |name: &str| {
                let mut fields = place.clone();
                fields[name] = json!(message.text);
                fields
            };
            if self.settings.speaks {
                self.event("response.output_audio.done", place.clone()).await?;
                self.event("response.output_audio_transcript.done", with("transcript")).await?;
            } else {
                self.event("response.output_text.done", with("text")).await?;
            }
            let mut fields = place.clone();
            fields["part"] = self.part(&message.text);
            self.event("response.content_part.done", fields).await?;
            let item = self.message_item(&message, status);
            self.done(message.index, item, message.spoken).await?;
        }
        self.end_call(status).await
    }

    async fn end_call(&mut self, status: &str) -> Result<(), Gone> {
        let Some(call) = self.call.take() else { return Ok(()) };
        let fields = json!({
            "item_id": call.id, "output_index": call.index, "call_id": call.call_id, "name": call.name,
            "arguments": call.arguments,
        });
        self.event("response.function_call_arguments.done", fields).await?;
        self.done(call.index, call_item(&call, status), Vec::new()).await
    }

    fn index(&mut self) -> usize {
        self.next += 1;
        self.next - 1
    }

    async fn event(&self, kind: &'static str, mut fields: Value) -> Result<(), Gone> {
        fields["response_id"] = json!(self.response);
        self.reporter.send(Progress::Event(kind, fields)).await
    }

    async fn added(&self, index: usize, item: Value) -> Result<(), Gone> {
        self.event("response.output_item.added", json!({ "output_index": index, "item": item })).await?;
        self.reporter.send(Progress::Added(item)).await
    }

    async fn done(&mut self, index: usize, item: Value, spoken: Vec<Spoken>) -> Result<(), Gone> {
        self.event("response.output_item.done", json!({ "output_index": index, "item": item })).await?;
        self.items.push((index, item.clone()));
        let id = item["id"].as_str().unwrap_or_default().to_owned();
        self.reporter.send(Progress::Done(Entry { spoken, ..Entry::new(id, item) })).await
    }

    fn part(&self, text: &str) -> Value {
        if self.settings.speaks {
            json!({ "type": "audio", "transcript": text })
        } else {
            json!({ "type": "text", "text": text })
        }
    }

    fn message_item(&self, message: &Message, status: &str) -> Value {
        let part = match (message.text.is_empty(), self.settings.speaks) {
            (true, _) => json!([]),
            (false, true) => json!([{ "type": "output_audio", "transcript": message.text }]),
            (false, false) => json!([{ "type": "output_text", "text": message.text }]),
        };
        json!({
            "id": message.id, "object": "realtime.item", "type": "message", "status": status, "role": "assistant",
            "content": part,
        })
    }
}

impl Message {
    fn place(&self) -> Value {
        json!({ "item_id": self.id, "output_index": self.index, "content_index": 0 })
    }
}

fn call_item(call: &Call, status: &str) -> Value {
    json!({
        "id": call.id, "object": "realtime.item", "type": "function_call", "status": status, "call_id": call.call_id,
        "name": call.name, "arguments": call.arguments,
    })
}
