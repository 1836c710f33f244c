//! How long an image takes from its file to a model's patches: decoding; resizing, normalising, cutting.
//!
//!     cargo run --release -p vllm-media --example preprocess -- MODEL_DIR FILE…
//!
//! `preprocess.py` beside this file prints the same of transformers.

use std::{
    fs,
    time::{Duration, Instant},
};

use vllm_checkpoint::Checkpoint;
use vllm_media::{Detail, Limits, Processor, decode_picture};

const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: preprocess MODEL_DIR FILE…";
    let model = arguments.next().ok_or(usage)?;
    let processor = Processor::load(&Checkpoint::open(model.as_ref())?)?.ok_or("a text model")?;
    for file in arguments {
        let bytes = fs::read(&file)?;
        let (mut decoding, mut cutting, mut tokens) = (vec![], vec![], 0);
        for _ in 0..RUNS {
            let start = Instant::now();
            let picture = decode_picture(&bytes, &Limits::default())?;
            decoding.push(start.elapsed());
            let start = Instant::now();
            let prepared = processor.image(&picture, Detail::Auto)?;
            let input = prepared.parts[0].input();
            cutting.push(start.elapsed());
            assert_eq!(input.patches.len(), input.num_patches() * input.patch_len);
            tokens = prepared.tokens();
        }
        let [decoding, cutting] = [decoding, cutting].map(median);
        println!(
            "{file}: {tokens} tokens, decoding {decoding:.1?}, patches {cutting:.1?}, both {:.1?}",
            decoding + cutting
        );
    }
    Ok(())
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
