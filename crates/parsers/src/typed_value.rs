//! Text of a parameter → JSON, by the tool's schema.
//!
//! Formats that write arguments as `<parameter=k>v</parameter>` don't say whether `42` is a number or a text of digits.

use serde_json::Value;

use crate::json_scan::{JsonScan, Scan, write_char};

/// What a schema admits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Number,
    Boolean,
    Null,
    /// Objects and arrays.
    Composite,
    /// The schema doesn't say.
    Any,
}

/// How many schemas within schemas are looked at.
const MOST_NESTED: usize = 8;

/// Whether a parameter is a text whatever it looks like, so that its value may go out while it comes.
pub(crate) fn is_text(schema: Option<&Value>) -> bool {
    kinds(schema) == [Kind::Text]
}

/// Whether a parameter may be a text without quotes.
pub(crate) fn may_be_text(schema: Option<&Value>) -> bool {
    kinds(schema).contains(&Kind::Text)
}

/// JSON of a parameter's whole text. What doesn't fit the schema stays as JSON if it is any, else as a string, so that
/// whoever checks the arguments sees what the model wrote.
pub(crate) fn to_json(text: &str, schema: Option<&Value>) -> String {
    let kinds = kinds(schema);
    let trimmed = text.trim();
    if kinds == [Kind::Text] {
        return quoted(text);
    }
    if let Some(json) = kinds.iter().find_map(|kind| kind.read(trimmed)) {
        return json;
    }
    if kinds.contains(&Kind::Text) {
        return quoted(text);
    }
    json(trimmed).unwrap_or_else(|| quoted(text))
}

/// A JSON string of that text.
pub(crate) fn quoted(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    text.chars().for_each(|c| write_char(c, &mut json));
    json.push('"');
    json
}

impl Kind {
    fn of_name(name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        let begins = |prefixes: &[&str]| prefixes.iter().any(|prefix| name.starts_with(prefix));
        // Not only JSON schema's own names: tools are often described with those of a programming language.
        if begins(&["str", "text", "char", "enum"]) {
            Self::Text
        } else if begins(&["int", "uint", "long", "short", "unsigned"]) {
            Self::Integer
        } else if begins(&["num", "float", "double", "decimal"]) {
            Self::Number
        } else if begins(&["bool"]) {
            Self::Boolean
        } else if begins(&["null", "none"]) {
            Self::Null
        } else if begins(&["object", "array", "dict", "list", "map", "tuple"]) {
            Self::Composite
        } else {
            Self::Any
        }
    }

    fn of_value(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Boolean,
            Value::Number(_) => Self::Number,
            Value::String(_) => Self::Text,
            Value::Array(_) | Value::Object(_) => Self::Composite,
        }
    }

    /// JSON of `text` if it is of this kind. Text is nobody's first choice: see [`to_json`].
    fn read(self, text: &str) -> Option<String> {
        match self {
            Self::Text => None,
            Self::Integer => json(text).filter(|json| is_number(json)).map(whole_number),
            Self::Number => json(text).filter(|json| is_number(json)),
            Self::Boolean => {
                ["true", "false"].into_iter().find(|word| text.eq_ignore_ascii_case(word)).map(str::to_owned)
            }
            Self::Null => {
                ["null", "none"].into_iter().any(|word| text.eq_ignore_ascii_case(word)).then(|| "null".to_owned())
            }
            Self::Composite => json(text).filter(|json| json.starts_with(['{', '['])),
            Self::Any => json(text),
        }
    }
}

/// The kinds that a schema admits, each once, the most special first.
fn kinds(schema: Option<&Value>) -> Vec<Kind> {
    let mut kinds = Vec::new();
    collect(schema, MOST_NESTED, &mut kinds);
    let order = [Kind::Null, Kind::Boolean, Kind::Integer, Kind::Number, Kind::Composite, Kind::Any, Kind::Text];
    order.into_iter().filter(|kind| kinds.contains(kind)).collect()
}

fn collect(schema: Option<&Value>, levels: usize, kinds: &mut Vec<Kind>) {
    let Some(Value::Object(schema)) = schema.filter(|_| levels > 0) else { return kinds.push(Kind::Any) };
    match schema.get("type") {
        Some(Value::String(name)) => return kinds.push(Kind::of_name(name)),
        Some(Value::Array(names)) => return kinds.extend(names.iter().filter_map(Value::as_str).map(Kind::of_name)),
        _ => {}
    }
    for choice in ["anyOf", "oneOf"] {
        if let Some(Value::Array(choices)) = schema.get(choice) {
            return choices.iter().for_each(|schema| collect(Some(schema), levels - 1, kinds));
        }
    }
    if let Some(Value::Array(values)) = schema.get("enum") {
        return kinds.extend(values.iter().map(Kind::of_value));
    }
    match schema.get("const") {
        Some(value) => kinds.push(Kind::of_value(value)),
        None if schema.contains_key("properties") || schema.contains_key("items") => kinds.push(Kind::Composite),
        None => kinds.push(Kind::Any),
    }
}

/// `text` if it is JSON as a whole, with slips mended.
fn json(text: &str) -> Option<String> {
    let (mut scan, mut out) = (JsonScan::mending(), String::with_capacity(text.len()));
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match scan.push(c, &mut out) {
            Scan::More => {}
            Scan::Done => return rest.as_str().is_empty().then_some(out),
            Scan::Before | Scan::Invalid => return None,
        }
    }
    scan.may_end().then_some(out)
}

fn is_number(json: &str) -> bool {
    json.starts_with(|c: char| c == '-' || c.is_ascii_digit())
}

/// `4.0` is the integer 4. Others stay as they are: digits are never lost.
fn whole_number(json: String) -> String {
    match json.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') => whole.to_owned(),
        _ => json,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_schema_says_what_a_text_means() {
        for (schema, text, expected) in [
            (json!({"type": "string"}), "42", r#""42""#),
            (json!({"type": "string"}), "null", r#""null""#),
            (json!({"type": "string"}), " \"a\"\n\\", r#"" \"a\"\n\\""#),
            (json!({"type": "str"}), "true", r#""true""#),
            (json!({"enum": ["1", "2"]}), "1", r#""1""#),
            (json!({"type": "integer"}), " 42 ", "42"),
            (json!({"type": "integer"}), "4.00", "4"),
            (json!({"type": "integer"}), "4.5", "4.5"),
            (json!({"type": "integer"}), "123456789012345678901234567890", "123456789012345678901234567890"),
            (json!({"type": "integer"}), "four", r#""four""#),
            (json!({"type": "int64"}), "7", "7"),
            (json!({"type": "number"}), "3.10", "3.10"),
            (json!({"type": "number"}), "1e5", "1e5"),
            (json!({"type": "number"}), "007", r#""007""#),
            (json!({"type": "boolean"}), "True", "true"),
            (json!({"type": "boolean"}), "FALSE", "false"),
            (json!({"type": "boolean"}), "yes", r#""yes""#),
            (json!({"type": "boolean"}), "1", "1"),
            (json!({"type": "null"}), "None", "null"),
            (json!({"type": "object"}), r#"{"a": [1]}"#, r#"{"a": [1]}"#),
            (json!({"type": "array"}), "[True, None]", "[true, null]"),
            (json!({"type": "array"}), "['a', None]", r#"["a", null]"#),
            (json!({"type": "array"}), "a, b", r#""a, b""#),
            (json!({"type": "list[str]"}), r#"["a"]"#, r#"["a"]"#),
            (json!({"properties": {}}), "{}", "{}"),
            (json!({"type": ["string", "null"]}), "null", "null"),
            (json!({"type": ["string", "null"]}), "nil", r#""nil""#),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "12", "12"),
            (json!({"anyOf": [{"type": "integer"}, {"type": "string"}]}), "12a ", r#""12a ""#),
            (json!({"oneOf": [{"const": true}, {"type": "number"}]}), "true", "true"),
            (json!({}), "3", "3"),
            (json!({}), "three", r#""three""#),
            (json!({"$ref": "#/$defs/a"}), r#"{"a":1}"#, r#"{"a":1}"#),
            (json!(true), "[1", r#""[1""#),
        ] {
            assert_eq!(to_json(text, Some(&schema)), expected, "{text:?} by {schema}");
        }
        assert_eq!(to_json("1", None), "1");
        assert_eq!(to_json("", None), r#""""#);
    }

    #[test]
    fn only_what_must_be_text_is_text_before_it_has_ended() {
        assert!(is_text(Some(&json!({"type": "string"}))));
        assert!(is_text(Some(&json!({"enum": ["a", "b"]}))));
        assert!(!is_text(Some(&json!({"type": ["string", "null"]}))));
        assert!(!is_text(Some(&json!({}))));
        assert!(!is_text(None));
    }

    #[test]
    fn schemas_within_schemas_end() {
        let mut schema = json!({"type": "integer"});
        for _ in 0..100 {
            schema = json!({"anyOf": [schema]});
        }
        assert_eq!(to_json("3", Some(&schema)), "3");
    }
}
