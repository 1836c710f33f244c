//! Python methods that templates call and `minijinja-contrib` lacks.

use minijinja::value::{Value, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State};
use minijinja_contrib::pycompat;

/// Calls `method` on `value` as Python would, for the methods that cannot change anything.
pub(crate) fn call(state: &mut State, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    match (value.kind(), method) {
        (ValueKind::String, _) => {
            let text = value.as_str().unwrap_or_default();
            match string_method(text, method, args) {
                Some(result) => result,
                None => pycompat::unknown_method_callback(state, value, method, args),
            }
        }
        (ValueKind::Seq, "index") => {
            let (wanted,): (Value,) = from_args(args)?;
            let position = value.try_iter()?.position(|item| item == wanted);
            position.map(Value::from).ok_or_else(|| not_found(&wanted))
        }
        (ValueKind::Seq | ValueKind::Map, "copy") => {
            let () = from_args(args)?;
            // Values never change, so a copy is the value itself.
            Ok(value.clone())
        }
        _ => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn not_found(wanted: &Value) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("index: {wanted:?} is not there"))
}

/// `None` if there is no such method here.
fn string_method(text: &str, method: &str, args: &[Value]) -> Option<Result<Value, Error>> {
    if !matches!(method, "removeprefix" | "removesuffix" | "partition" | "rpartition" | "index") {
        return None;
    }
    let (argument,): (&str,) = match from_args(args) {
        Ok(args) => args,
        Err(error) => return Some(Err(error)),
    };
    Some(Ok(match method {
        "removeprefix" => text.strip_prefix(argument).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(argument).unwrap_or(text).into(),
        // Python counts characters.
        "index" => match text.find(argument) {
            Some(at) => text[..at].chars().count().into(),
            None => return Some(Err(not_found(&argument.into()))),
        },
        "partition" => match text.split_once(argument) {
            Some((before, after)) => Value::from_iter([before, argument, after]),
            None => Value::from_iter([text, "", ""]),
        },
        _ => match text.rsplit_once(argument) {
            Some((before, after)) => Value::from_iter([before, argument, after]),
            None => Value::from_iter(["", "", text]),
        },
    }))
}
