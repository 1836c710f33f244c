//! Just enough of JSON Schema to check what the tests ask for.

use serde_json::Value;

/// Whether `value` satisfies `schema`. Panics at a keyword it doesn't know.
pub fn satisfies(value: &Value, schema: &Value, root: &Value) -> bool {
    let schema = match schema {
        Value::Bool(all) => return *all,
        schema => schema.as_object().unwrap(),
    };
    schema.iter().all(|(keyword, wanted)| holds(value, keyword, wanted, schema, root))
}

fn holds(value: &Value, keyword: &str, wanted: &Value, schema: &serde_json::Map<String, Value>, root: &Value) -> bool {
    let number = || wanted.as_f64().unwrap();
    let count = || wanted.as_u64().unwrap() as usize;
    let all = |value: &Value, schemas: &Value| {
        schemas.as_array().unwrap().iter().filter(|schema| satisfies(value, schema, root)).count()
    };
    match keyword {
        "$defs" | "title" | "description" | "default" | "examples" | "format" | "prefixItems" => true,
        "$ref" => satisfies(value, root.pointer(wanted.as_str().unwrap().trim_start_matches('#')).unwrap(), root),
        "type" => match wanted {
            Value::Array(names) => names.iter().any(|name| is_a(value, name.as_str().unwrap())),
            name => is_a(value, name.as_str().unwrap()),
        },
        "const" => value == wanted,
        "enum" => wanted.as_array().unwrap().contains(value),
        "anyOf" => all(value, wanted) > 0,
        "oneOf" => all(value, wanted) == 1,
        "allOf" => all(value, wanted) == wanted.as_array().unwrap().len(),
        "minimum" => value.as_f64().is_none_or(|value| value >= number()),
        "maximum" => value.as_f64().is_none_or(|value| value <= number()),
        "exclusiveMinimum" => value.as_f64().is_none_or(|value| value > number()),
        "multipleOf" => value.as_f64().is_none_or(|value| value % number() == 0.0),
        "minLength" => value.as_str().is_none_or(|text| text.chars().count() >= count()),
        "maxLength" => value.as_str().is_none_or(|text| text.chars().count() <= count()),
        "pattern" => {
            value.as_str().is_none_or(|text| regex::Regex::new(wanted.as_str().unwrap()).unwrap().is_match(text))
        }
        "minItems" => value.as_array().is_none_or(|items| items.len() >= count()),
        "maxItems" => value.as_array().is_none_or(|items| items.len() <= count()),
        "items" => value.as_array().is_none_or(|items| {
            let before = schema.get("prefixItems").map_or(0, |prefix| prefix.as_array().unwrap().len());
            items.iter().skip(before).all(|item| satisfies(item, wanted, root))
        }),
        "required" => value.as_object().is_none_or(|members| {
            wanted.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
        }),
        "properties" => value.as_object().is_none_or(|members| {
            wanted
                .as_object()
                .unwrap()
                .iter()
                .all(|(name, inner)| members.get(name).is_none_or(|member| satisfies(member, inner, root)))
        }),
        "additionalProperties" => value.as_object().is_none_or(|members| {
            let known = schema.get("properties").and_then(Value::as_object);
            let unknown = members.iter().filter(|(name, _)| !known.is_some_and(|known| known.contains_key(*name)));
            unknown.into_iter().all(|(_, member)| satisfies(member, wanted, root))
        }),
        keyword => panic!("the test doesn't know {keyword}"),
    }
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|value| value.fract() == 0.0),
        "array" => value.is_array(),
        "object" => value.is_object(),
        name => panic!("no type {name}"),
    }
}
