//! Bounds of numbers, in what llguidance can count in.

use serde_json::{Map, Value};

use crate::error::{GrammarError, Result};
use crate::limits;

/// Largest number that llguidance can count to: the last `f64` below 2⁶³.
const LARGEST: f64 = 9_223_372_036_854_774_784.0;

/// Narrows bounds that are out of reach to those that are not, which loses only numbers that nobody wants, and refuses
/// those that would leave none.
pub(crate) fn keep_in_range(schema: &mut Map<String, Value>) -> Result<()> {
    for (keyword, sign) in [("minimum", -1.0), ("exclusiveMinimum", -1.0), ("maximum", 1.0), ("exclusiveMaximum", 1.0)]
    {
        let Some(bound) = schema.get(keyword).and_then(Value::as_f64) else { continue };
        if bound * sign > LARGEST {
            schema.insert(keyword.to_owned(), Value::from(LARGEST * sign));
        } else if bound * sign < -LARGEST {
            return Err(GrammarError::Invalid(format!("{keyword} {bound:e}: numbers beyond 2^63 are not supported")));
        }
    }
    match schema.get("multipleOf").and_then(Value::as_f64) {
        Some(divisor) if divisor > limits::MAX_DIVISOR => Err(GrammarError::Invalid(format!(
            "multipleOf {divisor}: divisors beyond {} are not supported",
            limits::MAX_DIVISOR
        ))),
        _ => Ok(()),
    }
}
