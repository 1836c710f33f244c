//! JSON schemas, made ready for llguidance.
//!
//! It refuses the keywords that it doesn't implement, as it should. Some it refuses although they change nothing:
//! these are taken out, and what it implements too loosely is written so that it isn't.

use serde_json::{Map, Value, json};

use crate::error::{GrammarError, Result};
use crate::{limits, numbers, one_of, regex};

/// Formats that llguidance knows a grammar for. JSON Schema makes all others annotations.
const FORMATS: &[&str] =
    &["date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "unknown"];

/// Between two tokens of JSON: a space, or a line break with indentation. With any whitespace at all, a model that has
/// nothing to say could write it for ever.
const WHITESPACE: &str = r"[ \t]|\r?\n[ \t]{0,32}";

/// Keywords that hold one schema.
const ONE: &[&str] = &[
    "additionalItems",
    "additionalProperties",
    "contains",
    "else",
    "if",
    "items",
    "not",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords that hold a list of schemas.
const MANY: &[&str] = &["allOf", "anyOf", "items", "oneOf", "prefixItems"];

/// Keywords that hold schemas by name.
const NAMED: &[&str] = &["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Keywords that say nothing about a value.
const ANNOTATIONS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$id",
    "$schema",
    "default",
    "definitions",
    "description",
    "examples",
    "id",
    "readOnly",
    "title",
    "writeOnly",
];

/// Checks the size of a schema and says all that llguidance is to know.
pub(crate) fn prepare(schema: &Value) -> Result<Value> {
    measure(schema)?;
    let mut schema = match schema {
        Value::Bool(true) => Map::new(),
        Value::Bool(false) => return Err(GrammarError::Invalid("nothing satisfies the schema `false`".to_owned())),
        Value::Object(schema) => schema.clone(),
        _ => return Err(GrammarError::Invalid("a schema must be an object or a boolean".to_owned())),
    };
    let root = Value::Object(schema.clone());
    let mut closed = true;
    each_mut(&mut schema, &mut |schema| {
        check_ref(schema)?;
        check_costs(schema)?;
        numbers::keep_in_range(schema)?;
        drop_what_says_nothing(schema);
        one_of::make_any_of(schema, &root);
        closed &= !combines(schema);
        Ok(())
    })?;
    if closed {
        each_mut(&mut schema, &mut |schema| {
            close(schema);
            Ok(())
        })?;
    }
    schema.insert("x-guidance".to_owned(), json!({ "whitespace_pattern": WHITESPACE }));
    Ok(Value::Object(schema))
}

/// Refuses a value that is too large or too deep, without recursion.
fn measure(value: &Value) -> Result<()> {
    let (mut values, mut bytes) = (0, 0);
    let mut rest = vec![(value, 1)];
    while let Some((value, depth)) = rest.pop() {
        values += 1;
        GrammarError::check_size("levels of nesting in the schema", depth, limits::MAX_DEPTH)?;
        GrammarError::check_size("values in the schema", values, limits::MAX_VALUES)?;
        match value {
            Value::String(text) => bytes += text.len(),
            Value::Array(items) => {
                GrammarError::check_size("values in the schema", values + items.len(), limits::MAX_VALUES)?;
                rest.extend(items.iter().map(|item| (item, depth + 1)));
            }
            Value::Object(members) => {
                GrammarError::check_size("values in the schema", values + members.len(), limits::MAX_VALUES)?;
                bytes += members.keys().map(String::len).sum::<usize>();
                rest.extend(members.values().map(|member| (member, depth + 1)));
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        GrammarError::check_size("bytes of text in the schema", bytes, limits::MAX_BYTES)?;
    }
    Ok(())
}

/// Does something to a schema and all schemas in it. Values that look like schemas, in `const` or in `examples`, are
/// none.
fn each_mut(
    schema: &mut Map<String, Value>,
    work: &mut dyn FnMut(&mut Map<String, Value>) -> Result<()>,
) -> Result<()> {
    work(schema)?;
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        match value {
            Value::Object(inner) if ONE.contains(&keyword) => each_mut(inner, work)?,
            Value::Object(named) if NAMED.contains(&keyword) => {
                for inner in named.values_mut().filter_map(Value::as_object_mut) {
                    each_mut(inner, work)?;
                }
            }
            Value::Array(many) if MANY.contains(&keyword) => {
                for inner in many.iter_mut().filter_map(Value::as_object_mut) {
                    each_mut(inner, work)?;
                }
            }
            _ => {}
        }
    }
    Ok(())
}

/// Nothing is fetched for a client.
fn check_ref(schema: &Map<String, Value>) -> Result<()> {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) if !reference.starts_with('#') => {
            let shown: String = reference.chars().take(100).collect();
            Err(GrammarError::Invalid(format!(
                "$ref to {shown:?}: only references inside the schema (#/…) are followed"
            )))
        }
        _ => Ok(()),
    }
}

/// Refuses what llguidance would take long for.
fn check_costs(schema: &Map<String, Value>) -> Result<()> {
    for keyword in ["properties", "patternProperties"] {
        let Some(properties) = schema.get(keyword).and_then(Value::as_object) else { continue };
        GrammarError::check_size("properties of one object", properties.len(), limits::MAX_PROPERTIES)?;
        for pattern in properties.keys().filter(|_| keyword == "patternProperties") {
            regex::check(pattern)?;
        }
    }
    schema.get("pattern").and_then(Value::as_str).map_or(Ok(()), regex::check)
}

/// Takes out what llguidance refuses although every value satisfies it.
fn drop_what_says_nothing(schema: &mut Map<String, Value>) {
    let unknown = |format: &Value| format.as_str().is_some_and(|format| !FORMATS.contains(&format));
    if schema.get("format").is_some_and(unknown) {
        schema.shift_remove("format");
    }
    if schema.get("uniqueItems") == Some(&Value::Bool(false)) {
        schema.shift_remove("uniqueItems");
    }
    // Options of llguidance, which are not the client's to set.
    schema.shift_remove("x-guidance");
}

/// Whether a schema says of one value something in two places, so that a property unknown to one may be another's.
fn combines(schema: &Map<String, Value>) -> bool {
    let says: Vec<&str> = schema.keys().map(String::as_str).filter(|keyword| !ANNOTATIONS.contains(keyword)).collect();
    says.contains(&"allOf") || says.len() > 1 && ["$ref", "anyOf", "oneOf"].iter().any(|keyword| says.contains(keyword))
}

/// Lets an object have no other properties than those named. Such an object satisfies the schema as well, and a model
/// that may invent properties does.
fn close(schema: &mut Map<String, Value>) {
    const MORE: &[&str] = &["additionalProperties", "minProperties", "patternProperties", "propertyNames"];
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    let known = |name: &Value| name.as_str().is_some_and(|name| properties.contains_key(name));
    let all_known = schema.get("required").is_none_or(|all| all.as_array().is_some_and(|all| all.iter().all(known)));
    if all_known && !properties.is_empty() && !MORE.iter().any(|keyword| schema.contains_key(*keyword)) {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}
