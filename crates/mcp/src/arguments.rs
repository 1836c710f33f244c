//! Arguments of a call, looked at before they leave: what is plainly wrong need not travel.

use serde_json::{Map, Value};

/// The arguments as an object; none at all are an empty one.
///
/// # Errors
/// What is wrong, in words that a model can use.
pub fn check(arguments: Value, schema: &Map<String, Value>) -> Result<Map<String, Value>, String> {
    let arguments = match arguments {
        Value::Object(arguments) => arguments,
        Value::Null => Map::new(),
        other => return Err(format!("the arguments are {}: they must be an object", kind(&other))),
    };
    let required = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let missing: Vec<&str> = required.filter(|name| !arguments.contains_key(*name)).collect();
    if !missing.is_empty() {
        return Err(format!("missing arguments: {}", missing.join(", ")));
    }
    let known = schema.get("properties").and_then(Value::as_object);
    let closed =
        schema.get("additionalProperties") == Some(&Value::Bool(false)) && !schema.contains_key("patternProperties");
    if closed {
        let is_known = |name: &&String| known.is_some_and(|known| known.contains_key(*name));
        let unknown: Vec<&str> = arguments.keys().filter(|name| !is_known(name)).map(String::as_str).collect();
        if !unknown.is_empty() {
            return Err(format!("unknown arguments: {}", unknown.join(", ")));
        }
    }
    Ok(arguments)
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn plain_faults_are_found() {
        let open = json!({ "type": "object", "properties": { "a": {}, "b": {} }, "required": ["a"] });
        let closed = json!({ "properties": { "a": {} }, "additionalProperties": false });
        let pattern = json!({ "patternProperties": { "^x": {} }, "additionalProperties": false });
        let cases = [
            (&open, json!({ "a": 1 }), Ok(())),
            (&open, json!({ "a": null, "more": 2 }), Ok(())),
            (&open, json!({ "b": 1 }), Err("missing arguments: a")),
            (&open, json!(null), Err("missing arguments: a")),
            (&open, json!([1]), Err("the arguments are an array: they must be an object")),
            (&open, json!("{}"), Err("the arguments are a string: they must be an object")),
            (&closed, json!(null), Ok(())),
            (&closed, json!({ "a": 1 }), Ok(())),
            (&closed, json!({ "a": 1, "b": 2, "c": 3 }), Err("unknown arguments: b, c")),
            (&pattern, json!({ "xy": 1 }), Ok(())),
        ];
        for (schema, arguments, wanted) in cases {
            let checked = check(arguments.clone(), schema.as_object().unwrap());
            assert_eq!(checked.map(drop), wanted.map_err(str::to_owned), "{arguments}");
        }
    }
}
