//! What comes out.

/// A piece of an answer, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutputEvent {
    /// More of the chain of thought.
    Reasoning(String),
    /// More of the text for the user.
    Text(String),
    /// A tool call begins. Whatever [`Arguments`](Self::Arguments) follow, up to the next of these, are its own.
    Call {
        /// Name of the tool.
        name: String,
        /// The call's id, in formats that have one.
        id: Option<String>,
    },
    /// More of the latest call's arguments, as JSON text. All of them together are a JSON object, unless the answer
    /// was cut off inside the call.
    Arguments(String),
}
