//! Prints what a model's files hold: `cargo run -p vllm-checkpoint --example inspect -- PATH|ORG/NAME`.

use anyhow::{Context, Result};
use vllm_checkpoint::hub::{self, HubOptions, Progress};
use vllm_checkpoint::{Checkpoint, Storage, TokenizerSource};

fn main() -> Result<()> {
    let model = std::env::args().nth(1).context("usage: inspect PATH|ORG/NAME")?;
    let path = hub::resolve(&model, &HubOptions::from_env(), &mut |progress| {
        if let Progress::Bytes { file, done, size, .. } = progress {
            eprint!("\r{file}: {done} of {size} bytes");
        }
    })?;
    let model = Checkpoint::open(&path)?;
    println!("{}: {}", model.path().display(), model.architecture()?);
    let (mut elements, mut bytes) = (0, 0);
    for name in model.tensor_names() {
        let spec = model.spec(name)?;
        elements += spec.elements();
        bytes += spec.file_bytes;
        match spec.storage {
            Storage::Dense(dtype) => println!("  {name} {dtype} {:?}", spec.shape),
            Storage::Quantized(q) => {
                println!("  {name} {} {} bit, groups of {} {:?}", q.mode, q.bits, q.group_size, spec.shape);
            }
        }
    }
    println!("{elements} weights in {bytes} bytes");
    match model.tokenizer()? {
        TokenizerSource::Json(path) => println!("tokenizer: {}", path.display()),
        TokenizerSource::Gguf(vocab) => println!("tokenizer: {} tokens, {}", vocab.tokens.len(), vocab.model),
    }
    println!("special tokens: {:?}", model.special_tokens());
    println!("chat template: {}", if model.chat_template()?.is_some() { "yes" } else { "no" });
    Ok(())
}
