//! Detokenizing: the texts of the tokens are the text of all of them, and encoding is undone by decoding.
//!
//! Input: a byte for the vocabulary, then a byte a token.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::{Corpus, fuzz_target};
use vllm_fuzz::head;
use vllm_text::{Detokenizer, StopStrings, TextStream, Tokenizer};

#[path = "../../crates/text/tests/common/mod.rs"]
mod common;

/// Vocabularies with where in them the tokens of bytes begin.
static TOKENIZERS: LazyLock<[(Tokenizer, u32); 3]> = LazyLock::new(|| {
    let json = common::byte_level_json().to_string();
    [
        (Tokenizer::from_gguf(&common::byte_level()).expect("a tokenizer"), 4),
        (Tokenizer::from_json_bytes(json.as_bytes(), "fuzz").expect("a tokenizer"), 4),
        (Tokenizer::from_gguf(&common::sentence_piece()).expect("a tokenizer"), 3),
    ]
});

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([choice], bytes)) = head(data) else { return Corpus::Reject };
    let (tokenizer, first_byte) = &TOKENIZERS[usize::from(choice) % TOKENIZERS.len()];
    let (skip_special, far) = (choice & 64 != 0, choice & 128 != 0);
    // Bytes as text would have them, or the other ids, too: special ones, longer ones and ones that there aren't.
    let id = |byte: &u8| if far && *byte >= 224 { u32::from(*byte) - 224 + 250 } else { u32::from(*byte) + first_byte };
    let tokens: Vec<u32> =
        bytes.iter().map(|byte| if far && *byte < 4 { u32::from(*byte) } else { id(byte) }).collect();

    let whole = tokenizer.decode(&tokens, skip_special).expect("every sequence of tokens is a text");
    let detokenizer = Detokenizer::new(tokenizer, &[], skip_special).expect("a vocabulary that streams");
    let no_stops: [&str; 0] = [];
    let mut stream = TextStream::new(detokenizer, StopStrings::new(no_stops, false).expect("none is empty"));
    let mut text = String::new();
    for token in tokens {
        text.push_str(&stream.push(token).text);
    }
    text.push_str(&stream.finish().text);
    assert_eq!(text, whole);

    // A SentencePiece vocabulary as small as this one hasn't all characters.
    if let (Ok(text), 4) = (std::str::from_utf8(bytes), *first_byte) {
        let tokens = tokenizer.encode(text, false).expect("any text has tokens");
        assert_eq!(tokenizer.decode(&tokens, false).expect("tokens have a text"), text);
    }
    Corpus::Keep
});
