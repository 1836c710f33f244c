//! `GET /openapi.json`, and `GET /docs`, a page that shows it.
//!
//! The document is written by hand, one file for each family of endpoints, in `crates/api/openapi`. A test asks
//! for each of its paths, and schemathesis compares its schemas with what the server sends.

use std::sync::LazyLock;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderValue, header},
    response::Response,
};
use serde_json::{Map, Value};

use super::{App, health::json_response};
use crate::residency::Residency;

const BASE: &str = include_str!("../../openapi/base.yaml");
const FAMILIES: &[&str] = &[
    include_str!("../../openapi/anthropic.yaml"),
    include_str!("../../openapi/audio.yaml"),
    include_str!("../../openapi/chat.yaml"),
    include_str!("../../openapi/completions.yaml"),
    include_str!("../../openapi/mcp.yaml"),
    include_str!("../../openapi/media.yaml"),
    include_str!("../../openapi/models.yaml"),
    include_str!("../../openapi/operation.yaml"),
    include_str!("../../openapi/responses.yaml"),
    include_str!("../../openapi/tokens.yaml"),
    include_str!("../../openapi/vectors.yaml"),
];
const PAGE: &str = include_str!("../../openapi/docs.html");

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    let mut document = parse(&BASE.replace("@VERSION@", env!("CARGO_PKG_VERSION")));
    for family in FAMILIES {
        merge(&mut document, parse(family));
    }
    document
});

pub(super) async fn document(State(app): State<App>) -> Response {
    let mut document = DOCUMENT.clone();
    // The names that work here, so that tools that read this find them.
    let models = app.models().map(Residency::status).unwrap_or_default();
    let mut names: Vec<String> = models.into_iter().flat_map(|model| model.names).collect();
    names.extend(app.encoders.names());
    names.extend(app.speech.names());
    if !names.is_empty() {
        let model = &mut document["components"]["schemas"]["Model"];
        model["examples"] = Value::from(vec![names[0].clone()]);
        model["enum"] = Value::from(names);
    }
    json_response(&document)
}

pub(super) async fn page() -> Response {
    let mut response = Response::new(Body::from(PAGE));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    response
}

/// The files are part of the program: the tests parse all of them.
fn parse(yaml: &str) -> Value {
    serde_saphyr::from_str(yaml).unwrap_or_else(|error| {
        tracing::error!(%error, "a part of the OpenAPI document is not YAML");
        Value::Object(Map::new())
    })
}

/// Puts `part` into `whole`, object by object.
fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (name, value) in part {
                merge(whole.entry(name).or_insert(Value::Null), value);
            }
        }
        (whole, part) => *whole = part,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All `$ref`s of a document.
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn all_parts_are_yaml_and_refer_to_what_is_there() {
        for yaml in FAMILIES.iter().chain([&BASE]) {
            serde_saphyr::from_str::<Value>(yaml).unwrap();
        }
        let mut found = Vec::new();
        references(&DOCUMENT, &mut found);
        assert!(found.len() > 20);
        for reference in found {
            let path = reference.strip_prefix('#').unwrap();
            assert!(DOCUMENT.pointer(path).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn every_operation_has_a_name_of_its_own() {
        let mut names = Vec::new();
        for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let at = format!("{method} {path}");
                names.push(operation["operationId"].as_str().expect(&at).to_owned());
                assert!(operation["summary"].is_string() && operation["tags"].is_array(), "{at}");
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
