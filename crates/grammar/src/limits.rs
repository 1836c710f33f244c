//! What one request may cost. The figures behind these are in docs/decisions/0013-structured-output.md.

use std::time::Duration;

use llguidance::api::ParserLimits;

/// For the first mask, with nobody but its client waiting.
pub(crate) const FIRST_MASK: Duration = Duration::from_secs(1);

/// For any other mask: the whole engine may wait for it.
pub(crate) const MASK: Duration = Duration::from_millis(500);

/// Bytes of a schema's names and strings, and of a grammar or a regular expression.
pub(crate) const MAX_BYTES: usize = 256 << 10;

/// Values in a schema.
pub(crate) const MAX_VALUES: usize = 20_000;

/// Levels of nesting, in whatever is written with brackets.
pub(crate) const MAX_DEPTH: usize = 64;

/// Choices, or parts of a shape.
pub(crate) const MAX_PARTS: usize = 10_000;

/// Bytes of a grammar's own text.
pub(crate) const MAX_TEXT: usize = 32 << 10;

/// Bytes of one regular expression. What it takes to follow a long one grows with the square of this.
pub(crate) const MAX_REGEX: usize = 8 << 10;

/// Properties of one object: what can follow an optional one is looked at for each.
pub(crate) const MAX_PROPERTIES: usize = 1000;

/// Largest divisor: a number is divided by an automaton of so many states.
pub(crate) const MAX_DIVISOR: f64 = 10_000.0;

/// Characters that a regular expression has with all its repetitions written out.
pub(crate) const MAX_UNROLLED: u64 = 20_000;

/// Times that something may be asked to repeat.
pub(crate) const MAX_TIMES: usize = 10_000;

/// Stack for compiling: what nests is walked by recursion.
pub(crate) const STACK: usize = 32 << 20;

/// Limits of llguidance, per request. Its own are for one user.
pub(crate) fn parser() -> ParserLimits {
    ParserLimits {
        max_lexer_states: 50_000,
        max_grammar_size: 200_000,
        precompute_large_lexemes: false,
        verbose_errors: false,
        ..ParserLimits::default()
    }
}
