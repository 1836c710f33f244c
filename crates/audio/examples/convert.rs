//! Reads a sound file and writes it in another format, which the second name's ending says:
//!
//! ```sh
//! cargo run -p vllm-audio --example convert -- in.m4a out.opus [rate] [stream]
//! ```
//!
//! `stream` writes it as it is sent while somebody still speaks: piece by piece, and without a length in its header.

use std::{error::Error, fs, time::Instant};

use vllm_audio::{Encoder, Format, Limits, decode, resample};

fn main() -> Result<(), Box<dyn Error>> {
    let mut words: Vec<String> = std::env::args().skip(1).collect();
    let stream = words.pop_if(|word| word == "stream").is_some();
    let (input, output, rate) = match &words[..] {
        [input, output] => (input, output, None),
        [input, output, rate] => (input, output, Some(rate.parse()?)),
        _ => return Err("convert IN OUT [RATE] [stream]".into()),
    };
    let begun = Instant::now();
    let mut sound = decode(fs::File::open(input)?, ending(input), &Limits::default())?;
    let seconds = sound.duration().as_secs_f64();
    eprintln!("decoded {seconds:.2} s in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    if let Some(rate) = rate {
        let begun = Instant::now();
        sound = resample(sound, rate);
        eprintln!("resampled in {:.1} ms", begun.elapsed().as_secs_f64() * 1e3);
    }
    let format: Format = ending(output).unwrap_or_default().parse()?;
    let begun = Instant::now();
    let bytes = if stream {
        let mut encoder = Encoder::new(format, sound.rate)?;
        let mut bytes = Vec::new();
        for piece in sound.samples.chunks(sound.rate as usize / 10) {
            bytes.extend(encoder.push(piece)?);
        }
        bytes.extend(encoder.finish()?);
        bytes
    } else {
        Encoder::whole(format, &sound)?
    };
    eprintln!("encoded in {:.1} ms, {} bytes", begun.elapsed().as_secs_f64() * 1e3, bytes.len());
    fs::write(output, bytes)?;
    Ok(())
}

/// What stands behind the last dot.
fn ending(name: &str) -> Option<&str> {
    name.rsplit_once('.').map(|(_, ending)| ending)
}
