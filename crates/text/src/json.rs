//! A tokenizer as a `tokenizer.json`, wherever it came from.

use serde_json::{Value, json};

use crate::{
    error::{Result, TextError},
    tokenizer::Tokenizer,
};

impl Tokenizer {
    /// The tokenizer as a `tokenizer.json` that gives the same tokens: what somebody needs who tokenises elsewhere.
    ///
    /// # Errors
    /// [`TextError::Json`] for a tokenizer that the library can't write.
    pub fn to_json(&self) -> Result<String> {
        let invalid = |message: String| TextError::Json { origin: "the tokenizer".to_owned(), message };
        let (prefix, suffix) = self.ends();
        if prefix.or(suffix).is_none() {
            return self.inner().to_string(false).map_err(|error| invalid(error.to_string()));
        }
        let mut value = serde_json::to_value(self.inner()).map_err(|error| invalid(error.to_string()))?;
        value["post_processor"] = self.around(prefix, suffix);
        Ok(value.to_string())
    }

    /// The post-processor that puts these tokens before and after a text.
    fn around(&self, prefix: Option<u32>, suffix: Option<u32>) -> Value {
        let name = |id: u32| self.id_to_token(id).unwrap_or_default();
        let special = |id: Option<u32>| id.map(|id| json!({ "SpecialToken": { "id": name(id), "type_id": 0 } }));
        let text = |id: &str, type_id: u32| json!({ "Sequence": { "id": id, "type_id": type_id } });
        let between = |texts: Vec<Value>| -> Value {
            special(prefix).into_iter().chain(texts).chain(special(suffix)).collect::<Vec<_>>().into()
        };
        let tokens = prefix.into_iter().chain(suffix);
        let tokens = tokens.map(|id| (name(id), json!({ "id": name(id), "ids": [id], "tokens": [name(id)] })));
        json!({
            "type": "TemplateProcessing",
            "single": between(vec![text("A", 0)]),
            "pair": between(vec![text("A", 0), text("B", 1)]),
            "special_tokens": tokens.collect::<serde_json::Map<_, _>>(),
        })
    }
}
