//! `oneOf` whose alternatives exclude each other, which is what discriminated unions of data models come as.
//!
//! llguidance sees that only where they stand side by side, and refuses those that are references.

use serde_json::{Map, Value};

/// References followed for one alternative.
const MAX_HOPS: usize = 8;

/// Alternatives compared, each with each.
const MAX_COMPARED: usize = 200;

/// Makes `oneOf` an `anyOf`, which then means the same, if no value can satisfy two of its alternatives.
pub(crate) fn make_any_of(schema: &mut Map<String, Value>, root: &Value) {
    let Some(options) = schema.get("oneOf").and_then(Value::as_array) else { return };
    if schema.contains_key("anyOf") || options.len() > MAX_COMPARED || !exclude_each_other(options, root) {
        return;
    }
    let renamed = std::mem::take(schema).into_iter().map(|(keyword, value)| match keyword.as_str() {
        "oneOf" => ("anyOf".to_owned(), value),
        _ => (keyword, value),
    });
    *schema = renamed.collect();
}

fn exclude_each_other(options: &[Value], root: &Value) -> bool {
    let Some(options) = options.iter().map(|option| resolve(option, root)).collect::<Option<Vec<_>>>() else {
        return false;
    };
    options
        .iter()
        .enumerate()
        .all(|(index, a)| options.iter().skip(index + 1).all(|b| differ_in_type(a, b) || differ_in_tag(a, b)))
}

/// The schema that an alternative stands for.
fn resolve<'a>(mut option: &'a Value, root: &'a Value) -> Option<&'a Map<String, Value>> {
    for _ in 0..MAX_HOPS {
        let schema = option.as_object()?;
        match schema.get("$ref") {
            None => return Some(schema),
            Some(reference) => option = root.pointer(reference.as_str()?.strip_prefix('#')?)?,
        }
    }
    None
}

fn differ_in_type(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let name = |schema: &Map<String, Value>| match schema.get("type").and_then(Value::as_str) {
        Some("integer") => Some("number".to_owned()),
        other => other.map(str::to_owned),
    };
    matches!((name(a), name(b)), (Some(a), Some(b)) if a != b)
}

/// Whether both are objects with a required property that never has the same value in both.
fn differ_in_tag(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    let is_object = |schema: &Map<String, Value>| schema.get("type").and_then(Value::as_str) == Some("object");
    let Some(names) = a.get("required").and_then(Value::as_array).filter(|_| is_object(a) && is_object(b)) else {
        return false;
    };
    names.iter().filter_map(Value::as_str).any(|name| match (tags(a, name), tags(b, name)) {
        (Some(a), Some(b)) => a.iter().all(|tag| !b.contains(tag)),
        _ => false,
    })
}

/// The values that a required property may have. Only strings: 1 and 1.0 are the same number.
fn tags<'a>(schema: &'a Map<String, Value>, name: &str) -> Option<Vec<&'a str>> {
    let required = schema.get("required")?.as_array()?;
    let property = schema.get("properties")?.get(name).filter(|_| required.iter().any(|other| other == name))?;
    match (property.get("const"), property.get("enum")) {
        (Some(value), _) => Some(vec![value.as_str()?]),
        (None, Some(values)) => values.as_array()?.iter().map(Value::as_str).collect(),
        (None, None) => None,
    }
}
