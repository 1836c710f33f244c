//! Files that were damaged at random: whatever comes of it, it comes soon, within the limits, and without a panic of our own.
//! (One of a decoder is caught, and would show here as a message.)

mod support;

use std::{io::Cursor, time::Duration};

use support::file;
use vllm_audio::{DecodeError, Limits, decode};

/// One for each container and codec, small ones.
const FILES: &[&str] = &[
    "u8.wav",
    "f32.wav",
    "alaw.wav",
    "adpcm_ms.wav",
    "adpcm_ima.wav",
    "24_bits.flac",
    "flac.mkv",
    "vbr_24k.mp3",
    "no_tag.mp3",
    "vorbis.ogg",
    "opus.ogg",
    "speech.opus",
    "opus.webm",
    "live.webm",
    "vorbis.webm",
    "aac.m4a",
    "alac.m4a",
    "fragmented.mp4",
    "video.mp4",
    "aac.mkv",
    "aac.aac",
    "silent_film.mp4",
];

/// A file each.
const DAMAGES: u32 = 150;

/// splitmix64: the same numbers everywhere.
struct Chance(u64);

impl Chance {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    /// Headers are where damage is interesting: every second place is among the first few hundred bytes.
    fn place(&mut self, length: usize) -> usize {
        let end = if self.below(2) == 0 { length.min(300) } else { length };
        self.below(end)
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        const EXTREMES: [u32; 6] = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF, 0x0001_0000];
        let at = self.place(bytes.len());
        let some = (1 + self.below(32)).min(bytes.len() - at);
        match self.below(6) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 => {
                let extreme = EXTREMES[self.below(EXTREMES.len())].to_be_bytes();
                bytes[at..].iter_mut().zip(extreme).for_each(|(byte, new)| *byte = new);
            }
            3 => drop(bytes.drain(at..at + some)),
            4 => {
                let copy = bytes[at..at + some].to_vec();
                let to = self.place(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
}

#[test]
fn damaged_files_are_heard_or_refused() {
    let limits = Limits { duration: Duration::from_secs(20), ..Limits::default() };
    let (mut heard, mut refused, mut caught) = (0, 0, Vec::new());
    for (number, name) in FILES.iter().enumerate() {
        let whole = file(name);
        for round in 0..DAMAGES {
            let mut chance = Chance(number as u64 * 1_000_003 + u64::from(round));
            let mut bytes = whole.clone();
            for _ in 0..1 + chance.below(4) {
                if !bytes.is_empty() {
                    chance.damage(&mut bytes);
                }
            }
            match decode(Cursor::new(bytes), None, &limits) {
                Ok(sound) => {
                    heard += 1;
                    assert!(limits.rates.contains(&sound.rate), "{name}, {round}: {} Hz", sound.rate);
                    assert!(sound.duration() <= limits.duration, "{name}, {round}: {:?}", sound.duration());
                    assert!(!sound.samples.is_empty(), "{name}, {round}: no samples");
                    assert!(sound.samples.iter().all(|sample| sample.is_finite()), "{name}, {round}: not finite");
                }
                Err(DecodeError::Io(error)) => panic!("{name}, {round}: memory doesn't fail: {error}"),
                Err(error) => {
                    refused += 1;
                    if error.to_string().ends_with("its decoder gave up on it") {
                        caught.push(format!("{name}, {round}"));
                    }
                }
            }
        }
    }
    println!("{heard} heard, {refused} refused, of them {} after a decoder's panic: {caught:?}", caught.len());
    // The damage is neither none nor total.
    assert!(heard > 500 && refused > 500, "{heard} heard, {refused} refused");
}
