//! What a tokenizer's decoder does to one piece.

use serde_json::Value;
use tokenizers::DecoderWrapper;

use crate::byte_level::ByteAlphabet;
use crate::error::{Result, TextError};
use crate::token_table::StartRule;

/// A step of the decoder, seen from one piece.
enum Step {
    /// The piece is written in the byte-level alphabet. Ends the rewrite.
    ByteLevel(Box<ByteAlphabet>),
    /// A piece `<0x0A>` is one byte. Ends the rewrite for such a piece.
    ByteFallback,
    /// Replaces a string everywhere in the piece.
    Replace { from: String, to: String },
    /// Removes a character up to so many times at the start of each piece.
    StripStart { content: char, count: usize },
}

/// The per-piece part of a decoder.
pub(crate) struct Rewrite {
    steps: Vec<Step>,
    start_rule: StartRule,
}

impl Rewrite {
    /// Takes `decoder` apart.
    ///
    /// # Errors
    /// [`TextError::UnsupportedDecoder`] if the text of a sequence is not the concatenation of its pieces' texts.
    pub(crate) fn of(decoder: Option<&DecoderWrapper>) -> Result<Self> {
        let unsupported = |what: &str| TextError::UnsupportedDecoder(what.to_owned());
        let decoder = decoder.ok_or_else(|| unsupported("none: pieces are joined by spaces"))?;
        // The decoders' fields are private, their serialized form (that of tokenizer.json) is not.
        let description = serde_json::to_value(decoder).map_err(|error| unsupported(&error.to_string()))?;
        let mut rewrite = Self { steps: Vec::new(), start_rule: StartRule::Keep };
        let mut fused = false;
        rewrite.add(&description, &mut fused)?;
        Ok(rewrite)
    }

    /// Appends the decoder described by `node`; `fused` says whether the pieces were already joined.
    fn add(&mut self, node: &Value, fused: &mut bool) -> Result<()> {
        let unsupported = || TextError::UnsupportedDecoder(node.to_string());
        let text = |key: &str| node[key].as_str();
        match text("type").ok_or_else(unsupported)? {
            "Sequence" => {
                for step in node["decoders"].as_array().ok_or_else(unsupported)? {
                    self.add(step, fused)?;
                }
            }
            "ByteLevel" if !*fused => self.steps.push(Step::ByteLevel(Box::new(ByteAlphabet::new()))),
            "ByteFallback" if !*fused => self.steps.push(Step::ByteFallback),
            "Fuse" => *fused = true,
            "Replace" if !*fused => {
                let from = node["pattern"]["String"].as_str().ok_or_else(unsupported)?;
                let to = text("content").ok_or_else(unsupported)?;
                self.steps.push(Step::Replace { from: from.to_owned(), to: to.to_owned() });
            }
            "Metaspace" if !*fused => {
                let from = text("replacement").ok_or_else(unsupported)?;
                self.steps.push(Step::Replace { from: from.to_owned(), to: " ".to_owned() });
                if text("prepend_scheme") != Some("never") {
                    self.start_rule = StartRule::StripFirstToken;
                }
            }
            "Strip" => {
                let content = text("content").and_then(|s| s.chars().next()).ok_or_else(unsupported)?;
                let count = node["start"].as_u64().ok_or_else(unsupported)? as usize;
                // Something stripped at the end could only be shown once the end is known.
                if node["stop"] != 0 || (*fused && content != ' ') {
                    return Err(unsupported());
                }
                if *fused {
                    self.start_rule = StartRule::StripText(count);
                } else {
                    self.steps.push(Step::StripStart { content, count });
                }
            }
            _ => return Err(unsupported()),
        }
        Ok(())
    }

    /// What happens to spaces at the start of a text.
    pub(crate) fn start_rule(&self) -> StartRule {
        self.start_rule
    }

    /// Appends the bytes of `piece` to `out`. `literal` pieces (added tokens that no normalizer rewrote) are their own
    /// text and not written in the byte alphabet, even where their characters belong to it (`é`).
    pub(crate) fn apply(&self, mut piece: String, literal: bool, out: &mut Vec<u8>) {
        for step in &self.steps {
            match step {
                Step::ByteLevel(_) if literal => break,
                Step::ByteLevel(alphabet) => return alphabet.decode_into(&piece, out),
                Step::ByteFallback => {
                    if let Some(byte) = byte_of_fallback_piece(&piece) {
                        return out.push(byte);
                    }
                }
                Step::Replace { from, to } => {
                    if piece.contains(from.as_str()) {
                        piece = piece.replace(from.as_str(), to);
                    }
                }
                Step::StripStart { content, count } => {
                    let stripped = piece.chars().take(*count).take_while(|c| c == content).count();
                    piece.drain(..stripped * content.len_utf8());
                }
            }
        }
        out.extend_from_slice(piece.as_bytes());
    }
}

/// The byte that a SentencePiece byte token such as `<0x0A>` stands for.
pub(crate) fn byte_of_fallback_piece(piece: &str) -> Option<u8> {
    let digits = piece.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rewrite(decoder: Value) -> Result<Rewrite> {
        let decoder: DecoderWrapper = serde_json::from_value(decoder).expect("a valid decoder");
        Rewrite::of(Some(&decoder))
    }

    #[test]
    fn pieces_become_bytes() {
        let llama = json!({"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        let metaspace = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
        let strip_each = json!({"type": "Sequence", "decoders": [
            {"type": "Strip", "content": "_", "start": 2, "stop": 0}, {"type": "Fuse"}]});
        type Case<'a> = (&'a str, &'a Value, &'a str, bool, &'a [u8], StartRule);
        let cases: &[Case] = &[
            ("llama word", &llama, "▁the", false, b" the", StartRule::StripText(1)),
            ("llama byte", &llama, "<0xF0>", false, &[0xF0], StartRule::StripText(1)),
            ("not a byte", &llama, "<0xF>", false, b"<0xF>", StartRule::StripText(1)),
            ("byte level", &byte_level, "Ġthe", false, b" the", StartRule::Keep),
            ("byte level, added", &byte_level, "é", true, "é".as_bytes(), StartRule::Keep),
            ("llama, added", &llama, "▁▁", true, b"  ", StartRule::StripText(1)),
            ("metaspace", &metaspace, "▁the", false, b" the", StartRule::StripFirstToken),
            ("strip each", &strip_each, "___a", false, b"_a", StartRule::Keep),
        ];
        for (name, decoder, piece, literal, expected, start_rule) in cases {
            let rewrite = rewrite((*decoder).clone()).expect(name);
            let mut out = Vec::new();
            rewrite.apply((*piece).to_owned(), *literal, &mut out);
            assert_eq!(out, *expected, "{name}");
            assert_eq!(rewrite.start_rule(), *start_rule, "{name}");
        }
    }

    #[test]
    fn decoders_that_need_the_whole_text_are_refused() {
        let cases = [
            ("WordPiece", json!({"type": "WordPiece", "prefix": "##", "cleanup": true})),
            ("Strip at the end", json!({"type": "Strip", "content": " ", "start": 0, "stop": 1})),
            ("regex", json!({"type": "Replace", "pattern": {"Regex": " +"}, "content": " "})),
        ];
        for (name, decoder) in cases {
            assert!(matches!(rewrite(decoder), Err(TextError::UnsupportedDecoder(_))), "{name}");
        }
        assert!(matches!(Rewrite::of(None), Err(TextError::UnsupportedDecoder(_))));
    }
}
