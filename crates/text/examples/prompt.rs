//! Shows the prompt of a chat, its tokens, and how they stream back as text.
//!
//! ```text
//! cargo run -p vllm-text --example prompt -- target/models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf "Hello, wörld! 😀"
//! ```

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::time::Instant;

use serde_json::{Map, json};
use vllm_checkpoint::Checkpoint;
use vllm_text::{ChatTemplate, Detokenizer, RenderRequest, Tokenizer};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let path = PathBuf::from(args.next().ok_or("usage: prompt MODEL [MESSAGE]")?);
    let message = args.next().unwrap_or_else(|| "Hello!".to_owned());

    let checkpoint = Checkpoint::open(&path)?;
    let start = Instant::now();
    let tokenizer = Tokenizer::load(&checkpoint)?;
    eprintln!(
        "tokenizer: {:?}, {} tokens, ended by {:?}",
        start.elapsed(),
        tokenizer.vocab_size(),
        tokenizer.eos_ids()
    );

    let messages = [json!({"role": "user", "content": message})];
    let (prompt, add_special) = match ChatTemplate::load(&checkpoint, &tokenizer)? {
        Some(template) => {
            let extra = Map::new();
            let request =
                RenderRequest { messages: &messages, tools: None, add_generation_prompt: true, extra: &extra };
            (template.render(&request)?, false)
        }
        None => (message, true),
    };
    let tokens = tokenizer.encode(&prompt, add_special)?;
    let mut detokenizer = Detokenizer::new(&tokenizer, &[], false)?;
    for token in tokens {
        println!("{token:>7}  {:?}", detokenizer.push(token));
    }
    print!("{}", detokenizer.finish());
    Ok(())
}
