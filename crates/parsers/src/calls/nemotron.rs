//! Nemotron 3: what [Qwen3-Coder](super::qwen3_xml) writes, or a JSON object in place of the parameters.

use super::parameter::CALL_END;
use super::{CallFormat, qwen3_xml};

/// The format.
pub(crate) const FORMAT: CallFormat = CallFormat {
    names: &["nemotron", "nemotron3"],
    markers: &["<tool_call>", CALL_END],
    stops: &[],
    native_history: false,
    parser: qwen3_xml::parser,
    shape: qwen3_xml::shape,
};
