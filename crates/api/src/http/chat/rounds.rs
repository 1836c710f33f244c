//! A conversation whose model uses tools of MCP servers: answered in rounds, between which this server runs the tools.

use serde_json::{Value, json};
use tokio::sync::mpsc;
use vllm_scheduler::FinishReason;

use super::{
    ChatEvent, ChatMessage, ChatRequest, PreparedChat, ToolCall,
    server_tools::{RunCall, ServerTools},
    tools::ToolChoice,
};
use crate::{
    answer::Ending,
    http::{ApiError, HttpConfig, blocking, call::Call, choices::Choices, usage::Usage},
    residency::Lease,
};

/// Events that may wait for whoever reads them.
const QUEUE: usize = 64;

/// What happens in a conversation.
#[derive(Debug)]
pub enum Turn {
    /// A piece of an answer for the client. Calls that this server runs are none.
    Event(ChatEvent),
    /// A tool was run.
    Ran(RunCall),
    /// It is over.
    End(Box<Result<Finished, ApiError>>),
}

/// A conversation that is over.
#[derive(Debug)]
pub struct Finished {
    /// All of what was said, and the calls that are for the client to run.
    pub message: ChatMessage,
    /// How the last answer ended.
    pub ending: Ending,
    /// Tokens of all rounds.
    pub usage: Usage,
    /// The tools that were run.
    pub ran: Vec<RunCall>,
}

/// A conversation under way.
#[derive(Debug)]
pub struct Rounds {
    pub model: Lease,
    pub config: HttpConfig,
    pub chat: ChatRequest,
    /// The same, ready for its first round.
    pub first: Option<PreparedChat>,
    pub tools: ServerTools,
    /// The books on the request.
    pub call: Call,
}

/// One round.
struct Round {
    /// What is the client's of it.
    message: ChatMessage,
    /// What is ours to run.
    calls: Vec<ToolCall>,
    ending: Ending,
    usage: Usage,
}

impl Rounds {
    /// Starts it. It ends when nobody listens any more.
    pub fn start(self) -> mpsc::Receiver<Turn> {
        let (out, turns) = mpsc::channel(QUEUE);
        tokio::spawn(async move {
            let gone = out.clone();
            tokio::select! {
                result = self.run(&out) => drop(out.send(Turn::End(Box::new(result))).await),
                // Dropping the round cancels it.
                () = gone.closed() => {}
            }
        });
        turns
    }

    async fn run(mut self, out: &mpsc::Sender<Turn>) -> Result<Finished, ApiError> {
        let mut message = ChatMessage::default();
        let mut usage = Usage::default();
        let mut ran: Vec<RunCall> = Vec::new();
        loop {
            if ran.len() >= self.tools.most_calls() {
                // Enough: it has to make do with what it knows.
                self.chat.tools.choice = ToolChoice::None;
                self.first = None;
            }
            let prepared = match self.first.take() {
                Some(prepared) => prepared,
                None => self.prepare().await?,
            };
            let round = self.round(prepared, out, message.calls.len()).await?;
            usage += round.usage;
            message.reasoning.push_str(&round.message.reasoning);
            message.text.push_str(&round.message.text);
            message.calls.extend(round.message.calls.iter().cloned());
            // With calls of the client's own it is its turn; an answer that was cut off has no calls worth running.
            let done = round.calls.is_empty() || !message.calls.is_empty();
            if done || round.ending.reason != FinishReason::Stop {
                return Ok(Finished { message, ending: round.ending, usage, ran });
            }
            let left = self.tools.most_calls().saturating_sub(ran.len());
            if round.calls.len() > left {
                self.chat.tools.choice = ToolChoice::None;
                continue;
            }
            let results = self.tools.run(&round.calls).await;
            self.chat.messages.push(assistant(&round.message, &round.calls));
            for result in results {
                self.chat.messages.push(result.message());
                ran.push(result.clone());
                let _ = out.send(Turn::Ran(result)).await;
            }
            // Who has to call a tool has done so.
            self.chat.tools.choice = ToolChoice::Auto;
        }
    }

    async fn prepare(&self) -> Result<PreparedChat, ApiError> {
        let (chat, model, config) = (self.chat.clone(), self.model.clone(), self.config);
        blocking(move || chat.prepare(&model, &config)).await
    }

    /// One answer. `before` calls of the client's were in the rounds before it.
    async fn round(&self, prepared: PreparedChat, out: &mpsc::Sender<Turn>, before: usize) -> Result<Round, ApiError> {
        let mut choices = Choices::start(&self.model, self.call.again(), &[prepared.prompt], &prepared.generation)?;
        let mut parser = prepared.output.parser();
        let mut sorter =
            Sorter { tools: &self.tools, before, ours: false, message: ChatMessage::default(), calls: Vec::new() };
        let mut events = Vec::new();
        let mut ending = None;
        while let Some((index, piece)) = choices.next().await {
            ending = piece.end.map(|end| choices.ending(end)).transpose()?;
            let flow = parser.push(&piece.text, |event| events.push(event));
            if flow.is_break() {
                choices.stop(index);
            } else if ending.is_some() {
                parser.finish(|event| events.push(event));
            }
            for event in events.drain(..).filter_map(|event| sorter.sort(event)) {
                let _ = out.send(Turn::Event(event)).await;
            }
        }
        let ending = ending.ok_or_else(|| ApiError::engine("an answer broke off"))?;
        if ending.reason == FinishReason::Abort {
            return Err(ApiError::cancelled());
        }
        let Sorter { message, calls, .. } = sorter;
        Ok(Round { message, calls, ending, usage: choices.usage() })
    }
}

/// Tells our calls from the client's.
struct Sorter<'a> {
    tools: &'a ServerTools,
    before: usize,
    /// Whether the latest call is ours.
    ours: bool,
    message: ChatMessage,
    calls: Vec<ToolCall>,
}

impl Sorter<'_> {
    /// The event for the client, with its calls numbered as it sees them.
    fn sort(&mut self, event: ChatEvent) -> Option<ChatEvent> {
        let event = match event {
            ChatEvent::Call { id, name, .. } if self.tools.has(&name) => {
                self.ours = true;
                self.calls.push(ToolCall { id, name, arguments: String::new() });
                return None;
            }
            ChatEvent::Arguments { text, .. } if self.ours => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments.push_str(&text);
                }
                return None;
            }
            ChatEvent::Call { id, name, .. } => {
                self.ours = false;
                ChatEvent::Call { index: self.before + self.message.calls.len(), id, name }
            }
            ChatEvent::Arguments { text, .. } => {
                ChatEvent::Arguments { index: (self.before + self.message.calls.len()).saturating_sub(1), text }
            }
            other => other,
        };
        self.message.push(event.clone());
        Some(event)
    }
}

/// A round's answer as a message of the conversation.
fn assistant(message: &ChatMessage, calls: &[ToolCall]) -> Value {
    let calls = calls.iter().map(|call| {
        // Templates want an object.
        let arguments = serde_json::from_str(&call.arguments).unwrap_or_else(|_| Value::String(call.arguments.clone()));
        json!({ "id": call.id, "type": "function", "function": { "name": call.name, "arguments": arguments } })
    });
    let mut json = json!({ "role": "assistant", "content": message.text, "tool_calls": calls.collect::<Vec<_>>() });
    if !message.reasoning.is_empty() {
        json["reasoning_content"] = json!(message.reasoning);
    }
    json
}
