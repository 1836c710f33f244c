//! Fields of OpenAI's that ask for what this server doesn't have.

use serde_json::Value;

use crate::http::{ApiError, Fields};

/// Takes them: each is an error, unless it asks for what is done anyhow.
///
/// # Errors
/// 400 naming the field.
pub fn what_is_not_there(fields: &mut Fields) -> Result<(), ApiError> {
    let refuse = |name: &str, what: &str| Err(ApiError::unsupported(name, format!("{name}: {what}")));
    let absent = [
        ("conversation", "this server has no conversations: use previous_response_id"),
        ("prompt", "this server has no prompt templates: use instructions and input"),
        ("moderation", "this server does not moderate"),
        ("image", "this model takes text only"),
        ("background_options", "leave it out: work in the background starts at once"),
    ];
    for (name, what) in absent {
        if fields.value(name).is_some() {
            return refuse(name, what);
        }
    }
    if fields.array("context_management")?.is_some_and(|rules| !rules.is_empty()) {
        return refuse("context_management", "this server does not compact: use truncation");
    }
    if fields.integer("n", 1..=i64::MAX)?.is_some_and(|n| n > 1) {
        return refuse("n", "a response has one answer");
    }
    if let Some(mut options) = fields.object("prompt_cache_options")? {
        for name in ["comparison_response_id", "ttl"] {
            if options.value(name).is_some() {
                return refuse(&format!("prompt_cache_options.{name}"), "is not supported: leave it out");
            }
        }
        let explicit = options.value("mode").is_some_and(|mode| mode != "implicit");
        if explicit || options.value("prewarm").is_some_and(|prewarm| prewarm != Value::Bool(false)) {
            return refuse("prompt_cache_options", "every prompt is cached as it is computed: leave it out");
        }
        options.finish();
    }
    Ok(())
}
