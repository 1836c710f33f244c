//! Chat templates: messages in, prompt out.

mod chat_template;
mod clock;
mod environment;
mod error;
mod generation_tag;
mod json_dumps;
mod media;
mod messages;
mod python_methods;

pub use chat_template::{ChatTemplate, RenderRequest, TemplateVariables};
pub use error::TemplateError;
pub use media::MediaMarks;
