//! Chains of thought: what a request says of them, and what an answer's blocks are signed with.

use serde_json::json;
use sha2::{Digest as _, Sha256};

use crate::http::{ApiError, Fields, chat::Thinking, fields::show};

/// What `thinking` asks for.
#[derive(Debug, Default)]
pub struct ThinkingConfig {
    pub thinking: Thinking,
    /// Whether the text of the chain of thought is left out of its block.
    pub omitted: bool,
}

/// Takes `thinking`. Without it the model thinks or not as its template has it.
///
/// Budgets may be of any size: Anthropic's least of 1024 tokens is much for a small model.
pub fn take(fields: &mut Fields) -> Result<ThinkingConfig, ApiError> {
    let Some(mut config) = fields.object("thinking")? else { return Ok(ThinkingConfig::default()) };
    let (enabled, budget) = match config.string("type")?.as_deref() {
        Some("enabled") => (true, config.integer("budget_tokens", 1..=i64::MAX)?),
        // When and how much is the model's own affair, as it is with all models here.
        Some("adaptive") => (true, None),
        Some("disabled") => (false, None),
        Some(other) => {
            let shown = show(&json!(other));
            let message = format!("thinking.type is {shown}: it must be enabled, adaptive or disabled");
            return Err(ApiError::unsupported("thinking.type", message));
        }
        None => return Err(ApiError::field("thinking.type", "thinking.type is missing")),
    };
    let omitted = match config.string("display")?.as_deref() {
        None | Some("summarized") => false,
        Some("omitted") => true,
        Some(other) => {
            let message = format!("thinking.display is {}: it must be summarized or omitted", show(&json!(other)));
            return Err(ApiError::field("thinking.display", message));
        }
    };
    config.finish();
    let budget = budget.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
    Ok(ThinkingConfig { thinking: Thinking { enabled: Some(enabled), budget, ..Thinking::default() }, omitted })
}

/// The hardness that `output_config.effort` names, in the words of templates: they know three.
pub fn effort(effort: &str) -> Result<String, ApiError> {
    match effort {
        "low" | "medium" | "high" => Ok(effort.to_owned()),
        "xhigh" | "max" => Ok("high".to_owned()),
        other => {
            let name = "output_config.effort";
            let message = format!("{name} is {}: it must be low, medium, high, xhigh or max", show(&json!(other)));
            Err(ApiError::field(name, message))
        }
    }
}

/// Begins a signature that holds a whole chain of thought.
const HOLDS: &str = "thought-";

/// The signature of a block. Clients send it back with the block, unread. If the chain of thought is left out of the
/// block, it is in here, so that the next turn has it all the same.
pub fn sign(thought: &str, omitted: bool) -> String {
    if omitted {
        return format!("{HOLDS}{}", hex(thought.as_bytes()));
    }
    format!("sha256-{}", hex(&Sha256::digest(thought.as_bytes())[..16]))
}

/// The chain of thought of a block that was sent back. That of a block by another server is what it shows.
pub fn recall(shown: String, signature: Option<&str>) -> String {
    let held = signature.and_then(|signature| signature.strip_prefix(HOLDS)).filter(|_| shown.is_empty());
    held.and_then(unhex).unwrap_or(shown)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<String> {
    let digit = |&digit: &u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8]| match pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    String::from_utf8(text.as_bytes().chunks(2).map(byte).collect::<Option<_>>()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thought_left_out_comes_back_with_its_signature() {
        let thought = "hm, é";
        let (omitted, shown) = (sign(thought, true), sign(thought, false));
        let cases = [
            ("left out", "", Some(omitted.as_str()), thought),
            ("shown", thought, Some(shown.as_str()), thought),
            ("shown, whatever its signature", "x", Some(omitted.as_str()), "x"),
            ("another server's", "", Some("EuYBCkQYAiJA"), ""),
            ("odd digits", "", Some("thought-616"), ""),
            ("no digits", "", Some("thought-6x"), ""),
            ("no text", "", Some("thought-ff"), ""),
            ("none", "x", None, "x"),
        ];
        for (name, text, signature, wanted) in cases {
            assert_eq!(recall(text.to_owned(), signature), wanted, "{name}");
        }
        assert!(!sign("", false).is_empty() && !sign("", true).is_empty());
    }
}
