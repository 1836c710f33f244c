//! How long a model's processor takes for an image: resizing, normalising, cutting into patches.
//!
//!     cargo run --release -p vllm-media --example preprocess -- MODEL_DIR [WIDTHxHEIGHT …]
//!
//! The pictures are made up: what they show doesn't matter to the time. Decoding isn't part of it.

use std::time::{Duration, Instant};

use vllm_checkpoint::Checkpoint;
use vllm_media::{Detail, Picture, Processor};

const RUNS: usize = 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("usage: preprocess MODEL_DIR [WIDTHxHEIGHT …]")?;
    let processor = Processor::load(&Checkpoint::open(model.as_ref())?)?.ok_or("a text model")?;
    let mut sizes: Vec<String> = arguments.collect();
    if sizes.is_empty() {
        sizes.push("1024x1024".to_owned());
    }
    for size in sizes {
        let (width, height) = size.split_once('x').ok_or("sizes are like 640x480")?;
        let picture = picture(width.parse()?, height.parse()?);
        let prepared = processor.image(&picture, Detail::Auto)?;
        let mut times: Vec<Duration> = (0..RUNS)
            .map(|_| {
                let start = Instant::now();
                let input = prepared.parts[0].input();
                let time = start.elapsed();
                assert_eq!(input.patches.len(), input.num_patches() * input.patch_len);
                time
            })
            .collect();
        times.sort();
        println!("{size}: {} tokens, median {:?}, best {:?}", prepared.tokens(), times[RUNS / 2], times[0]);
    }
    Ok(())
}

fn picture(width: u32, height: u32) -> Picture {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_le_bytes()[3]
    };
    let rgb: Vec<u8> = (0..width as usize * height as usize * 3).map(|_| next()).collect();
    Picture::from_rgb(width, height, rgb)
}
