//! Streaming: whatever the tokens, the parts make the whole.

mod common;

use common::{byte_level, sentence_piece};
use proptest::prelude::*;
use vllm_text::{Delta, Detokenizer, StopStrings, TextStream, Tokenizer};

fn stream(tokenizer: &Tokenizer, prompt: &[u32], stops: &[&str]) -> TextStream {
    let detokenizer = Detokenizer::new(tokenizer, prompt, true).expect("streams");
    TextStream::new(detokenizer, StopStrings::new(stops, false).expect("stop strings"))
}

/// Text of each token, and of the end.
fn texts(tokenizer: &Tokenizer, prompt: &[u32], tokens: &[u32]) -> Vec<String> {
    let mut stream = stream(tokenizer, prompt, &[]);
    let mut texts: Vec<String> = tokens.iter().map(|&token| stream.push(token).text).collect();
    texts.push(stream.finish().text);
    texts
}

/// Name, tokens of the prompt, tokens of the answer, text of each and of the end.
type Case<'a> = (&'a str, &'a [u32], &'a [u32], &'a [&'a str]);

#[test]
fn byte_level_tokens() {
    let tokenizer = Tokenizer::from_gguf(&byte_level()).expect("a tokenizer");
    let byte = |byte: u8| u32::from(byte) + 4;
    let cases: &[Case] = &[
        ("words keep their spaces", &[], &[262, 262], &[" the", " the", ""]),
        ("halves wait", &[], &[byte(0xC3), byte(0xA9)], &["", "é", ""]),
        ("control tokens are silent", &[], &[262, 0, 262], &[" the", "", " the", ""]),
        ("even within a character", &[], &[byte(0xC3), 0, byte(0xA9)], &["", "", "é", ""]),
        ("a half at the end", &[], &[262, byte(0xC3)], &[" the", "", "\u{FFFD}"]),
        ("two halves of different characters", &[], &[byte(0xC3), byte(0xC3), byte(0xA9)], &["", "\u{FFFD}", "é", ""]),
        ("a half in the prompt", &[262, byte(0xC3)], &[byte(0xA9)], &["é", ""]),
        ("unknown ids are silent", &[], &[3, 99_999], &["", "", ""]),
    ];
    for (name, prompt, tokens, expected) in cases {
        assert_eq!(texts(&tokenizer, prompt, tokens), *expected, "{name}");
    }
}

#[test]
fn sentence_piece_tokens() {
    let tokenizer = Tokenizer::from_gguf(&sentence_piece()).expect("a tokenizer");
    let id = |piece: &str| tokenizer.token_to_id(piece).expect(piece);
    let (word, spaces, space, a) = (id("▁ab"), id("▁▁"), id("▁"), id("a"));
    let cases: &[Case] = &[
        ("a text starts without the added space", &[], &[word, word], &["ab", " ab", ""]),
        ("BOS alone is no text yet", &[1], &[word], &["ab", ""]),
        ("an answer keeps its space", &[1, word], &[word], &[" ab", ""]),
        ("only one space is the added one", &[], &[spaces, a], &[" ", "a", ""]),
        ("which may be a token by itself", &[], &[space, word], &["", " ab", ""]),
        ("byte tokens", &[1, a], &[id("<0xC3>"), id("<0x9F>"), a], &["", "ß", "a", ""]),
        ("broken byte tokens", &[1, a], &[id("<0xC3>"), a], &["", "\u{FFFD}a", ""]),
    ];
    for (name, prompt, tokens, expected) in cases {
        assert_eq!(texts(&tokenizer, prompt, tokens), *expected, "{name}");
    }
}

#[test]
fn stop_strings_over_tokens() {
    let tokenizer = Tokenizer::from_gguf(&byte_level()).expect("a tokenizer");
    let delta =
        |text: &str, stopped: Option<&str>| Delta { text: text.to_owned(), stopped: stopped.map(str::to_owned) };
    let ids = tokenizer.encode("a the\nUser", false).expect("tokens");
    let mut stopping = stream(&tokenizer, &[], &["he\nU"]);
    let deltas: Vec<Delta> = ids.iter().map(|&id| stopping.push(id)).collect();
    let expected = [
        delta("a", None),
        delta(" t", None),
        delta("", None),
        delta("", Some("he\nU")),
        delta("", None),
        delta("", None),
        delta("", None),
    ];
    assert_eq!(deltas, expected);
    assert_eq!(stopping.finish(), delta("", None));

    let mut almost = stream(&tokenizer, &[], &[" the end"]);
    assert_eq!(almost.push(262), delta("", None));
    assert_eq!(almost.finish(), delta(" the", None));

    // The replacement of an unfinished character can complete a stop string like any other text.
    let mut broken = stream(&tokenizer, &[], &["\u{FFFD}"]);
    assert_eq!(broken.push(0xC3 + 4), delta("", None));
    assert_eq!(broken.finish(), delta("", Some("\u{FFFD}")));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]
    #[test]
    fn the_parts_are_the_whole(tokens in prop::collection::vec(0_u32..280, 0..40), skip_special: bool) {
        for vocab in [byte_level(), sentence_piece()] {
            let tokenizer = Tokenizer::from_gguf(&vocab).expect("a tokenizer");
            let mut detokenizer = Detokenizer::new(&tokenizer, &[], skip_special).expect("streams");
            let mut text = String::new();
            for &token in &tokens {
                text.push_str(detokenizer.push(token));
            }
            text.push_str(detokenizer.finish());
            prop_assert_eq!(text, tokenizer.decode(&tokens, skip_special).expect("text"));
        }
    }
}
