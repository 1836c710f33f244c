//! A model's chat template, compiled.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;

use minijinja::Environment;
use minijinja::value::{Serde, Value as Variable};
use serde_json::{Map, Value};
use vllm_checkpoint::Checkpoint;

use super::clock::Clock;
use super::environment::{self, MAX_STEPS};
use super::error::TemplateError;
use super::generation_tag;
use super::media::{self, MediaMarks};
use super::messages::{self, ContentForm, ToolCallForm};
use crate::tokenizer::Tokenizer;

/// The template used when no other fits.
const DEFAULT: &str = "default";
/// The template used when there are tools, in checkpoints that have one of its own for that.
const TOOL_USE: &str = "tool_use";
/// Longest prompt in bytes. A million tokens are some four megabytes.
const MAX_PROMPT: usize = 64 << 20;

/// Variables that every template of a model sees: `bos_token`, `eos_token`, `pad_token`, `unk_token`, …
pub type TemplateVariables = BTreeMap<String, String>;

/// What to render.
#[derive(Debug, Clone, Copy)]
pub struct RenderRequest<'a> {
    /// Messages as in OpenAI's API: objects with `role` and `content`, and `tool_calls` where there were some.
    pub messages: &'a [Value],
    /// Tools the model may call, as in OpenAI's API.
    pub tools: Option<&'a [Value]>,
    /// Whether the prompt ends where the assistant's answer begins.
    pub add_generation_prompt: bool,
    /// Further variables for the template (`chat_template_kwargs`): `enable_thinking`, `documents`, …
    pub extra: &'a Map<String, Value>,
}

/// A model's chat template. Immutable; renders from any number of threads at once.
///
/// A template is a program that comes with a model. It reaches nothing outside and its steps, recursion and prompt are
/// bounded, but not the memory and nesting of what it builds on the way: take templates from models you chose to run,
/// never from a request.
///
/// ```
/// # use vllm_text::{ChatTemplate, RenderRequest, TemplateVariables};
/// # use serde_json::{Map, json};
/// # fn main() -> Result<(), vllm_text::TemplateError> {
/// let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}
/// {%- if add_generation_prompt %}<assistant>{% endif %}";
/// let variables = TemplateVariables::from([("eos_token".to_owned(), "</s>".to_owned())]);
/// let template = ChatTemplate::new(source, variables)?;
/// let prompt = template.render(&RenderRequest {
///     messages: &[json!({"role": "user", "content": "Hi"})],
///     tools: None,
///     add_generation_prompt: true,
///     extra: &Map::new(),
/// })?;
/// assert_eq!(prompt, "<user>Hi</s><assistant>");
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct ChatTemplate {
    clock: Clock,
    variables: TemplateVariables,
    default: Compiled,
    tool_use: Option<Compiled>,
}

/// One template and what was found out about it.
#[derive(Debug)]
struct Compiled {
    env: Environment<'static>,
    source: String,
    content: OnceLock<ContentForm>,
    tool_calls: OnceLock<ToolCallForm>,
    shows_tools: OnceLock<bool>,
    shows_tool_calls: OnceLock<bool>,
}

impl ChatTemplate {
    /// The chat template of a checkpoint; `None` if it has none (a base model).
    ///
    /// # Errors
    /// [`TemplateError::Syntax`], [`TemplateError::NoDefault`], [`TemplateError::Checkpoint`].
    pub fn load(checkpoint: &Checkpoint, tokenizer: &Tokenizer) -> Result<Option<Self>, TemplateError> {
        let templates = checkpoint.chat_templates()?;
        if templates.is_empty() {
            return Ok(None);
        }
        let Some(source) = templates.get(DEFAULT) else {
            let names = templates.into_keys().collect::<Vec<_>>().join(", ");
            return Err(TemplateError::NoDefault { names });
        };
        let special = checkpoint.special_tokens();
        let roles = [
            ("bos_token", special.bos),
            ("eos_token", special.eos),
            ("pad_token", special.pad),
            ("unk_token", special.unk),
        ];
        let variables = roles
            .into_iter()
            .filter_map(|(name, token)| {
                let token = token?;
                Some((name.to_owned(), token.text.or_else(|| tokenizer.id_to_token(token.id?))?))
            })
            .collect();
        let mut template = Self::new(source, variables)?;
        if let Some(source) = templates.get(TOOL_USE) {
            template = template.with_tool_use(source)?;
        }
        Ok(Some(template))
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn new(source: &str, variables: TemplateVariables) -> Result<Self, TemplateError> {
        let clock = Clock::System;
        Ok(Self { clock, variables, default: Compiled::new(source, clock)?, tool_use: None })
    }

    /// Adds the template to use when a request has tools.
    ///
    /// # Errors
    /// [`TemplateError::Syntax`].
    pub fn with_tool_use(mut self, source: &str) -> Result<Self, TemplateError> {
        self.tool_use = Some(Compiled::new(source, self.clock)?);
        Ok(self)
    }

    /// Makes `strftime_now` tell this moment (seconds since 1970, UTC) instead of the machine's time: for prompts that
    /// must not change from day to day.
    ///
    /// # Errors
    /// None that [`new`](Self::new) had not already reported.
    pub fn with_fixed_time(mut self, seconds: i64) -> Result<Self, TemplateError> {
        self.clock = Clock::Fixed(seconds);
        self.default = Compiled::new(&self.default.source, self.clock)?;
        self.tool_use = self.tool_use.map(|template| Compiled::new(&template.source, self.clock)).transpose()?;
        Ok(self)
    }

    /// The default template's text.
    pub fn source(&self) -> &str {
        &self.default.source
    }

    /// Writes the prompt for `request`.
    ///
    /// Messages may be exactly as OpenAI's clients send them: content parts, JSON text in `arguments` and the several
    /// names of reasoning are brought into the form the template reads.
    ///
    /// # Errors
    /// All are the caller's to know: [`TemplateError::Raised`] and [`TemplateError::Render`] quote the template.
    pub fn render(&self, request: &RenderRequest<'_>) -> Result<String, TemplateError> {
        self.render_with_media(request, &MediaMarks::default())
    }

    /// [`render`](Self::render) for messages with parts `{"type": "image"}` and `{"type": "video"}` among the text parts of
    /// their content. The prompt has a mark for each: the template's own, or in its place `marks`' where it has none.
    ///
    /// ```
    /// # use vllm_text::{ChatTemplate, MediaMarks, RenderRequest, TemplateVariables};
    /// # use serde_json::{Map, json};
    /// # fn main() -> Result<(), vllm_text::TemplateError> {
    /// let template = ChatTemplate::new("{% for m in messages %}{{ m.content }}{% endfor %}", TemplateVariables::new())?;
    /// let messages = [json!({"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]})];
    /// let request =
    ///     RenderRequest { messages: &messages, tools: None, add_generation_prompt: false, extra: &Map::new() };
    /// let marks = MediaMarks { image: "<image>", video: "" };
    /// assert_eq!(template.render_with_media(&request, &marks)?, "<image>\nWhat is it?");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_with_media(
        &self,
        request: &RenderRequest<'_>,
        marks: &MediaMarks<'_>,
    ) -> Result<String, TemplateError> {
        for name in ["messages", "tools", "add_generation_prompt"] {
            if request.extra.contains_key(name) {
                return Err(TemplateError::ReservedVariable { name: name.to_owned() });
            }
        }
        let tools = request.tools.filter(|tools| !tools.is_empty());
        let template = match &self.tool_use {
            Some(tool_use) if tools.is_some() => tool_use,
            _ => &self.default,
        };
        let probe = |messages: &[Value], tools: Option<&[Value]>| self.probe(template, messages, tools);
        let tool_calls = || *template.tool_calls.get_or_init(|| messages::probe_tool_calls(&probe));
        let messages = messages::fit(
            request.messages,
            || *template.content.get_or_init(|| messages::probe_content(&probe)),
            tool_calls,
            marks,
            |role, kind| media::is_shown(&probe, role, kind, marks, tool_calls()),
        )?;
        self.run(template, &messages, &RenderRequest { tools, ..*request })
    }

    /// Whether prompts tell the model of the tools it has. Many templates ignore them without a word.
    pub fn shows_tools(&self) -> bool {
        let template = self.tool_use.as_ref().unwrap_or(&self.default);
        *template.shows_tools.get_or_init(|| {
            messages::probe_tools(&|messages: &[Value], tools: Option<&[Value]>| self.probe(template, messages, tools))
        })
    }

    /// Whether prompts show the calls that the assistant made earlier, and what came of them.
    pub fn shows_tool_calls(&self) -> bool {
        let template = self.tool_use.as_ref().unwrap_or(&self.default);
        *template.shows_tool_calls.get_or_init(|| {
            messages::shows_tool_calls(&|messages: &[Value], tools: Option<&[Value]>| {
                self.probe(template, messages, tools)
            })
        })
    }

    /// Asks for a template's own nature, so without a request's variables.
    fn probe(&self, template: &Compiled, messages: &[Value], tools: Option<&[Value]>) -> Option<String> {
        let request = RenderRequest { messages, tools, add_generation_prompt: false, extra: &Map::new() };
        self.run(template, messages, &request).ok()
    }

    /// Renders `messages` as they are, and the rest of `request`.
    fn run(
        &self,
        template: &Compiled,
        messages: &[Value],
        request: &RenderRequest<'_>,
    ) -> Result<String, TemplateError> {
        let mut context: BTreeMap<&str, Variable> =
            self.variables.iter().map(|(name, value)| (name.as_str(), Variable::from(value.as_str()))).collect();
        // As transformers has it: these are always defined, if only as None.
        context.insert("documents", Variable::from(()));
        for (name, value) in request.extra {
            context.insert(name, Variable::from(Serde(value)));
        }
        context.insert("messages", Variable::from(Serde(messages)));
        context.insert("tools", Variable::from(Serde(request.tools)));
        context.insert("add_generation_prompt", Variable::from(request.add_generation_prompt));
        template.run(Variable::from_pairs(context))
    }
}

impl Compiled {
    fn new(source: &str, clock: Clock) -> Result<Self, TemplateError> {
        let syntax = |error: minijinja::Error| TemplateError::syntax(&error, source);
        let mut env = environment::new(clock).map_err(syntax)?;
        env.add_template_owned(DEFAULT, generation_tag::rewrite(source).into_owned()).map_err(syntax)?;
        Ok(Self {
            env,
            source: source.to_owned(),
            content: OnceLock::new(),
            tool_calls: OnceLock::new(),
            shows_tools: OnceLock::new(),
            shows_tool_calls: OnceLock::new(),
        })
    }

    fn run(&self, context: Variable) -> Result<String, TemplateError> {
        let mut prompt = Prompt { bytes: Vec::new(), full: false };
        let result = self
            .env
            .get_template(DEFAULT)
            .and_then(|template| template.render_captured_to(context, &mut prompt).map(drop));
        if prompt.full {
            return Err(TemplateError::TooLong { bytes: MAX_PROMPT });
        }
        result.map_err(|error| TemplateError::render(&error, &self.source, MAX_STEPS))?;
        // The engine writes text only, so nothing is ever replaced here.
        Ok(String::from_utf8(prompt.bytes)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
    }
}

/// Collects the prompt up to a limit.
struct Prompt {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Prompt {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_PROMPT {
            self.full = true;
            return Err(io::Error::other("the prompt is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
