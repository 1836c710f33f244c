//! Small vocabularies in the shape of real ones.

use vllm_checkpoint::{GgufVocab, TokenType};

/// An empty vocabulary of the given model.
fn vocab(model: &str) -> GgufVocab {
    GgufVocab {
        model: model.to_owned(),
        pre: None,
        tokens: Vec::new(),
        scores: Vec::new(),
        token_types: Vec::new(),
        merges: Vec::new(),
        bos_id: None,
        eos_id: None,
        unk_id: None,
        pad_id: None,
        add_bos: None,
        add_eos: None,
        add_space_prefix: None,
    }
}

/// The character that stands for `byte` in the byte-level alphabet.
pub fn alphabet(byte: u8) -> char {
    let own = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if own(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|&byte| !own(byte)).count() as u32;
    char::from_u32(0x100 + before).expect("below the surrogates")
}

/// Byte-level BPE: `<|end|>` (0), `<|start|>` (1), the user's `<think>` (2), a reserved row (3), 256 bytes (4 to 259),
/// then ` t` (260), `he` (261), ` the` (262).
pub fn byte_level() -> GgufVocab {
    let mut vocab = vocab("gpt2");
    vocab.pre = Some("gpt-2".to_owned());
    vocab.tokens = ["<|end|>", "<|start|>", "<think>", ""].map(str::to_owned).into();
    vocab.token_types = vec![TokenType::Control, TokenType::Control, TokenType::UserDefined, TokenType::Unused];
    vocab.tokens.extend((0..=u8::MAX).map(|byte| alphabet(byte).to_string()));
    vocab.tokens.extend(["Ġt", "he", "Ġthe"].map(str::to_owned));
    vocab.token_types.resize(vocab.tokens.len(), TokenType::Normal);
    vocab.merges = ["Ġ t", "h e", "Ġt he"].map(str::to_owned).into();
    vocab.bos_id = Some(1);
    vocab.eos_id = Some(0);
    vocab
}

/// SentencePiece: `<unk>` (0), `<s>` (1), `</s>` (2), 256 byte tokens (3 to 258), then pieces with scores.
pub fn sentence_piece() -> GgufVocab {
    let mut vocab = vocab("llama");
    vocab.tokens = ["<unk>", "<s>", "</s>"].map(str::to_owned).into();
    vocab.token_types = vec![TokenType::Unknown, TokenType::Control, TokenType::Control];
    vocab.tokens.extend((0..=u8::MAX).map(|byte| format!("<0x{byte:02X}>")));
    vocab.token_types.resize(vocab.tokens.len(), TokenType::Byte);
    vocab.scores = vec![0.0; vocab.tokens.len()];
    for (piece, score) in [
        ("▁a", -1.0),
        ("ab", -2.0),
        ("▁ab", -3.0),
        ("▁▁", -4.0),
        ("▁", -10.0),
        ("a", -11.0),
        ("b", -12.0),
        ("é", -13.0),
    ] {
        vocab.tokens.push(piece.to_owned());
        vocab.scores.push(score);
        vocab.token_types.push(TokenType::Normal);
    }
    vocab.bos_id = Some(1);
    vocab.eos_id = Some(2);
    vocab.unk_id = Some(0);
    vocab
}

/// The vocabulary of [`byte_level`] as a `tokenizer.json`.
#[allow(dead_code, reason = "not every test file uses every vocabulary")]
pub fn byte_level_json() -> serde_json::Value {
    let vocab = byte_level();
    let pieces: serde_json::Map<String, serde_json::Value> = vocab
        .tokens
        .iter()
        .enumerate()
        .filter(|(_, piece)| !piece.is_empty())
        .map(|(id, piece)| (piece.clone(), id.into()))
        .collect();
    let added = |id: u32, special: bool| {
        serde_json::json!({"id": id, "content": vocab.tokens[id as usize], "special": special, "normalized": false,
                           "single_word": false, "lstrip": false, "rstrip": false})
    };
    let byte_level =
        serde_json::json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    serde_json::json!({
        "version": "1.0", "truncation": {"max_length": 2, "stride": 0, "strategy": "LongestFirst", "direction": "Right"},
        "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [added(0, true), added(1, true), added(2, false)],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "vocab": pieces, "merges": vocab.merges},
    })
}
