//! A complete answer, understood.

use super::ChatEvent;

/// A call of a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// Names it in the conversation.
    pub id: String,
    /// The tool.
    pub name: String,
    /// JSON text, an object, unless the answer was cut off inside it.
    pub arguments: String,
}

/// The parts of an answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChatMessage {
    /// Chain of thought.
    pub reasoning: String,
    /// Text for the user.
    pub text: String,
    /// Calls, in their order.
    pub calls: Vec<ToolCall>,
}

impl ChatMessage {
    /// Adds an event.
    pub fn push(&mut self, event: ChatEvent) {
        match event {
            ChatEvent::Reasoning(text) => self.reasoning.push_str(&text),
            ChatEvent::Text(text) => self.text.push_str(&text),
            ChatEvent::Call { id, name, .. } => self.calls.push(ToolCall { id, name, arguments: String::new() }),
            ChatEvent::Arguments { text, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments.push_str(&text);
                }
            }
        }
    }
}
