//! The fields of a form, taken one by one as those of a JSON body are: what is left at the end is refused.

use std::str::FromStr;

use axum::http::Uri;
use serde_json::{Map, Value};

use crate::http::{ApiError, Fields};

/// Names and texts. One that stands in the query, as the original vllm-mlx has it, goes before the form's of that name.
#[derive(Debug, Default)]
pub struct Form(Vec<(String, String)>);

impl Form {
    /// Of a form's fields and a query.
    #[must_use]
    pub fn new(fields: Vec<(String, String)>, uri: &Uri) -> Self {
        let mut all = query(uri);
        all.extend(fields.into_iter().filter(|(name, _)| !in_query(uri, name)));
        Self(all)
    }

    /// All texts of a field, which may be called `name[]` too.
    pub fn list(&mut self, name: &str) -> Vec<String> {
        let is_it = |found: &str| found == name || found.strip_suffix("[]") == Some(name);
        self.0.extract_if(.., |(found, _)| is_it(found)).map(|(_, text)| text).collect()
    }

    /// A field's text. One that is empty counts as absent: forms have no other way to say so.
    ///
    /// # Errors
    /// 400 if it is there twice.
    pub fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        let mut texts = self.list(name);
        if texts.len() > 1 {
            return Err(ApiError::field(name, format!("{name} is there {} times", texts.len())));
        }
        Ok(texts.pop().filter(|text| !text.is_empty()))
    }

    /// A number.
    ///
    /// # Errors
    /// 400 if it is something else; so too below.
    pub fn number<T: FromStr>(&mut self, name: &str, allowed: &str) -> Result<Option<T>, ApiError> {
        let parse = |text: String| text.trim().parse().map_err(|_| wrong(name, &text, allowed));
        self.string(name)?.map(parse).transpose()
    }

    /// `true` or `false`.
    ///
    /// # Errors
    /// See [`Form::number`].
    pub fn boolean(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        match self.string(name)?.as_deref() {
            None => Ok(None),
            Some("true" | "True" | "1") => Ok(Some(true)),
            Some("false" | "False" | "0") => Ok(Some(false)),
            Some(text) => Err(wrong(name, text, "true or false")),
        }
    }

    /// A field that is a word or an object: written as JSON, or as the fields `name[key]` that SDKs make of it.
    ///
    /// # Errors
    /// 400 if it looks like JSON and isn't.
    pub fn structure(&mut self, name: &str) -> Result<Option<Value>, ApiError> {
        let mut map = Map::new();
        for (found, text) in self.0.extract_if(.., |(found, _)| key_of(found, name).is_some()) {
            let key = key_of(&found, name).unwrap_or_default().to_owned();
            // Numbers and switches have lost their types on the way.
            map.insert(key, serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
        match self.string(name)? {
            Some(_) if !map.is_empty() => Err(ApiError::field(name, format!("{name} is there in two ways"))),
            None if map.is_empty() => Ok(None),
            None => Ok(Some(Value::Object(map))),
            Some(text) if text.trim_start().starts_with(['{', '"']) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| ApiError::field(name, format!("{name} is not valid JSON: {error}"))),
            Some(text) => Ok(Some(Value::String(text))),
        }
    }

    /// Refuses what nobody asked for.
    ///
    /// # Errors
    /// 400 if there is anything.
    pub fn finish(self) -> Result<(), ApiError> {
        self.0.first().map_or(Ok(()), |(name, _)| {
            Err(ApiError::field(name, format!("there is no field {name:?} here")).with_code("unknown_parameter"))
        })
    }
}

/// Puts a query's fields before those of a JSON body of the same names: numbers and switches, where `fields` has them as such.
pub fn put_query(fields: &mut Fields, uri: &Uri, typed: &[&str]) {
    for (name, text) in query(uri) {
        let is_typed = typed.contains(&name.as_str());
        let value = is_typed.then(|| serde_json::from_str(&text).ok()).flatten();
        fields.put(&name, value.unwrap_or(Value::String(text)));
    }
}

fn query(uri: &Uri) -> Vec<(String, String)> {
    form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()).into_owned().collect()
}

fn in_query(uri: &Uri, name: &str) -> bool {
    query(uri).iter().any(|(found, _)| found == name)
}

/// `key` of `name[key]`.
fn key_of<'a>(found: &'a str, name: &str) -> Option<&'a str> {
    found.strip_prefix(name)?.strip_prefix('[')?.strip_suffix(']').filter(|key| !key.is_empty())
}

fn wrong(name: &str, text: &str, allowed: &str) -> ApiError {
    let shown: String = text.chars().take(60).collect();
    ApiError::field(name, format!("{name} is {shown:?}: it must be {allowed}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn form(fields: &[(&str, &str)], query: &str) -> Form {
        let fields = fields.iter().map(|&(name, text)| (name.to_owned(), text.to_owned())).collect();
        Form::new(fields, &format!("/x?{query}").parse().unwrap())
    }

    #[test]
    fn fields_have_their_types() {
        let mut all = form(&[("a", "x"), ("n", " 0.5 "), ("b", "true"), ("l[]", "1"), ("l[]", "2"), ("e", "")], "");
        assert_eq!(all.string("a").unwrap().as_deref(), Some("x"));
        assert_eq!(all.number::<f32>("n", "a number").unwrap(), Some(0.5));
        assert_eq!(all.boolean("b").unwrap(), Some(true));
        assert_eq!(all.list("l"), ["1", "2"]);
        assert_eq!(all.string("e").unwrap(), None);
        assert_eq!(all.string("none").unwrap(), None);
        all.finish().unwrap();
        let wrong = form(&[("n", "x")], "").number::<f32>("n", "a number").unwrap_err();
        assert_eq!(wrong.message(), "n is \"x\": it must be a number");
        assert!(form(&[("a", "1"), ("a", "2")], "").string("a").is_err());
        assert_eq!(form(&[("z", "1")], "").finish().unwrap_err().code(), Some("unknown_parameter"));
    }

    #[test]
    fn the_query_goes_before_the_form() {
        let mut both = form(&[("model", "a"), ("language", "en")], "model=b%20c");
        assert_eq!(both.string("model").unwrap().as_deref(), Some("b c"));
        assert_eq!(both.string("language").unwrap().as_deref(), Some("en"));
    }

    #[test]
    fn structures_in_every_writing() {
        let object = json!({ "type": "server_vad", "threshold": 0.5 });
        type Parts<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Parts<'_>, Option<Value>); 5] = [
            (&[("c", "auto")], Some(json!("auto"))),
            (&[("c", "\"auto\"")], Some(json!("auto"))),
            (&[("c", r#"{"type": "server_vad", "threshold": 0.5}"#)], Some(object.clone())),
            (&[("c[type]", "server_vad"), ("c[threshold]", "0.5")], Some(object)),
            (&[], None),
        ];
        for (fields, wanted) in cases {
            let mut form = form(fields, "");
            assert_eq!(form.structure("c").unwrap(), wanted, "{fields:?}");
            form.finish().unwrap();
        }
        assert!(form(&[("c", "{x")], "").structure("c").is_err());
        assert!(form(&[("c", "auto"), ("c[type]", "x")], "").structure("c").is_err());
    }
}
