//! The tools of a request.

use serde_json::{Map, Value, json};

use super::blocks::Block;
use crate::http::{
    ApiError, Fields,
    chat::{ToolChoice, ToolOffer},
    fields::{kind, show},
};

/// Longest name of a tool.
const MAX_NAME: usize = 128;

/// Takes `tools` and `tool_choice`.
pub fn take(fields: &mut Fields) -> Result<ToolOffer, ApiError> {
    let tools = fields.array("tools")?.unwrap_or_default();
    let definitions: Vec<Value> = tools.into_iter().enumerate().map(definition).collect::<Result<_, _>>()?;
    let (choice, parallel) = take_choice(fields)?;
    if choice == ToolChoice::Required && definitions.is_empty() {
        return Err(ApiError::field("tool_choice", "tool_choice is any: there are no tools"));
    }
    ToolOffer::new(definitions, choice, parallel)
}

/// A tool in OpenAI's form.
fn definition((index, tool): (usize, Value)) -> Result<Value, ApiError> {
    let at = format!("tools[{index}]");
    let Value::Object(mut map) = tool else {
        return Err(ApiError::field(&at, format!("{at} is {}: it must be an object", kind(&tool))));
    };
    if map.get("type").is_none_or(Value::is_null) {
        map.insert("type".into(), json!("custom"));
    }
    let mut tool = Block::open(at.clone(), Value::Object(map))?;
    if tool.kind != "custom" {
        let shown = show(&json!(tool.kind));
        let message = format!("{at} is of type {shown}: this server has no tools of its own, only custom ones");
        return Err(ApiError::unsupported(&at, message));
    }
    let name = tool.need("name")?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(allowed) {
        let shown = show(&json!(name));
        let message = format!("{at}.name is {shown}: it must have 1 to {MAX_NAME} letters, digits, _ and -");
        return Err(ApiError::field(&format!("{at}.name"), message));
    }
    let Some(schema) = tool.fields.object("input_schema")? else { return Err(tool.error("has no input_schema")) };
    let description = described(&mut tool.fields)?;
    let mut function = Map::new();
    function.insert("name".into(), json!(name));
    if let Some(description) = description {
        function.insert("description".into(), json!(description));
    }
    function.insert("parameters".into(), Value::Object(schema.into_map()));
    if let Some(strict) = tool.fields.boolean("strict")? {
        function.insert("strict".into(), json!(strict));
    }
    refuse_other_callers(&mut tool)?;
    // Arguments always stream, and a tool that may be loaded later is told of at once: tools are part of a prefix that
    // is computed but once, and nothing is left of the prefix when they change.
    for without_effect in ["eager_input_streaming", "defer_loading"] {
        tool.fields.boolean(without_effect)?;
    }
    tool.fields.finish();
    Ok(json!({ "type": "function", "function": function }))
}

/// What the model reads of a tool: templates have a place for its description, and none for examples.
fn described(tool: &mut Fields) -> Result<Option<String>, ApiError> {
    let description = tool.string("description")?;
    let examples = tool.array("input_examples")?.unwrap_or_default();
    if examples.is_empty() {
        return Ok(description);
    }
    let mut text = description.unwrap_or_default();
    text.push_str("\nExamples of its input:");
    for example in examples {
        text.push_str(&format!("\n{example}"));
    }
    Ok(Some(text.trim_start().to_owned()))
}

fn refuse_other_callers(tool: &mut Block) -> Result<(), ApiError> {
    for caller in tool.fields.array("allowed_callers")?.unwrap_or_default() {
        if caller != "direct" {
            let param = format!("{}.allowed_callers", tool.at);
            let message = format!("{param} has {}: only the model itself calls tools, direct", show(&caller));
            return Err(ApiError::unsupported(&param, message));
        }
    }
    Ok(())
}

/// Takes `tool_choice`: whether and which tools are called, and whether several at once.
fn take_choice(fields: &mut Fields) -> Result<(ToolChoice, bool), ApiError> {
    let Some(mut choice) = fields.object("tool_choice")? else { return Ok((ToolChoice::Auto, true)) };
    let parallel = !choice.boolean("disable_parallel_tool_use")?.unwrap_or(false);
    let which = match choice.string("type")?.as_deref() {
        Some("auto") => ToolChoice::Auto,
        Some("any") => ToolChoice::Required,
        Some("none") => ToolChoice::None,
        Some("tool") => match choice.string("name")? {
            Some(name) => ToolChoice::Named(name),
            None => return Err(ApiError::field("tool_choice.name", "tool_choice.name is missing")),
        },
        Some(other) => {
            let shown = show(&json!(other));
            let message = format!("tool_choice.type is {shown}: it must be auto, any, tool or none");
            return Err(ApiError::field("tool_choice.type", message));
        }
        None => return Err(ApiError::field("tool_choice.type", "tool_choice.type is missing")),
    };
    choice.finish();
    Ok((which, parallel))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(body: Value) -> Result<ToolOffer, Value> {
        let mut fields = Fields::parse(body.to_string().as_bytes()).unwrap();
        take(&mut fields).map_err(|error| error.to_json()["error"]["message"].clone())
    }

    #[test]
    fn tools_in_openais_form() {
        let schema = json!({ "type": "object", "properties": { "z": {}, "a": {} } });
        let offer = of(json!({ "tools": [
            { "name": "a", "description": "d", "input_schema": schema, "cache_control": { "type": "ephemeral" } },
            { "type": "custom", "name": "b", "input_schema": {}, "strict": true, "defer_loading": true,
              "eager_input_streaming": true, "allowed_callers": ["direct"], "input_examples": [{ "x": 1 }] },
        ] }));
        let wanted = [
            json!({ "type": "function", "function": { "name": "a", "description": "d", "parameters": schema } }),
            json!({ "type": "function", "function": {
                "name": "b", "description": "Examples of its input:\n{\"x\":1}", "parameters": {}, "strict": true,
            } }),
        ];
        assert_eq!(offer.unwrap().definitions, wanted);
    }

    #[test]
    fn choices() {
        let cases = [
            (json!(null), ToolChoice::Auto, true),
            (json!({ "type": "auto", "disable_parallel_tool_use": true }), ToolChoice::Auto, false),
            (json!({ "type": "any" }), ToolChoice::Required, true),
            (json!({ "type": "none" }), ToolChoice::None, true),
            (json!({ "type": "tool", "name": "f" }), ToolChoice::Named("f".into()), true),
        ];
        for (choice, wanted, parallel) in cases {
            let body = json!({ "tools": [{ "name": "f", "input_schema": {} }], "tool_choice": choice });
            let offer = of(body).unwrap();
            assert_eq!((offer.choice, offer.parallel), (wanted, parallel), "{choice}");
        }
    }

    #[test]
    fn refused_forms_are_named() {
        let one = |tool: Value| json!({ "tools": [tool] });
        let cases = [
            (one(json!(3)), "tools[0] is a number: it must be an object"),
            (one(json!({ "input_schema": {} })), "tools[0] has no name"),
            (
                one(json!({ "name": "a b", "input_schema": {} })),
                "tools[0].name is \"a b\": it must have 1 to 128 letters, digits, _ and -",
            ),
            (one(json!({ "name": "f" })), "tools[0] has no input_schema"),
            (
                one(json!({ "name": "f", "input_schema": [] })),
                "tools[0].input_schema is an array: it must be an object",
            ),
            (
                one(json!({ "type": "web_search_20250305", "name": "web_search" })),
                "tools[0] is of type \"web_search_20250305\": this server has no tools of its own, only custom ones",
            ),
            (
                one(json!({ "name": "f", "input_schema": {}, "allowed_callers": ["code_execution_20250825"] })),
                "tools[0].allowed_callers has \"code_execution_20250825\": only the model itself calls tools, direct",
            ),
            (
                json!({ "tools": [{ "name": "f", "input_schema": {} }, { "name": "f", "input_schema": {} }] }),
                "tools has \"f\" twice: each needs a name of its own",
            ),
            (json!({ "tool_choice": "auto" }), "tool_choice is \"auto\": it must be an object"),
            (json!({ "tool_choice": {} }), "tool_choice.type is missing"),
            (
                json!({ "tool_choice": { "type": "required" } }),
                "tool_choice.type is \"required\": it must be auto, any, tool or none",
            ),
            (json!({ "tool_choice": { "type": "tool" } }), "tool_choice.name is missing"),
            (
                json!({ "tool_choice": { "type": "tool", "name": "g" } }),
                "tool_choice names \"g\": there is no such tool in tools",
            ),
            (json!({ "tool_choice": { "type": "any" } }), "tool_choice is any: there are no tools"),
        ];
        for (body, wanted) in cases {
            assert_eq!(of(body).unwrap_err(), wanted);
        }
    }
}
