//! The tools that a request offers.

use std::{collections::HashSet, sync::Arc};

use serde_json::{Value, json};
use vllm_parsers::{Tool, Tools};

use super::super::{
    ApiError, Fields,
    fields::{kind, show},
};

/// Most tools of a request. Agents send a few hundred.
const MAX_TOOLS: usize = 4096;
/// Longest name of a tool.
const MAX_NAME: usize = 256;

/// Whether and which tools are called.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum ToolChoice {
    /// As the model likes.
    #[default]
    Auto,
    /// None is.
    None,
    /// At least one is.
    Required,
    /// This one is.
    Named(String),
}

/// Tools with the rules for their use.
#[derive(Debug, Clone)]
pub struct ToolOffer {
    /// In OpenAI's form, as templates want them: `{"type": "function", "function": {…}}`.
    pub definitions: Vec<Value>,
    /// The same for parsers and grammars.
    pub tools: Arc<Tools>,
    /// Whether and which.
    pub choice: ToolChoice,
    /// Whether one answer may have several calls.
    pub parallel: bool,
}

impl Default for ToolOffer {
    fn default() -> Self {
        Self { definitions: Vec::new(), tools: Arc::default(), choice: ToolChoice::Auto, parallel: true }
    }
}

impl ToolOffer {
    /// Checks definitions in OpenAI's form, and `choice` against them.
    ///
    /// # Errors
    /// 400 naming the tool and field at fault.
    pub fn new(definitions: Vec<Value>, choice: ToolChoice, parallel: bool) -> Result<Self, ApiError> {
        if definitions.len() > MAX_TOOLS {
            let message = format!("tools has {} tools: it may have at most {MAX_TOOLS}", definitions.len());
            return Err(ApiError::field("tools", message));
        }
        let mut tools = Vec::with_capacity(definitions.len());
        let mut names = HashSet::with_capacity(definitions.len());
        for (index, definition) in definitions.iter().enumerate() {
            let tool = tool(&format!("tools[{index}]"), definition)?;
            if !names.insert(tool.name.clone()) {
                let message = format!("tools has {:?} twice: each needs a name of its own", tool.name);
                return Err(ApiError::field("tools", message));
            }
            tools.push(tool);
        }
        let problem = match &choice {
            ToolChoice::Required if tools.is_empty() => Some("tool_choice is required: there are no tools".to_owned()),
            ToolChoice::Named(name) if !names.contains(name) => {
                Some(format!("tool_choice names {name:?}: there is no such tool in tools"))
            }
            _ => None,
        };
        match problem {
            Some(message) => Err(ApiError::field("tool_choice", message)),
            None => Ok(Self { definitions, tools: Arc::new(Tools(tools)), choice, parallel }),
        }
    }

    /// Takes `tools`, `tool_choice` and `parallel_tool_calls` as chat completions have them.
    ///
    /// # Errors
    /// See [`ToolOffer::new`].
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut definitions = fields.array("tools")?.unwrap_or_default();
        let choice = take_choice(fields, &mut definitions)?;
        let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
        Self::new(definitions, choice, parallel)
    }

    /// Whether the model is told of any tool.
    #[must_use]
    pub fn is_active(&self) -> bool {
        !self.tools.0.is_empty() && self.choice != ToolChoice::None
    }

    /// Most calls of an answer; `None`: as many as the model likes.
    #[must_use]
    pub fn most_calls(&self) -> Option<usize> {
        (!self.parallel || matches!(self.choice, ToolChoice::Named(_))).then_some(1)
    }

    /// The same tools, those that aren't strict with any arguments; `None` if nothing changes by it.
    #[must_use]
    pub fn relaxed(&self) -> Option<Self> {
        let relax = |tool: &Tool| Tool { parameters: tool.parameters.clone().filter(|_| tool.strict), ..tool.clone() };
        let tools = Tools(self.tools.0.iter().map(relax).collect());
        (tools != *self.tools).then(|| Self { tools: Arc::new(tools), ..self.clone() })
    }

    /// The tools that may be called.
    #[must_use]
    pub fn callable(&self) -> Tools {
        match &self.choice {
            ToolChoice::Named(name) => Tools(self.tools.get(name).cloned().into_iter().collect()),
            _ => (*self.tools).clone(),
        }
    }
}

fn tool(at: &str, definition: &Value) -> Result<Tool, ApiError> {
    let error = |field: &str, message: String| {
        let param = format!("{at}{field}");
        ApiError::field(&param, format!("{param} {message}"))
    };
    match definition.get("type").and_then(Value::as_str) {
        Some("function") => {}
        Some(other) => {
            return Err(
                error("", format!("is of type {other:?}: only function is supported")).with_code("unsupported_value")
            );
        }
        None => return Err(error("", "has no type: it must be function".into())),
    }
    let Some(function) = definition.get("function").and_then(Value::as_object) else {
        return Err(error("", "has no function: it must be an object with a name".into()));
    };
    let name = match function.get("name") {
        Some(Value::String(name)) => name,
        Some(other) => return Err(error(".function.name", format!("is {}: it must be a string", show(other)))),
        None => return Err(error(".function.name", "is missing".into())),
    };
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.:/".contains(c);
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let shown = show(&json!(name));
        let message = format!("is {shown}: it must have 1 to {MAX_NAME} letters, digits and any of _ - . : /");
        return Err(error(".function.name", message));
    }
    let parameters = match function.get("parameters") {
        None | Some(Value::Null) => None,
        Some(schema @ Value::Object(_)) => Some(schema.clone()),
        Some(other) => {
            return Err(error(".function.parameters", format!("is {}: it must be a JSON schema", kind(other))));
        }
    };
    let strict = match function.get("strict") {
        None | Some(Value::Null) => false,
        Some(Value::Bool(strict)) => *strict,
        Some(other) => return Err(error(".function.strict", format!("is {}: it must be true or false", show(other)))),
    };
    Ok(Tool { name: name.clone(), parameters, strict })
}

/// Takes `tool_choice`; one that allows some of the tools only removes the others from `definitions`.
fn take_choice(fields: &mut Fields, definitions: &mut Vec<Value>) -> Result<ToolChoice, ApiError> {
    let error = |message: String| Err(ApiError::field("tool_choice", message));
    let choice = match fields.value("tool_choice") {
        None => return Ok(ToolChoice::Auto),
        Some(Value::String(choice)) => return mode(&choice),
        Some(choice @ Value::Object(_)) => choice,
        Some(other) => return error(format!("tool_choice is {}: it must be a string or an object", show(&other))),
    };
    match choice.get("type").and_then(Value::as_str) {
        Some("function") => {
            // Chat completions nest the name, Responses don't.
            let name = choice.pointer("/function/name").or_else(|| choice.get("name"));
            match name.and_then(Value::as_str) {
                Some(name) => Ok(ToolChoice::Named(name.to_owned())),
                None => error("tool_choice has no function.name".into()),
            }
        }
        Some("allowed_tools") => {
            let allowed = choice.get("allowed_tools").unwrap_or(&choice);
            let Some(tools) = allowed.get("tools").and_then(Value::as_array) else {
                return error("tool_choice has no allowed_tools.tools".into());
            };
            let name = |tool: &Value| {
                let name = tool.pointer("/function/name").or_else(|| tool.get("name"));
                name.and_then(Value::as_str).map(str::to_owned)
            };
            let names: HashSet<String> = tools.iter().filter_map(name).collect();
            for name in &names {
                if !definitions.iter().any(|tool| tool.pointer("/function/name").is_some_and(|n| n == name.as_str())) {
                    return error(format!("tool_choice allows {name:?}: there is no such tool in tools"));
                }
            }
            definitions.retain(|tool| {
                tool.pointer("/function/name").and_then(Value::as_str).is_none_or(|name| names.contains(name))
            });
            match allowed.get("mode") {
                None => Ok(ToolChoice::Auto),
                Some(Value::String(name)) => mode(name),
                Some(other) => error(format!("tool_choice.mode is {}: it must be auto or required", show(other))),
            }
        }
        _ => error("tool_choice has no type: it must be function or allowed_tools".into()),
    }
}

fn mode(choice: &str) -> Result<ToolChoice, ApiError> {
    match choice {
        "auto" => Ok(ToolChoice::Auto),
        "none" => Ok(ToolChoice::None),
        "required" => Ok(ToolChoice::Required),
        other => {
            let message = format!("tool_choice is {other:?}: it must be none, auto, required or a function");
            Err(ApiError::field("tool_choice", message))
        }
    }
}
