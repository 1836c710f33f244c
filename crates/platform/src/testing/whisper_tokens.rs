//! A tokenizer laid out like Whisper's, small enough for tests.

use std::{fmt::Write, ops::Range};

use crate::TokenId;

/// " zero" to " nine", behind the bytes.
pub(super) const WORDS: Range<TokenId> = 256..266;
pub(super) const EOT: TokenId = 266;
pub(super) const SOT: TokenId = 267;
pub(super) const LANGUAGES: Range<TokenId> = 268..271;
pub(super) const NO_SPEECH: TokenId = 275;
pub(super) const NO_TIMESTAMPS: TokenId = 276;
pub(super) const TIMESTAMP_BEGIN: TokenId = 277;
/// With times from 0.00 to 30.00 s.
pub(super) const VOCAB_SIZE: usize = TIMESTAMP_BEGIN as usize + 1501;

const NAMES: [&str; 10] = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"];
const MARKS: [&str; 11] = [
    "endoftext",
    "startoftranscript",
    "en",
    "de",
    "ja",
    "translate",
    "transcribe",
    "startoflm",
    "startofprev",
    "nospeech",
    "notimestamps",
];

/// A `tokenizer.json` for [`FakeListener`](super::FakeListener): the bytes, ten words, and Whisper's marks with English, German
/// and Japanese. It knows no merges: it reads texts byte by byte.
#[must_use]
pub fn whisper_tokenizer() -> String {
    let mut json = String::from(
        r#"{"version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "added_tokens": ["#,
    );
    // Writing to a string does not fail.
    for (id, mark) in (EOT..).zip(MARKS) {
        let comma = if id == EOT { "" } else { ", " };
        let _ = write!(
            json,
            r#"{comma}{{"id": {id}, "content": "<|{mark}|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}}"#
        );
    }
    json.push_str(
        r#"], "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "merges": [], "vocab": {"#,
    );
    for byte in 0..=255 {
        // Every character beyond ASCII can be written as it is; of the others two need a backslash.
        let letter = match byte_letter(byte) {
            escaped @ ('"' | '\\') => format!("\\{escaped}"),
            letter => letter.into(),
        };
        let _ = write!(json, r#""{letter}": {byte}, "#);
    }
    for (id, name) in WORDS.zip(NAMES) {
        let _ = write!(json, r#""Ġ{name}": {id}{}"#, if id + 1 == WORDS.end { "}}}" } else { ", " });
    }
    json
}

/// The letter that stands for a byte in GPT-2's vocabularies: itself if it can be seen, otherwise one from U+0100 on.
fn byte_letter(byte: u8) -> char {
    let seen = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if seen(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|&byte| !seen(byte)).count() as u32;
    char::from_u32(0x100 + before).unwrap_or(char::REPLACEMENT_CHARACTER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_have_the_letters_of_gpt_2() {
        let letters = [(b'a', 'a'), (0, 'Ā'), (b'\n', 'Ċ'), (b' ', 'Ġ'), (0x7F, 'ġ'), (0xAD, 'Ń'), (0xFF, 'ÿ')];
        for (byte, letter) in letters {
            assert_eq!(byte_letter(byte), letter, "{byte}");
        }
        let mark = |token: TokenId| MARKS[(token - EOT) as usize];
        assert_eq!([SOT, NO_SPEECH, NO_TIMESTAMPS].map(mark), ["startoftranscript", "nospeech", "notimestamps"]);
        assert_eq!(
            (mark(LANGUAGES.start), mark(LANGUAGES.end), TIMESTAMP_BEGIN as usize),
            ("en", "translate", 266 + 11)
        );
    }
}
