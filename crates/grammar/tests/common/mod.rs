//! Models that write noise.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::path::Path;
use std::sync::{Arc, OnceLock};

use serde_json::json;
use vllm_checkpoint::Checkpoint;
use vllm_grammar::{Constraint, Grammar, Reasoning, Vocabulary};
use vllm_platform::sampling::{LogitsProcessor, Sampler, uniform};
use vllm_platform::{SampleAt, SamplingParams};
use vllm_text::Tokenizer;

/// Rows of the model's output layer that no token belongs to.
pub const PADDING: usize = 37;

/// A tokenizer and its vocabulary.
#[derive(Clone)]
pub struct Model {
    pub tokenizer: Arc<Tokenizer>,
    pub vocabulary: Arc<Vocabulary>,
}

impl Model {
    fn new(tokenizer: Tokenizer) -> Self {
        let tokenizer = Arc::new(tokenizer);
        Self { vocabulary: Arc::new(Vocabulary::new(Arc::clone(&tokenizer))), tokenizer }
    }

    /// 256 single bytes, `<eos>` and these special tokens.
    pub fn of_bytes(special: &[&str]) -> Self {
        let special = ["<eos>"].into_iter().chain(special.iter().copied()).zip(256u32..).map(|(content, id)| {
            json!({ "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true })
        });
        let special: Vec<_> = special.collect();
        let vocab: serde_json::Map<_, _> = (0..=255u8).map(|byte| (byte_name(byte).to_string(), json!(byte))).collect();
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": special,
            "normalizer": null,
            "pre_tokenizer": { "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false },
            "post_processor": null,
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": { "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": [] },
        });
        let tokenizer = Tokenizer::from_json_bytes(file.to_string().as_bytes(), "test").unwrap();
        Self::new(tokenizer.with_eos_ids(vec![256]))
    }

    /// SmolLM2's.
    pub fn smollm2() -> Self {
        static MODEL: OnceLock<Model> = OnceLock::new();
        let load = || {
            let path = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
            assert!(path.exists(), "{} is not there; run `cargo xtask models fetch smollm2` first", path.display());
            Self::new(Tokenizer::load(&Checkpoint::open(&path).unwrap()).unwrap())
        };
        MODEL.get_or_init(load).clone()
    }

    pub fn compile(&self, constraint: &Constraint) -> Grammar {
        Grammar::compile(&self.vocabulary, constraint).unwrap_or_else(|error| panic!("{error}: {constraint:?}"))
    }

    /// Writes under a constraint.
    pub fn write(&self, constraint: &Constraint, reasoning: Option<Reasoning>, noise: Noise) -> Written {
        let processor = self.compile(constraint).processor(&[], reasoning).unwrap();
        self.write_with(&[Arc::new(processor)], noise)
    }

    /// Writes noise.
    pub fn write_with(&self, processors: &[Arc<dyn LogitsProcessor>], noise: Noise) -> Written {
        self.go_on(processors, Vec::new(), noise)
    }

    /// Writes noise behind `tokens`.
    pub fn go_on(&self, processors: &[Arc<dyn LogitsProcessor>], mut tokens: Vec<u32>, noise: Noise) -> Written {
        let params = SamplingParams { temperature: 2.0, seed: Some(noise.seed), ..SamplingParams::default() };
        let vocab = self.tokenizer.vocab_size();
        let mut sampler = Sampler::default();
        while tokens.len() < noise.most {
            let mut logits = noise.logits(vocab, tokens.len());
            if tokens.len() >= noise.calm {
                let spelled = self.spelled(&tokens);
                for token in 0..vocab as u32 {
                    logits[token as usize] += self.pull(token, &spelled);
                }
            }
            let at = SampleAt { params: &params, prompt: &[1], output: &tokens, processors };
            let token = sampler.sample(&logits, &at).unwrap_or_else(|e| panic!("{e}: {:?}", self.text(&tokens))).token;
            assert!((token as usize) < vocab, "token {token} is padding");
            tokens.push(token);
            if self.tokenizer.eos_ids().contains(&token) {
                return Written { text: self.text(&tokens[..tokens.len() - 1]), tokens, finished: true };
            }
            processors.iter().for_each(|processor| processor.sampled(&[1], &tokens));
        }
        Written { text: self.text(&tokens), tokens, finished: false }
    }

    /// Special tokens as their names.
    pub fn text(&self, tokens: &[u32]) -> String {
        self.tokenizer.decode(tokens, false).unwrap()
    }

    /// Bytes that go on with a tag whose beginning is there.
    fn spelled(&self, tokens: &[u32]) -> Vec<u8> {
        let text = self.text(&tokens[tokens.len().saturating_sub(20)..]);
        let next = |tag: &&str| {
            let known = (1..tag.len()).rev().find(|&known| text.ends_with(&tag[..known]))?;
            Some(tag.as_bytes()[known])
        };
        ["</p>", "</think>", "</tool_call>", "<tool_call>", "<n>"].iter().filter_map(next).collect()
    }

    /// How much a token brings a text to its end.
    fn pull(&self, token: u32, spelled: &[u8]) -> f32 {
        if self.tokenizer.eos_ids().contains(&token) {
            return 90.0;
        }
        match self.tokenizer.token_bytes(token).unwrap().as_slice() {
            [byte] if spelled.contains(byte) => 80.0,
            b"\"" | b"}" | b"]" | b")" | b">" | b"\"}" | b"]}" => 40.0,
            b"<" | b"<tool_call>" | b"</tool_call>" => 35.0,
            [_] => 20.0,
            _ => 0.0,
        }
    }
}

/// GPT-2's printable stand-in for a byte.
fn byte_name(byte: u8) -> char {
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if printable(byte) {
        return char::from(byte);
    }
    let rank = (0..byte).filter(|&b| !printable(b)).count() as u32;
    char::from_u32(256 + rank).unwrap()
}

/// A model without sense.
#[derive(Debug, Clone, Copy)]
pub struct Noise {
    pub seed: u64,
    /// Tokens until it comes to an end, if it may.
    pub calm: usize,
    /// Tokens until it is cut off.
    pub most: usize,
    /// Logits of ids that no token has: what stands there is arbitrary, too.
    pub padding: f32,
}

impl Noise {
    pub fn new(seed: u64) -> Self {
        Self { seed, calm: 40, most: 400, padding: 100.0 }
    }

    fn logits(self, vocab: usize, position: usize) -> Vec<f32> {
        let noise = |token: usize| uniform(self.seed ^ 0x9e37, (position * 100_000 + token) as u64) as f32 * 8.0 - 4.0;
        (0..vocab).map(noise).chain([self.padding; PADDING]).collect()
    }
}

#[derive(Debug)]
pub struct Written {
    pub text: String,
    pub tokens: Vec<u32>,
    /// Whether it ended by itself.
    pub finished: bool,
}
