//! How long Whisper's spectrogram of a sound file takes, in seconds: the least of ten times. `mel_times FILE`

use std::{fs::File, time::Instant};

use vllm_audio::{Limits, decode, resample};
use vllm_platform::{MelScale, MelSettings};
use vllm_speech::mel::MelSpectrogram;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("usage: mel_times FILE")?;
    let sound = resample(decode(File::open(path)?, None, &Limits::default())?, 16_000);
    let settings =
        MelSettings { sample_rate: 16_000, fft: 400, window: 400, hop: 160, bands: 80, scale: MelScale::Whisper };
    let mel = MelSpectrogram::new(&settings);
    let times = (0..10).map(|_| {
        let start = Instant::now();
        std::hint::black_box(mel.log_mel(&sound.samples));
        start.elapsed().as_secs_f64()
    });
    println!("{}", times.fold(f64::INFINITY, f64::min));
    Ok(())
}
