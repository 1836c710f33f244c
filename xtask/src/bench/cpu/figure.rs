//! What is measured.

use super::{
    model::{Goal, Model},
    work::{GENERATE, LONG, PROMPT, STREAMS},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Figure {
    /// Tokens a second of a prompt.
    Prefill,
    /// The same of a long one.
    LongPrefill,
    /// Tokens a second, one sequence, from its first token on.
    Decode,
    /// The same after a prompt.
    DecodeAfter,
    /// Tokens a second of many sequences together, in process.
    Together,
    /// The same from a server over HTTP, its prompts' time included.
    Served,
    /// Bytes that the process held at most, of the prompt and what was generated after it.
    Peak,
    /// The same of the long prompt.
    LongPeak,
}

impl Figure {
    pub const ALL: [Self; 8] = [
        Self::Prefill,
        Self::LongPrefill,
        Self::Decode,
        Self::DecodeAfter,
        Self::Together,
        Self::Served,
        Self::Peak,
        Self::LongPeak,
    ];

    pub fn name(self) -> String {
        match self {
            Self::Prefill => format!("prefill of {PROMPT}, tok/s"),
            Self::LongPrefill => format!("prefill of {LONG}, tok/s"),
            Self::Decode => "decode from an empty context, tok/s".into(),
            Self::DecodeAfter => format!("decode after {PROMPT} tokens, tok/s"),
            Self::Together => format!("{STREAMS} at once in process, tok/s"),
            Self::Served => format!("{STREAMS} at once over HTTP, tok/s"),
            Self::Peak => format!("peak memory, {PROMPT} + {GENERATE} tokens, MB"),
            Self::LongPeak => format!("peak memory, {LONG} tokens, MB"),
        }
    }

    pub fn is_decode(self) -> bool {
        matches!(self, Self::Decode | Self::DecodeAfter)
    }

    pub fn goal(self, model: &Model) -> Option<Goal> {
        Some(match self {
            Self::Prefill => Goal::Times(2.5),
            Self::LongPrefill | Self::Together | Self::Served => Goal::Times(2.0),
            Self::Decode => model.decode,
            // After a prompt, a share of the bytes that are read is its KV: the weights' bandwidth says less.
            Self::DecodeAfter if matches!(model.decode, Goal::OfBandwidth(_)) => return None,
            Self::DecodeAfter => model.decode,
            Self::Peak | Self::LongPeak => Goal::AtMost(1.1),
        })
    }

    /// The number alone, in the unit of [`Figure::name`].
    pub fn number(self, value: f64) -> String {
        match self {
            Self::Peak | Self::LongPeak => format!("{:.0}", value / 1e6),
            _ => format!("{value:.1}"),
        }
    }

    /// Number and name.
    pub fn shown(self, value: f64) -> String {
        format!("{} {}", self.name(), self.number(value))
    }
}
