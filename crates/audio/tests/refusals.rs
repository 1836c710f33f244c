//! What isn't sound, or not as much or as little as is allowed.

mod support;

use std::{
    io::{self, Cursor, Read, Seek, SeekFrom},
    time::Duration,
};

use support::{chirp, file, heard, wav};
use vllm_audio::{DecodeError, Limits, decode};

/// What an error is about, without its figures.
fn kind(result: Result<vllm_audio::Sound, DecodeError>) -> &'static str {
    match result {
        Ok(_) => "heard",
        Err(DecodeError::Empty) => "empty",
        Err(DecodeError::NotAudio) => "not audio",
        Err(DecodeError::NoTrack) => "no track",
        Err(DecodeError::Truncated { .. }) => "truncated",
        Err(DecodeError::Damaged(_)) => "damaged",
        Err(DecodeError::NotFinite { .. }) => "not finite",
        Err(DecodeError::Silent) => "silent",
        Err(DecodeError::TooLong { .. }) => "too long",
        Err(DecodeError::Unsupported(_)) => "unsupported",
        Err(DecodeError::Io(_)) => "io",
    }
}

fn tone(samples: usize) -> Vec<i16> {
    chirp(16_000, samples).iter().map(|sample| (sample * 32767.0) as i16).collect()
}

/// The first part of a file.
fn cut(name: &str, tenths: usize) -> Vec<u8> {
    let mut bytes = file(name);
    bytes.truncate(bytes.len() * tenths / 10);
    bytes
}

/// 32-bit floats in a WAV.
fn floats(samples: &[f32]) -> Vec<u8> {
    let data: Vec<i16> = samples
        .iter()
        .flat_map(|sample| {
            let [a, b, c, d] = sample.to_le_bytes();
            [i16::from_le_bytes([a, b]), i16::from_le_bytes([c, d])]
        })
        .collect();
    let mut bytes = wav(&data, 16_000, 1, 4 * samples.len() as u32);
    bytes[20..22].copy_from_slice(&3u16.to_le_bytes());
    bytes[32..34].copy_from_slice(&4u16.to_le_bytes());
    bytes[34..36].copy_from_slice(&32u16.to_le_bytes());
    bytes
}

#[test]
fn each_bad_file_gets_its_own_answer() {
    let whole = tone(1600);
    let full = 2 * whole.len() as u32;
    let mut noise = vec![0u8; 5000];
    let mut state = 1u32;
    noise.fill_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8 & 0x7F
    });
    let quiet: Vec<i16> = (0..1600).map(|i| if i % 2 == 0 { 3 } else { -3 }).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("no bytes", Vec::new(), "empty"),
        ("a WAV of no samples", wav(&[], 16_000, 1, 0), "empty"),
        ("text", b"This is no sound, but a text of some length. ".repeat(100), "not audio"),
        ("noise", noise, "not audio"),
        ("a picture", [&b"\x89PNG\r\n\x1A\n\0\0\0\rIHDR"[..], &[0; 500]].concat(), "not audio"),
        ("zeros", vec![0; 10_000], "not audio"),
        ("one byte", vec![b'R'], "not audio"),
        ("a video without sound (mp4)", file("silent_film.mp4"), "no track"),
        ("a video without sound (mkv)", file("silent_film.mkv"), "no track"),
        ("a WAV that lacks one sample", wav(&whole[..1599], 16_000, 1, full), "truncated"),
        ("a WAV that lacks half", wav(&whole[..800], 16_000, 1, full), "truncated"),
        ("a WAV that lacks half a sample", wav(&whole, 16_000, 1, full)[..44 + 3199].to_vec(), "truncated"),
        ("a WAV's header", wav(&[], 16_000, 1, full), "truncated"),
        ("half a WAV's header", wav(&whole, 16_000, 1, full)[..30].to_vec(), "damaged"),
        ("a FLAC that lacks its end", cut("stereo.flac", 9), "truncated"),
        ("an MP4 that lacks its end", cut("alac.m4a", 5), "damaged"),
        ("an MP3 cut before its last frames", cut("stereo.mp3", 3), "truncated"),
        // These don't say how long they are, or lack less than a player would notice.
        ("an MP3 cut within its last frame", file("stereo.mp3")[..5034 - 100].to_vec(), "heard"),
        ("an MP3 without a length, cut", cut("no_tag.mp3", 5), "heard"),
        ("a recording that goes on", cut("live.webm", 8), "heard"),
        ("a WAV of unknown length", wav(&whole, 16_000, 1, u32::MAX), "heard"),
        ("a WAV of unknown length, as sox says it", wav(&whole, 16_000, 1, 0x7FFF_FFFF - 36), "heard"),
        ("digital silence", wav(&[0; 1600], 16_000, 1, full), "silent"),
        ("three steps of 32768: −80.8 dB", wav(&quiet, 16_000, 1, full), "silent"),
        ("one step more, once", wav(&[&quiet[..], &[4]].concat(), 16_000, 1, full + 2), "heard"),
        ("NaN", floats(&[0.1, f32::NAN, 0.1]), "not finite"),
        ("infinity", floats(&[0.1, 0.1, f32::NEG_INFINITY]), "not finite"),
        ("a sample of 1e30", floats(&[0.1, 1e30]), "not finite"),
        ("integers as floats", floats(&[100.0, -32768.0]), "heard"),
        ("800 samples a second", wav(&whole, 800, 1, full), "unsupported"),
        ("a million samples a second", wav(&whole, 1_000_000, 1, full), "unsupported"),
        ("no samples a second", wav(&whole, 0, 1, full), "unsupported"),
        ("17 channels", wav(&whole[..1598], 16_000, 17, full - 4), "unsupported"),
        ("no channels", wav(&whole, 16_000, 0, full), "damaged"),
    ];
    for (name, bytes, wanted) in cases {
        let found = heard(&bytes);
        let said = found.as_ref().map_or_else(ToString::to_string, |sound| format!("{} samples", sound.samples.len()));
        assert_eq!(kind(found), wanted, "{name}: {said}");
    }
}

#[test]
fn errors_tell_what_is_wrong() {
    let whole = tone(1600);
    let cases = [
        (wav(&whole[..400], 16_000, 1, 3200), "the audio file is truncated: 0.03 s of the 0.10 s that it states"),
        (floats(&[0.1; 1600].map(|x: f32| x / 0.0)), "the audio holds a sample of inf, 0.00 s from its beginning"),
        (Vec::new(), "the audio file is empty"),
        (
            b"text".repeat(100),
            "not an audio file, or of a format that isn't read here (wav, mp3, flac, ogg, opus, m4a, webm are)",
        ),
    ];
    for (bytes, wanted) in cases {
        assert_eq!(heard(&bytes).unwrap_err().to_string(), wanted);
    }
}

/// A second of sound under limits of less.
#[test]
fn long_sounds_are_refused_by_their_headers_or_when_they_get_there() {
    let samples = tone(16_000);
    let at_most = |seconds: f64| Limits { duration: Duration::from_secs_f64(seconds), ..Limits::default() };
    for (name, stated) in [("stated", 32_000), ("not stated", u32::MAX)] {
        let bytes = wav(&samples, 16_000, 1, stated);
        let under = |seconds| kind(decode(Cursor::new(bytes.clone()), None, &at_most(seconds)));
        assert_eq!(under(1.0), "heard", "{name}");
        assert_eq!(under(0.999), "too long", "{name}");
    }
    let error = decode(Cursor::new(wav(&samples, 16_000, 1, 32_000)), None, &at_most(0.5)).unwrap_err();
    assert_eq!(error.to_string(), "the audio is too long: at most 0.5 s are allowed");
    // Each of the others states its length in its own way, or doesn't.
    for name in ["stereo.mp3", "no_tag.mp3", "stereo.flac", "vorbis.ogg", "opus.ogg", "live.webm", "aac.m4a", "aac.aac"]
    {
        assert_eq!(kind(decode(Cursor::new(file(name)), None, &at_most(0.1))), "too long", "{name}");
    }
}

/// An hour that says so isn't read: of 230 MB, the source gives the first few thousand bytes.
#[test]
fn an_hour_is_refused_without_reading_it() {
    struct Hour {
        header: Vec<u8>,
        at: u64,
        read: std::sync::Arc<std::sync::atomic::AtomicU64>,
    }
    const LENGTH: u64 = 44 + 3600 * 64_000;
    impl Read for Hour {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let count = into.len().min((LENGTH - self.at) as usize);
            for byte in &mut into[..count] {
                *byte = self.header.get(self.at as usize).copied().unwrap_or(0x11);
                self.at += 1;
            }
            self.read.fetch_add(count as u64, std::sync::atomic::Ordering::Relaxed);
            Ok(count)
        }
    }
    impl Seek for Hour {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.at = match to {
                SeekFrom::Start(at) => at,
                SeekFrom::End(back) => LENGTH.saturating_add_signed(back),
                SeekFrom::Current(on) => self.at.saturating_add_signed(on),
            };
            Ok(self.at)
        }
    }
    let read = std::sync::Arc::default();
    let hour = Hour { header: wav(&[], 32_000, 1, (LENGTH - 44) as u32), at: 0, read: std::sync::Arc::clone(&read) };
    assert_eq!(kind(decode(hour, Some("wav"), &Limits::default())), "too long");
    let read = read.load(std::sync::atomic::Ordering::Relaxed);
    assert!(read < 1_000_000, "{read} bytes");
}

/// What the disk says is passed on, and isn't the file's fault.
#[test]
fn a_source_that_fails_says_so() {
    struct Broken(Cursor<Vec<u8>>);
    impl Read for Broken {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            if self.0.position() > 20_000 { Err(io::Error::other("the disk is gone")) } else { self.0.read(into) }
        }
    }
    impl Seek for Broken {
        fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
            self.0.seek(to)
        }
    }
    let bytes = wav(&tone(40_000), 16_000, 1, 80_000);
    let error = decode(Broken(Cursor::new(bytes)), None, &Limits::default()).unwrap_err();
    assert_eq!(error.to_string(), "the audio couldn't be read: the disk is gone");
}
