//! What can go wrong between messages and prompt. All of it is about the caller's messages or the model's template.

use std::error::Error as _;
use std::fmt;

use minijinja::{Error, ErrorKind};

/// Why a chat template could not be loaded or rendered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TemplateError {
    /// The template is not valid Jinja.
    #[error("the model's chat template is invalid, line {line}: {message}{}", quoted(quote))]
    Syntax {
        /// Line in the template, from 1.
        line: usize,
        /// What the parser says.
        message: String,
        /// That line of the template.
        quote: String,
    },
    /// The template called `raise_exception`: the messages are not as this model wants them.
    #[error("the model's chat template rejects these messages: {message}")]
    Raised {
        /// The template's own words.
        message: String,
    },
    /// The template failed on these messages.
    #[error("the model's chat template failed on these messages, line {line}: {message}{}", quoted(quote))]
    Render {
        /// Line in the template, from 1; 0 if unknown.
        line: usize,
        /// What went wrong.
        message: String,
        /// That line of the template.
        quote: String,
    },
    /// The template ran for longer than any honest one.
    #[error(
        "the model's chat template did not finish within {steps} steps; it loops without end, or there are too many messages"
    )]
    TooManySteps {
        /// The limit.
        steps: u64,
    },
    /// The prompt grew beyond the limit.
    #[error("the model's chat template made a prompt of more than {bytes} bytes; send fewer or shorter messages")]
    TooLong {
        /// The limit.
        bytes: usize,
    },
    /// There is nothing to render.
    #[error("messages is empty; a chat needs at least one message")]
    NoMessages,
    /// A message is not an object.
    #[error("messages[{index}] is {found}; a message is an object with role and content")]
    NotAMessage {
        /// Position in the list.
        index: usize,
        /// What stands there instead.
        found: &'static str,
    },
    /// A message's content has parts that a text template has no place for.
    #[error("messages[{index}].content[{part}] is of type {kind:?}, but this model's chat template takes text only")]
    NotText {
        /// Position of the message.
        index: usize,
        /// Position of the part in its content.
        part: usize,
        /// Its `type`.
        kind: String,
    },
    /// A template argument has the name of something that has a place of its own.
    #[error("chat_template_kwargs.{name} cannot be set there; use the request's own field")]
    ReservedVariable {
        /// The name.
        name: String,
    },
    /// A checkpoint has templates, but none to use when nothing else is asked for.
    #[error("the model has chat templates named {names}, but none named \"default\"")]
    NoDefault {
        /// The names there are.
        names: String,
    },
    /// The checkpoint's template files cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] vllm_checkpoint::Error),
}

fn quoted(line: &str) -> String {
    if line.is_empty() { String::new() } else { format!(": `{line}`") }
}

/// What `raise_exception` throws; carried as the source of an engine error so that its text stays exact.
#[derive(Debug)]
pub(crate) struct Raised(pub(crate) String);

impl fmt::Display for Raised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Raised {}

/// Longest part of a template line that an error quotes, in characters.
const MAX_QUOTE: usize = 160;

/// The given line of the template, if it is short enough to help.
fn quote(source: &str, line: usize) -> String {
    let text = line.checked_sub(1).and_then(|line| source.lines().nth(line)).unwrap_or("").trim();
    match text.char_indices().nth(MAX_QUOTE) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// The engine's own words, innermost cause included.
fn message(error: &Error) -> String {
    let mut message = match error.detail() {
        Some(detail) => format!("{}: {detail}", error.kind()),
        None => error.kind().to_string(),
    };
    let mut source = error.source();
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    message
}

impl TemplateError {
    pub(crate) fn syntax(error: &Error, source: &str) -> Self {
        let line = error.line().unwrap_or(0);
        Self::Syntax { line, message: message(error), quote: quote(source, line) }
    }

    pub(crate) fn render(error: &Error, source: &str, steps: u64) -> Self {
        let mut cause = error.source();
        while let Some(inner) = cause {
            if let Some(Raised(message)) = inner.downcast_ref() {
                return Self::Raised { message: message.clone() };
            }
            cause = inner.source();
        }
        let line = error.line().unwrap_or(0);
        match error.kind() {
            ErrorKind::OutOfFuel => Self::TooManySteps { steps },
            _ => Self::Render { line, message: message(error), quote: quote(source, line) },
        }
    }
}
