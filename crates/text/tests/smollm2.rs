//! A real model's tokenizer and chat template, out of its GGUF file.

use std::path::Path;

use serde_json::{Map, Value, json};
use vllm_checkpoint::Checkpoint;
use vllm_text::{ChatTemplate, Detokenizer, RenderRequest, Tokenizer};

fn smollm2() -> Checkpoint {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is not there; run `cargo xtask models fetch smollm2` first", path.display());
    Checkpoint::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// Made by `fixtures/smollm2_tokens.py` with llama.cpp.
#[test]
fn tokens_are_those_of_llama_cpp() {
    let tokenizer = Tokenizer::load(&smollm2()).expect("a tokenizer");
    let entries: Value = serde_json::from_str(include_str!("fixtures/smollm2_tokens.json")).expect("the fixture");
    let entries = entries.as_array().expect("a list");
    assert!(entries.len() >= 60);
    for entry in entries {
        let text = entry["text"].as_str().expect("a text");
        let expected: Vec<u32> = serde_json::from_value(entry["tokens"].clone()).expect("tokens");
        assert_eq!(tokenizer.encode(text, true).expect(text), expected, "{text:?}");
        assert_eq!(tokenizer.decode(&expected, false).expect(text), text);
        let mut detokenizer = Detokenizer::new(&tokenizer, &[], false).expect("streams");
        let mut streamed: String = expected.iter().map(|&token| detokenizer.push(token).to_owned()).collect();
        streamed.push_str(detokenizer.finish());
        assert_eq!(streamed, text);
    }
    assert_eq!(tokenizer.vocab_size(), 49_152);
    assert_eq!(tokenizer.eos_ids(), [2, 0], "<|im_end|> and <|endoftext|>");
}

#[test]
fn its_chat_template() {
    let checkpoint = smollm2();
    let tokenizer = Tokenizer::load(&checkpoint).expect("a tokenizer");
    let template = ChatTemplate::load(&checkpoint, &tokenizer).expect("a valid template").expect("a template");
    let request = RenderRequest {
        messages: &[json!({"role": "user", "content": [{"type": "text", "text": "Hi"}]})],
        tools: None,
        add_generation_prompt: true,
        extra: &Map::new(),
    };
    let prompt = template.render(&request).expect("a prompt");
    let expected = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
                    <|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(prompt, expected);
    assert_eq!(tokenizer.encode(&prompt, false).expect("tokens")[..3], [1, 9690, 198]);
}
