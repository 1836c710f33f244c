//! Tokenizers from GGUF metadata and from JSON: tokens, texts, and what is wrong with bad files.

mod common;

use common::{byte_level, byte_level_json, sentence_piece};
use vllm_checkpoint::{GgufVocab, TokenType};
use vllm_text::{TextError, Tokenizer};

/// Pieces of `text`, and that they decode to it again.
fn pieces(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Vec<String> {
    let tokens = tokenizer.encode(text, add_special).expect(text);
    assert_eq!(tokenizer.decode(&tokens, add_special).expect(text), text, "decoded again");
    tokens.iter().map(|&id| tokenizer.id_to_token(id).expect("a token")).collect()
}

#[test]
fn byte_level_bpe() {
    let gguf = Tokenizer::from_gguf(&byte_level()).expect("a tokenizer");
    let json = Tokenizer::from_json_bytes(byte_level_json().to_string().as_bytes(), "test").expect("a tokenizer");
    let cases: &[(&str, &str, &[&str])] = &[
        ("nothing", "", &[]),
        ("merges", " the t", &["Ġthe", "Ġt"]),
        ("no merge over words", "a the", &["a", "Ġthe"]),
        ("bytes of a character", "é", &["Ã", "©"]),
        ("control tokens in the text", "a<|end|>b", &["a", "<|end|>", "b"]),
        ("the user's token", "<think> the", &["<think>", "Ġthe"]),
        ("almost a token", "<|en d|>", &["<", "|", "e", "n", "Ġ", "d", "|", ">"]),
        ("line break", "\n", &["Ċ"]),
    ];
    for (name, text, expected) in cases {
        assert_eq!(pieces(&gguf, text, false), *expected, "{name}");
        // The JSON form asks for truncation to two tokens, which is not for prompts.
        assert_eq!(pieces(&json, text, false), *expected, "{name} (json)");
    }
    for tokenizer in [&gguf, &json] {
        assert_eq!(tokenizer.vocab_size(), 263);
        assert_eq!(tokenizer.token_to_id("Ġthe"), Some(262));
        assert_eq!(tokenizer.id_to_token(3), None, "a reserved row");
        assert!(tokenizer.is_special(0) && !tokenizer.is_special(2) && !tokenizer.is_special(999_999));
        assert_eq!(tokenizer.token_bytes(262).expect("bytes"), b" the");
        assert_eq!(tokenizer.token_bytes(3).expect("bytes"), b"");
        assert_eq!(tokenizer.decode(&[1, 262, 3, 4096, 0], true).expect("text"), " the");
        assert_eq!(tokenizer.decode(&[1, 262, 0], false).expect("text"), "<|start|> the<|end|>");
    }
    assert_eq!(gguf.eos_ids(), [0]);
}

#[test]
fn sentence_piece_bpe() {
    let with_prefix = Tokenizer::from_gguf(&sentence_piece()).expect("a tokenizer");
    let plain = GgufVocab { add_space_prefix: Some(false), ..sentence_piece() };
    let without_prefix = Tokenizer::from_gguf(&plain).expect("a tokenizer");
    let cases: &[(&str, &Tokenizer, &str, &[&str])] = &[
        ("a space in front", &with_prefix, "ab", &["▁ab"]),
        ("none", &without_prefix, "ab", &["ab"]),
        ("the better score first", &without_prefix, " ab", &["▁ab"]),
        ("spaces", &without_prefix, "a   b", &["a", "▁▁", "▁", "b"]),
        ("unknown characters as bytes", &without_prefix, "aß", &["a", "<0xC3>", "<0x9F>"]),
        ("known characters as pieces", &without_prefix, "é", &["é"]),
        ("control tokens in the text", &with_prefix, "a</s>", &["▁a", "</s>"]),
    ];
    for (name, tokenizer, text, expected) in cases {
        assert_eq!(pieces(tokenizer, text, false), *expected, "{name}");
    }
    assert_eq!(pieces(&with_prefix, "ab", true), ["<s>", "▁ab"], "BOS is this model's habit");
}

/// Handlers share one tokenizer and one template between threads.
#[test]
fn shared_between_threads() {
    fn shareable<T: Send + Sync + 'static>() {}
    fn movable<T: Send + 'static>() {}
    shareable::<Tokenizer>();
    shareable::<vllm_text::ChatTemplate>();
    movable::<vllm_text::TextStream>();
    let tokenizer = Tokenizer::from_gguf(&byte_level()).expect("a tokenizer");
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(tokenizer.decode(&[262], true).expect("text"), " the"));
        }
    });
}

#[test]
fn what_stands_around_a_text() {
    let around = |add_bos, add_eos, vocab: GgufVocab| {
        let tokenizer = Tokenizer::from_gguf(&GgufVocab { add_bos, add_eos, ..vocab }).expect("a tokenizer");
        tokenizer.encode("", true).expect("tokens")
    };
    assert_eq!(around(None, None, byte_level()), [] as [u32; 0]);
    assert_eq!(around(Some(true), Some(true), byte_level()), [1, 0]);
    assert_eq!(around(Some(false), None, sentence_piece()), [] as [u32; 0]);
    let llama3 = GgufVocab { pre: Some("llama-bpe".to_owned()), ..byte_level() };
    assert_eq!(around(None, None, llama3), [1]);
}

#[test]
fn written_as_json_it_gives_the_same_tokens() {
    let both = |vocab: GgufVocab| GgufVocab { add_bos: Some(true), add_eos: Some(true), ..vocab };
    let bos = |vocab: GgufVocab| GgufVocab { add_bos: Some(true), ..vocab };
    for (name, vocab) in [
        ("bytes", byte_level()),
        ("bytes between tokens", both(byte_level())),
        ("pieces", sentence_piece()),
        ("pieces after a token", bos(sentence_piece())),
    ] {
        let tokenizer = Tokenizer::from_gguf(&vocab).expect(name);
        let json = tokenizer.to_json().expect(name);
        let again = Tokenizer::from_json_bytes(json.as_bytes(), name).expect(name);
        for text in ["", " the t", "a<|end|>b", "é\n", "<think> the", "a  b"] {
            for add_special in [false, true] {
                let tokens = tokenizer.encode(text, add_special).expect(name);
                assert_eq!(again.encode(text, add_special).expect(name), tokens, "{name}: {text:?}, {add_special}");
                assert_eq!(again.decode(&tokens, true).expect(name), tokenizer.decode(&tokens, true).expect(name));
            }
        }
        assert_eq!(again.vocab_size(), tokenizer.vocab_size(), "{name}");
        assert_eq!(again.is_special(0), tokenizer.is_special(0), "{name}");
    }
}

#[test]
fn contradictory_gguf_metadata() {
    let change = |change: &dyn Fn(&mut GgufVocab), mut vocab: GgufVocab| {
        change(&mut vocab);
        Tokenizer::from_gguf(&vocab).expect_err("an error").to_string()
    };
    type Change = &'static dyn Fn(&mut GgufVocab);
    let cases: [(&str, Change, GgufVocab, &str); 15] = [
        ("model", &|v| v.model = "t5".into(), byte_level(), "unknown model \"t5\""),
        ("pre", &|v| v.pre = Some("nonsense".into()), byte_level(), "unknown pre-tokenizer \"nonsense\""),
        ("no pre", &|v| v.pre = None, byte_level(), "tokenizer.ggml.pre is missing"),
        ("no tokens", &|v| v.tokens.clear(), byte_level(), "no tokens"),
        ("types", &|v| v.token_types.truncate(5), byte_level(), "token_type has 5 entries"),
        ("scores", &|v| v.scores.truncate(5), sentence_piece(), "scores has 5 entries"),
        ("no scores", &|v| v.scores.clear(), sentence_piece(), "scores is missing"),
        ("no merges", &|v| v.merges.clear(), byte_level(), "no merges"),
        ("a merge of one", &|v| v.merges[1] = "he".into(), byte_level(), "merge 1 (\"he\")"),
        ("a merge of strangers", &|v| v.merges[1] = "x yz".into(), byte_level(), "yz"),
        ("a merge to nothing", &|v| v.merges.push("x y".into()), byte_level(), "xy"),
        (
            "a merge to something too long",
            &|v| v.merges.push("<|start|> <|start|>".into()),
            byte_level(),
            "longer than any",
        ),
        ("twice", &|v| v.tokens[9] = "he".into(), byte_level(), "\"he\" stands twice"),
        ("bos beyond", &|v| (v.bos_id, v.add_bos) = (Some(9999), Some(true)), byte_level(), "bos_token_id is 9999"),
        ("no eos", &|v| (v.eos_id, v.add_eos) = (None, Some(true)), byte_level(), "eos_token_id is missing"),
    ];
    for (name, modify, vocab, part) in cases {
        let message = change(modify, vocab);
        assert!(message.contains(part), "{name}: {message}");
    }
    // Without types, every token is ordinary text.
    let untyped = GgufVocab { token_types: Vec::<TokenType>::new(), ..byte_level() };
    assert_eq!(Tokenizer::from_gguf(&untyped).expect("a tokenizer").encode("<|end|>", false).expect("tokens").len(), 7);
}

#[test]
fn bad_json() {
    let good = byte_level_json().to_string();
    let mut beyond_vocab = byte_level_json();
    beyond_vocab["model"]["merges"] = serde_json::json!(["<|nothing|> <|of the sort|>"]);
    let mut too_long = byte_level_json();
    too_long["model"]["vocab"] = serde_json::json!({"a": 0, "b": 1});
    too_long["model"]["merges"] = serde_json::json!(["a b"]);
    let cases = [
        ("empty", String::new()),
        ("truncated", good[..good.len() / 2].to_owned()),
        ("not JSON", "hello".to_owned()),
        ("another JSON", "{\"architectures\": [\"LlamaForCausalLM\"]}".to_owned()),
        ("merges of strangers", beyond_vocab.to_string()),
        ("a merge to nothing", too_long.to_string()),
    ];
    for (name, text) in cases {
        let error = Tokenizer::from_json_bytes(text.as_bytes(), "some/tokenizer.json").expect_err(name);
        assert!(matches!(error, TextError::Json { .. }), "{name}: {error:?}");
        assert!(error.to_string().starts_with("some/tokenizer.json: not a valid tokenizer.json: "), "{name}: {error}");
    }
    let error = Tokenizer::from_json_file("/no/such/tokenizer.json".as_ref()).expect_err("no file");
    assert!(error.to_string().starts_with("/no/such/tokenizer.json: "), "{error}");
}

/// A decoder that looks at neighbours (BERT's) decodes whole sequences, and says that it cannot stream.
#[test]
fn a_decoder_that_cannot_stream() {
    let mut json = byte_level_json();
    json["decoder"] = serde_json::json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let tokenizer = Tokenizer::from_json_bytes(json.to_string().as_bytes(), "test").expect("a tokenizer");
    assert_eq!(tokenizer.decode(&[101, 102], true).expect("text"), "a b");
    assert!(matches!(vllm_text::Detokenizer::new(&tokenizer, &[], true), Err(TextError::UnsupportedDecoder(_))));
}
