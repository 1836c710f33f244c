//! JSON as Python's `json.dumps` writes it: the form that models saw in training, so every space counts.

use std::fmt::Write as _;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};

/// Deepest nesting that is written; beyond it is a loop or an attack.
const MAX_DEPTH: usize = 200;

/// The arguments of `json.dumps` that templates use.
struct Style {
    ensure_ascii: bool,
    indent: Option<String>,
    item_separator: String,
    key_separator: String,
    sort_keys: bool,
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("tojson: {}", message.into()))
}

/// The `tojson` filter with the signature that `transformers` gives it.
pub(crate) fn tojson(value: &Value, ensure_ascii: Option<bool>, args: Kwargs) -> Result<Value, Error> {
    let indent = match args.get::<Option<Value>>("indent")? {
        Some(indent) if indent.as_str().is_some() => indent.as_str().map(str::to_owned),
        Some(indent) if !indent.is_none() => {
            let width = indent.as_usize().filter(|&width| width <= 64);
            Some(" ".repeat(width.ok_or_else(|| invalid("indent is a string or a number from 0 to 64"))?))
        }
        _ => None,
    };
    let default_item_separator = if indent.is_some() { "," } else { ", " };
    let (item_separator, key_separator) = match args.get::<Option<Value>>("separators")? {
        Some(pair) if !pair.is_none() => {
            let parts: Vec<Value> = pair.try_iter()?.collect();
            match parts.as_slice() {
                [item, key] => (item.to_string(), key.to_string()),
                _ => return Err(invalid("separators is a pair: between items, after keys")),
            }
        }
        _ => (default_item_separator.to_owned(), ": ".to_owned()),
    };
    let ensure_ascii = ensure_ascii.or(args.get("ensure_ascii")?).unwrap_or(false);
    let sort_keys = args.get::<Option<bool>>("sort_keys")?.unwrap_or(false);
    args.assert_all_used()?;
    let style = Style { ensure_ascii, indent, item_separator, key_separator, sort_keys };
    let mut out = String::new();
    style.write(value, 0, &mut out)?;
    Ok(Value::from(out))
}

impl Style {
    fn write(&self, value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(invalid(format!("nested more than {MAX_DEPTH} deep")));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => write_number(value, out)?,
            ValueKind::String => self.write_string(value.as_str().unwrap_or_default(), out),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.write_items('[', ']', &items, depth, out, |style, item, out| style.write(item, depth + 1, out))?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    entries.push((key_text(&key)?, value.get_item(&key)?));
                }
                if self.sort_keys {
                    entries.sort_by(|(a, _), (b, _)| a.cmp(b));
                }
                self.write_items('{', '}', &entries, depth, out, |style, (key, item), out| {
                    style.write_string(key, out);
                    out.push_str(&style.key_separator);
                    style.write(item, depth + 1, out)
                })?;
            }
            ValueKind::Undefined => {
                return Err(Error::new(ErrorKind::UndefinedError, "tojson: the value is undefined"));
            }
            other => return Err(invalid(format!("a value of type {other} has no JSON form"))),
        }
        Ok(())
    }

    fn write_items<T>(
        &self,
        open: char,
        close: char,
        items: &[T],
        depth: usize,
        out: &mut String,
        write: impl Fn(&Self, &T, &mut String) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                out.push_str(&self.item_separator);
            }
            self.write_line_break(depth + 1, out);
            write(self, item, out)?;
        }
        if !items.is_empty() {
            self.write_line_break(depth, out);
        }
        out.push(close);
        Ok(())
    }

    fn write_line_break(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn write_string(&self, text: &str, out: &mut String) {
        out.push('"');
        for character in text.chars() {
            match character {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{C}' => out.push_str("\\f"),
                c if c < ' ' || (self.ensure_ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string cannot fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// Python writes keys that are not strings as if they were.
fn key_text(key: &Value) -> Result<String, Error> {
    Ok(match key.kind() {
        ValueKind::String => key.as_str().unwrap_or_default().to_owned(),
        ValueKind::None => "null".to_owned(),
        ValueKind::Bool => key.is_true().to_string(),
        ValueKind::Number => {
            let mut text = String::new();
            write_number(key, &mut text)?;
            text
        }
        other => return Err(invalid(format!("a key of type {other} has no JSON form"))),
    })
}

fn write_number(value: &Value, out: &mut String) -> Result<(), Error> {
    if value.is_integer() {
        out.push_str(&value.to_string());
        return Ok(());
    }
    let number = f64::try_from(value.clone())?;
    if number.is_nan() {
        out.push_str("NaN");
    } else if number.is_infinite() {
        out.push_str(if number > 0.0 { "Infinity" } else { "-Infinity" });
    } else {
        // Rust and Python agree on the shortest digits and on when to use an exponent, but not on how to write it.
        let text = format!("{number:?}");
        match text.split_once('e') {
            Some((digits, exponent)) => {
                let (sign, digits_of_exponent) = match exponent.strip_prefix('-') {
                    Some(rest) => ('-', rest),
                    None => ('+', exponent),
                };
                let _ = write!(out, "{digits}e{sign}{digits_of_exponent:0>2}");
            }
            None => out.push_str(&text),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;
    use serde_json::json;

    use super::*;

    fn render(expression: &str, value: serde_json::Value) -> Result<String, Error> {
        let mut env = Environment::new();
        env.add_filter("tojson", tojson);
        env.render_str(
            &format!("{{{{ {expression} }}}}"),
            minijinja::context! { x => Value::from(minijinja::value::Serde(value)) },
        )
    }

    /// Expected values are what CPython's `json.dumps` prints.
    #[test]
    fn writes_what_python_writes() {
        let object = json!({"b": [1, 2.0, {}], "a": {"ü": "<\"\n\u{1}>"}, "c": []});
        let cases = [
            (
                "scalars",
                "x|tojson",
                json!([null, true, -3, 1e16, 1e-5, 0.1, 12_345_678_901_234_567_890_u64]),
                r#"[null, true, -3, 1e+16, 1e-05, 0.1, 12345678901234567890]"#,
            ),
            (
                "order and spaces",
                "x|tojson",
                object.clone(),
                "{\"b\": [1, 2.0, {}], \"a\": {\"ü\": \"<\\\"\\n\\u0001>\"}, \"c\": []}",
            ),
            (
                "indent",
                "x|tojson(indent=2)",
                json!({"a": [1, {}], "b": {"c": null}}),
                "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": {\n    \"c\": null\n  }\n}",
            ),
            ("indent with a string", "x|tojson(indent='\t')", json!([1]), "[\n\t1\n]"),
            ("sorted", "x|tojson(sort_keys=true)", json!({"b": 1, "a": 2}), r#"{"a": 2, "b": 1}"#),
            ("separators", "x|tojson(separators=(',', ':'))", json!({"b": [1, 2]}), r#"{"b":[1,2]}"#),
            ("ascii", "x|tojson(ensure_ascii=true)", json!("é😀\u{7f}"), "\"\\u00e9\\ud83d\\ude00\\u007f\""),
            ("positional ascii", "x|tojson(true)", json!("é"), "\"\\u00e9\""),
            ("no HTML escapes", "x|tojson", json!("<a href='x'>&</a>"), r#""<a href='x'>&</a>""#),
        ];
        for (name, expression, value, expected) in cases {
            assert_eq!(render(expression, value).expect(name), expected, "{name}");
        }
    }

    #[test]
    fn what_has_no_json_form_is_an_error() {
        let cases = [
            ("undefined", "y|tojson"),
            ("a function", "range|tojson"),
            ("unknown argument", "x|tojson(indnt=2)"),
            ("absurd indent", "x|tojson(indent=1000000)"),
            ("separators", "x|tojson(separators=(1,))"),
        ];
        for (name, expression) in cases {
            assert!(render(expression, json!(1)).is_err(), "{name}");
        }
    }
}
