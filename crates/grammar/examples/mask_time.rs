//! What constraints cost on SmolLM2's vocabulary: `cargo run --release -p vllm-grammar --example mask_time`.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vllm_checkpoint::Checkpoint;
use vllm_grammar::{Constraint, Grammar, Vocabulary};
use vllm_platform::sampling::{LogitsProcessor as _, uniform};
use vllm_text::Tokenizer;

/// Tokens written for each figure.
const TOKENS: usize = 2000;

/// What a small model takes for a token: time for the workers.
const FORWARD: Duration = Duration::from_millis(3);

fn main() {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    let checkpoint = Checkpoint::open(&path).expect("SmolLM2: run `cargo xtask models fetch smollm2` first");
    let tokenizer = Arc::new(Tokenizer::load(&checkpoint).expect("its tokenizer"));
    // The bytes of all tokens, which a server needs anyway.
    let words = tokenizer.vocab_size();
    let (before, start) = (resident(), Instant::now());
    let vocabulary = Arc::new(Vocabulary::new(Arc::clone(&tokenizer)));
    vocabulary.build().expect("a vocabulary");
    println!("vocabulary of {words}: {:.1} ms, {:.1} MiB", ms(start.elapsed()), resident() - before);
    println!(
        "                 compile ms   MiB    clone µs   mask µs median     p99     max   process µs median     p99"
    );
    for (name, constraint) in constraints() {
        measure(name, &vocabulary, &tokenizer, &constraint);
    }
}

fn constraints() -> Vec<(&'static str, Constraint)> {
    let person = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "email": {"type": "string", "format": "email"}, "tags": {"type": "array", "items": {"type": "string"}}},
        "required": ["name", "age", "email", "tags"]});
    let field = |index: usize| (format!("field_{index}"), json!({"type": "string", "maxLength": 40}));
    let tool = |index: usize| {
        json!({"type": "object", "properties": {"name": {"const": format!("tool_{index}")},
            "arguments": {"type": "object", "properties": Value::from_iter((0..10).map(field))}},
            "required": ["name", "arguments"]})
    };
    let tools = json!({"anyOf": (0..50).map(tool).collect::<Vec<_>>()});
    let arithmetic = "root ::= expr\nexpr ::= term ([-+*/] term)*\nterm ::= [0-9]+ | \"(\" expr \")\"";
    vec![
        ("json object", Constraint::JsonObject),
        ("person", Constraint::JsonSchema(person)),
        ("50 tools", Constraint::JsonSchema(tools)),
        ("regex", Constraint::Regex(r"(\w+ )*[0-9]{4}-[0-9]{2}-[0-9]{2}".to_owned())),
        ("1000 choices", Constraint::Choice((0..1000).map(|index| format!("choice number {index}")).collect())),
        ("gbnf", Constraint::Grammar(arithmetic.to_owned())),
    ]
}

fn measure(name: &str, vocabulary: &Arc<Vocabulary>, tokenizer: &Tokenizer, constraint: &Constraint) {
    let (before, start) = (resident(), Instant::now());
    let grammar = Grammar::compile(vocabulary, constraint).expect(name);
    let (compiled, memory) = (start.elapsed(), resident() - before);
    let (mut clones, mut masks, mut applied) = (Vec::new(), Vec::new(), Vec::new());
    let mut seed = 0;
    while masks.len() < TOKENS {
        seed += 1;
        write(&grammar, tokenizer, seed, &mut clones, Some(&mut masks), None);
    }
    while applied.len() < TOKENS / 4 {
        seed += 1;
        write(&grammar, tokenizer, seed, &mut clones, None, Some(&mut applied));
    }
    let [clone, mask, apply] = [clones, masks, applied].map(|mut times| {
        times.sort();
        let at = |part: f64| us(times[((times.len() - 1) as f64 * part) as usize]);
        [at(0.5), at(0.99), at(1.0)]
    });
    println!(
        "{name:16} {:10.1} {memory:6.1} {:10.0} {:15.0} {:8.0} {:8.0} {:19.1} {:7.1}",
        ms(compiled),
        clone[0],
        mask[0],
        mask[1],
        mask[2],
        apply[0],
        apply[1]
    );
}

/// Writes one random answer. `masks`: how long each takes to work out; `applied`: how long one takes to be applied
/// when it was ready.
fn write(
    grammar: &Grammar,
    tokenizer: &Tokenizer,
    seed: u64,
    clones: &mut Vec<Duration>,
    mut masks: Option<&mut Vec<Duration>>,
    mut applied: Option<&mut Vec<Duration>>,
) {
    let start = Instant::now();
    let processor = grammar.processor(&[], None).expect("a processor");
    clones.push(start.elapsed());
    let mut output: Vec<u32> = Vec::new();
    while output.len() < 200 {
        let mut logits: Vec<f32> = (0..tokenizer.vocab_size())
            .map(|token| uniform(seed, (output.len() * 100_000 + token) as u64) as f32)
            .collect();
        if applied.is_some() && !output.is_empty() {
            std::thread::sleep(FORWARD);
        }
        let start = Instant::now();
        processor.process(&[], &output, &mut logits);
        let taken = start.elapsed();
        if !output.is_empty() {
            if let Some(times) = &mut masks {
                times.push(taken);
            }
            if let Some(times) = &mut applied {
                times.push(taken);
            }
        }
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map_or(0, |(token, _)| token as u32);
        if tokenizer.eos_ids().contains(&best) {
            return;
        }
        output.push(best);
        if applied.is_some() {
            processor.sampled(&[], &output);
        }
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

fn us(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// Memory of this process, in MiB.
fn resident() -> f64 {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok()).unwrap_or(0.0) / 256.0
}
