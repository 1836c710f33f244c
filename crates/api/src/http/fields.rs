//! The fields of a JSON body, taken one by one with their names in every error.

use std::ops::RangeInclusive;

use axum::{
    body::{Body, Bytes, to_bytes},
    http::StatusCode,
};
use serde_json::{Map, Value};

use super::{ApiError, body_time::TooSlow};

/// Reads a body of at most `limit` bytes.
///
/// # Errors
/// 413 if it is longer, 408 if it takes too long, 400 if it breaks off.
pub async fn read_body(body: Body, limit: usize) -> Result<Bytes, ApiError> {
    to_bytes(body, limit).await.map_err(|error| {
        let mut source: Option<&dyn std::error::Error> = Some(&error);
        while let Some(inner) = source {
            if inner.to_string().contains("length limit exceeded") {
                let message = format!("the body is longer than {limit} bytes");
                return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", message);
            }
            if inner.is::<TooSlow>() {
                return ApiError::new(StatusCode::REQUEST_TIMEOUT, "request_timeout", inner.to_string());
            }
            source = inner.source();
        }
        ApiError::invalid(None, format!("the body could not be read: {error}"))
    })
}

/// A JSON object whose fields are taken out one by one. `null` counts as absent.
#[derive(Debug)]
pub struct Fields {
    map: Map<String, Value>,
    /// Put before field names in errors: `stream_options.`.
    prefix: String,
}

impl Fields {
    /// Parses a body.
    ///
    /// # Errors
    /// 400 if it isn't a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        let value: Value = serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(None, format!("the body is not valid JSON: {error}")))?;
        match value {
            Value::Object(map) => Ok(Self { map, prefix: String::new() }),
            other => Err(ApiError::invalid(None, format!("the body is {}: it must be a JSON object", kind(&other)))),
        }
    }

    /// The fields of a body that somebody else has parsed.
    #[must_use]
    pub fn from_map(map: Map<String, Value>) -> Self {
        Self { map, prefix: String::new() }
    }

    /// The fields of an object within a body; `path` is where it stands: `messages[0]`.
    #[must_use]
    pub fn within(path: &str, map: Map<String, Value>) -> Self {
        Self { map, prefix: format!("{path}.") }
    }

    /// An object inside a body; `name` says where, as errors have it: `input[3]`.
    ///
    /// # Errors
    /// 400 if it isn't one.
    pub fn of(value: Value, name: &str) -> Result<Self, ApiError> {
        match value {
            Value::Object(map) => Ok(Self::within(name, map)),
            other => Err(ApiError::field(name, format!("{name} is {}: it must be an object", show(&other)))),
        }
    }

    /// A field's name as errors have it.
    #[must_use]
    pub fn path(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Puts a field back, or another in its place.
    pub fn put(&mut self, name: &str, value: Value) {
        self.map.insert(name.to_owned(), value);
    }

    /// A field as it stands.
    pub fn value(&mut self, name: &str) -> Option<Value> {
        self.map.remove(name).filter(|value| !value.is_null())
    }

    /// Whether a field is there, and is null: where that says something else than its absence.
    #[must_use]
    pub fn is_null(&self, name: &str) -> bool {
        self.map.get(name).is_some_and(Value::is_null)
    }

    /// A string.
    ///
    /// # Errors
    /// 400 if it is something else; so too below.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong(name, &other, "a string")),
        }
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// See [`Fields::string`].
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(other) => Err(self.wrong(name, &other, "true or false")),
        }
    }

    /// A number. Ranges of sampling parameters are checked where they are defined.
    ///
    /// # Errors
    /// See [`Fields::string`].
    pub fn number(&mut self, name: &str) -> Result<Option<f32>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number as f32)),
                None => Err(self.wrong(name, &value, "a number")),
            },
        }
    }

    /// A whole number in `range`.
    ///
    /// # Errors
    /// See [`Fields::string`].
    pub fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let (low, high) = (*range.start(), *range.end());
        match value.as_i64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            Some(_) | None if value.is_number() && high == i64::MAX => {
                Err(self.wrong(name, &value, &format!("a whole number of at least {low}")))
            }
            _ => Err(self.wrong(name, &value, &format!("a whole number from {low} to {high}"))),
        }
    }

    /// An object.
    ///
    /// # Errors
    /// See [`Fields::string`].
    pub fn object(&mut self, name: &str) -> Result<Option<Fields>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Self { map, prefix: format!("{}{name}.", self.prefix) })),
            Some(other) => Err(self.wrong(name, &other, "an object")),
        }
    }

    /// An array.
    ///
    /// # Errors
    /// See [`Fields::string`].
    pub fn array(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        match self.value(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(self.wrong(name, &other, "an array")),
        }
    }

    /// What is left.
    #[must_use]
    pub fn into_map(self) -> Map<String, Value> {
        self.map
    }

    /// Notes the fields that nobody asked for. They change nothing, as with OpenAI.
    pub fn finish(self) {
        for name in self.map.keys() {
            tracing::debug!(field = %format!("{}{name}", self.prefix), "unknown field ignored");
        }
    }

    /// Refuses the fields that nobody asked for.
    ///
    /// # Errors
    /// 400 if there is one.
    pub fn refuse_rest(mut self) -> Result<(), ApiError> {
        self.map.retain(|_, value| !value.is_null());
        self.map.keys().next().map_or(Ok(()), |name| {
            let path = self.path(name);
            Err(ApiError::field(&path, format!("there is no field {path:?} here")).with_code("unknown_parameter"))
        })
    }

    fn wrong(&self, name: &str, value: &Value, allowed: &str) -> ApiError {
        let name = self.path(name);
        ApiError::field(&name, format!("{name} is {}: it must be {allowed}", show(value)))
    }
}

/// A value as an error message shows it: short.
pub fn show(value: &Value) -> String {
    match value {
        Value::Array(_) | Value::Object(_) => kind(value).to_owned(),
        scalar => {
            let text = scalar.to_string();
            match text.char_indices().nth(60) {
                Some((cut, _)) => format!("{}…", &text[..cut]),
                None => text,
            }
        }
    }
}

/// What sort of value it is.
pub fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
