//! Tools as Responses define them: flat, and some that take any text.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use crate::http::{ApiError, Fields, chat::ToolOffer, fields::show};

/// The tools of a request.
#[derive(Debug)]
pub struct TakenTools {
    /// For the model.
    pub offer: ToolOffer,
    /// Names of those that take any text. To the model they are functions of one argument, `input`.
    pub custom: HashSet<String>,
    /// `tools` as given.
    pub shown: Value,
    /// `tool_choice` as given.
    pub shown_choice: Value,
}

/// Takes `tools`, `tool_choice` and `parallel_tool_calls`.
///
/// # Errors
/// 400 naming the tool and field at fault.
pub fn take_tools(fields: &mut Fields) -> Result<TakenTools, ApiError> {
    let tools = fields.array("tools")?.unwrap_or_default();
    let choice = fields.value("tool_choice");
    let mut custom = HashSet::new();
    let nested = |(index, tool): (usize, &Value)| nest(&format!("tools[{index}]"), tool.clone(), &mut custom);
    let nested: Vec<Value> = tools.iter().enumerate().map(nested).collect::<Result<_, _>>()?;
    fields.put("tools", Value::Array(nested));
    if let Some(choice) = &choice {
        fields.put("tool_choice", as_function(choice.clone()));
    }
    Ok(TakenTools {
        offer: ToolOffer::take(fields)?,
        custom,
        shown: Value::Array(tools),
        shown_choice: choice.unwrap_or_else(|| json!("auto")),
    })
}

/// A definition in the form of chat completions.
fn nest(at: &str, tool: Value, custom: &mut HashSet<String>) -> Result<Value, ApiError> {
    let mut fields = Fields::of(tool, at)?;
    let function = match fields.string("type")?.as_deref() {
        Some("function") => function(at, &mut fields)?,
        Some("custom") => {
            let function = custom_tool(at, &mut fields)?;
            custom.extend(function.get("name").and_then(Value::as_str).map(str::to_owned));
            function
        }
        Some(other) => {
            let message = format!("{at} is of type {other:?}: this server has tools of type function and custom");
            return Err(ApiError::unsupported(at, message));
        }
        None => return Err(ApiError::field(at, format!("{at} has no type: it must be function or custom"))),
    };
    for (name, default) in [("defer_loading", false), ("async", false)] {
        if fields.boolean(name)?.is_some_and(|value| value != default) {
            let param = format!("{at}.{name}");
            return Err(ApiError::unsupported(&param, format!("{param} is not supported: leave it out")));
        }
    }
    fields.finish();
    Ok(json!({ "type": "function", "function": function }))
}

fn name_and_description(at: &str, fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let param = format!("{at}.name");
    let name = fields.string("name")?;
    let name = name.ok_or_else(|| ApiError::field(&param, format!("{param} is missing")))?;
    let mut function = Map::from_iter([("name".into(), Value::String(name))]);
    if let Some(description) = fields.string("description")? {
        function.insert("description".into(), Value::String(description));
    }
    Ok(function)
}

fn function(at: &str, fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut function = name_and_description(at, fields)?;
    if let Some(parameters) = fields.object("parameters")? {
        function.insert("parameters".into(), Value::Object(parameters.into_map()));
    }
    if let Some(strict) = fields.boolean("strict")? {
        function.insert("strict".into(), Value::Bool(strict));
    }
    Ok(function)
}

fn custom_tool(at: &str, fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    let mut function = name_and_description(at, fields)?;
    if let Some(mut format) = fields.object("format")? {
        let kind = format.string("type")?;
        if kind.as_deref() != Some("text") {
            let param = format!("{at}.format");
            let message = format!("{param} is of type {}: only text is supported", show(&json!(kind)));
            return Err(ApiError::unsupported(&param, message));
        }
    }
    let parameters = json!({
        "type": "object",
        "properties": { "input": { "type": "string", "description": "What the tool is given, as plain text." } },
        "required": ["input"],
        "additionalProperties": false,
    });
    function.insert("parameters".into(), parameters);
    Ok(function)
}

/// A choice of a custom tool is one of the function that it is to the model.
fn as_function(mut choice: Value) -> Value {
    if choice.get("type").is_some_and(|kind| kind == "custom") {
        choice["type"] = json!("function");
    }
    choice
}
