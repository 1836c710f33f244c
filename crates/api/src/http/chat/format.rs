//! What an answer's text must look like.

use serde_json::Value;

use super::super::{ApiError, Fields, fields::show};

/// The form of an answer, kept to by a grammar.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum OutputFormat {
    /// Any text.
    #[default]
    Text,
    /// Some JSON object.
    JsonObject,
    /// JSON that this schema admits.
    JsonSchema(Value),
    /// What this regular expression matches as a whole.
    Regex(String),
    /// One of these.
    Choice(Vec<String>),
    /// What this grammar derives.
    Grammar(String),
}

impl OutputFormat {
    /// Takes `response_format` as chat completions have it, or vLLM's `structured_outputs` and `guided_*`.
    ///
    /// # Errors
    /// 400 for wrong types, and for more than one of them.
    pub fn take(fields: &mut Fields) -> Result<Self, ApiError> {
        let mut found: Vec<(String, Self)> = Vec::new();
        if let Some(format) = fields.object("response_format")? {
            found.push(("response_format".into(), Self::from_response_format(format, "response_format")?));
        }
        if let Some(mut outputs) = fields.object("structured_outputs")? {
            found.extend(Self::take_guided(&mut outputs, "", "structured_outputs.")?);
            for ignored in ["disable_fallback", "disable_any_whitespace", "disable_additional_properties"] {
                if outputs.boolean(ignored)?.unwrap_or(false) {
                    let name = format!("structured_outputs.{ignored}");
                    return Err(ApiError::unsupported(&name, format!("{name} is not supported")));
                }
            }
            if outputs.value("structural_tag").is_some() {
                let name = "structured_outputs.structural_tag";
                return Err(ApiError::unsupported(name, format!("{name} is not supported: use tools or grammar")));
            }
            outputs.finish();
        }
        found.extend(Self::take_guided(fields, "guided_", "")?);
        // They name one of vLLM's engines for grammars; there is one here.
        fields.string("guided_decoding_backend")?;
        found.retain(|(_, format)| *format != Self::Text);
        match found.len() {
            0 => Ok(Self::Text),
            1 => Ok(found.swap_remove(0).1),
            _ => {
                let message = format!("{} and {} can't both be kept: give one", found[0].0, found[1].0);
                Err(ApiError::field(&found[1].0, message))
            }
        }
    }

    /// From `{"type": "json_schema", "json_schema": {"schema": …}}`; Responses have the schema one level higher.
    ///
    /// # Errors
    /// 400 for wrong types.
    pub fn from_response_format(mut format: Fields, name: &str) -> Result<Self, ApiError> {
        let kind = format.string("type")?;
        match kind.as_deref() {
            Some("text") => Ok(Self::Text),
            Some("json_object") => match format.value("schema") {
                // As llama.cpp and others have it.
                Some(schema) => Ok(Self::JsonSchema(schema)),
                None => Ok(Self::JsonObject),
            },
            Some("json_schema") => {
                let mut holder = format.object("json_schema")?.unwrap_or(format);
                holder.string("name")?;
                holder.string("description")?;
                // A schema is always kept to.
                holder.boolean("strict")?;
                match holder.value("schema") {
                    Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Self::JsonSchema(schema)),
                    Some(other) => {
                        let message = format!("{name} has a schema that is {}: it must be an object", show(&other));
                        Err(ApiError::field(name, message))
                    }
                    None => Err(ApiError::field(name, format!("{name} is of type json_schema and has no schema"))),
                }
            }
            Some("regex") => match format.string("pattern")? {
                Some(pattern) => Ok(Self::Regex(pattern)),
                None => Err(ApiError::field(name, format!("{name} is of type regex and has no pattern"))),
            },
            Some("grammar") => match format.string("grammar")? {
                Some(grammar) => Ok(Self::Grammar(grammar)),
                None => Err(ApiError::field(name, format!("{name} is of type grammar and has no grammar"))),
            },
            Some(other) => {
                let message = format!("{name} is of type {other:?}: it must be text, json_object or json_schema");
                Err(ApiError::unsupported(name, message))
            }
            None => Err(ApiError::field(name, format!("{name} has no type"))),
        }
    }

    fn take_guided(fields: &mut Fields, prefix: &str, at: &str) -> Result<Vec<(String, Self)>, ApiError> {
        let mut found = Vec::new();
        let name = |field: &str| format!("{prefix}{field}");
        if let Some(schema) = fields.value(&name("json")) {
            let error = |message: &str| {
                let param = format!("{at}{prefix}json");
                ApiError::field(&param, format!("{param} {message}"))
            };
            let schema = match schema {
                Value::String(text) => serde_json::from_str(&text).map_err(|_| error("is a string that is no JSON"))?,
                other => other,
            };
            if !(schema.is_object() || schema.is_boolean()) {
                return Err(error("must be a JSON schema: an object"));
            }
            found.push((at.to_owned() + &name("json"), Self::JsonSchema(schema)));
        }
        if fields.boolean(&name("json_object"))?.unwrap_or(false) {
            found.push((at.to_owned() + &name("json_object"), Self::JsonObject));
        }
        if let Some(pattern) = fields.string(&name("regex"))? {
            found.push((at.to_owned() + &name("regex"), Self::Regex(pattern)));
        }
        if let Some(items) = fields.array(&name("choice"))? {
            let param = format!("{at}{prefix}choice");
            let choices = items.into_iter().map(|item| match item {
                Value::String(text) => Ok(text),
                other => Err(ApiError::field(&param, format!("{param} has {}: it must have strings", show(&other)))),
            });
            let choices: Vec<String> = choices.collect::<Result<_, _>>()?;
            if choices.is_empty() {
                return Err(ApiError::field(&param, format!("{param} is empty: there must be at least one")));
            }
            found.push((at.to_owned() + &name("choice"), Self::Choice(choices)));
        }
        if let Some(grammar) = fields.string(&name("grammar"))? {
            found.push((at.to_owned() + &name("grammar"), Self::Grammar(grammar)));
        }
        Ok(found)
    }
}
