//! Every container and codec, beside what the reference decoder makes of the same file (`fixtures/make.py`).

mod support;

use std::{io::Cursor, time::Duration};

use support::{file, floats, heard, snr};
use vllm_audio::{Limits, decode, decode_at, resample};

/// Nothing is lost in decoding: the samples are the reference's to the last bit.
const EXACT: f64 = f64::INFINITY;

/// A transform in floats: rounding is all that two decoders may differ in.
const FLOATS: f64 = 110.0;

/// libopus itself is in fixed point in one and in floats in the other.
const OPUS: f64 = 65.0;

/// What the container says of its last packet's length isn't read: up to a packet more than the reference.
const A_PACKET: usize = 960;

/// File, rate, agreement in dB, samples more than the reference.
const FILES: &[(&str, u32, f64, usize)] = &[
    ("u8.wav", 16_000, EXACT, 0),
    ("s16.wav", 16_000, EXACT, 0),
    ("s24.wav", 16_000, EXACT, 0),
    ("s32.wav", 16_000, EXACT, 0),
    ("f32.wav", 16_000, EXACT, 0),
    ("f64.wav", 16_000, EXACT, 0),
    ("alaw.wav", 16_000, EXACT, 0),
    ("mulaw.wav", 16_000, EXACT, 0),
    ("adpcm_ms.wav", 16_000, EXACT, 0),
    // Its steps are rounded in another place.
    ("adpcm_ima.wav", 16_000, 60.0, 0),
    ("stereo.wav", 11_025, EXACT, 0),
    ("six_channels.wav", 8_000, EXACT, 0),
    ("stereo.flac", 22_050, EXACT, 0),
    ("24_bits.flac", 16_000, EXACT, 0),
    ("flac.mkv", 16_000, EXACT, 0),
    ("flac.oga", 16_000, EXACT, 0),
    ("alac.m4a", 22_050, EXACT, 0),
    ("stereo.mp3", 44_100, FLOATS, 0),
    ("vbr_24k.mp3", 24_000, FLOATS, 0),
    ("no_tag.mp3", 16_000, FLOATS, 0),
    ("vorbis.ogg", 44_100, FLOATS, 0),
    ("vorbis.webm", 44_100, FLOATS, 0),
    ("opus.ogg", 48_000, OPUS, 0),
    ("speech.opus", 48_000, OPUS, 0),
    ("opus.webm", 48_000, OPUS, A_PACKET),
    ("live.webm", 48_000, OPUS, A_PACKET),
    ("opus.mp4", 48_000, OPUS, A_PACKET),
    ("aac.m4a", 44_100, FLOATS, 0),
    ("fragmented.mp4", 48_000, FLOATS, 0),
    ("video.mp4", 32_000, FLOATS, 0),
    ("aac.mkv", 16_000, FLOATS, 0),
    ("aac.aac", 24_000, FLOATS, 0),
];

#[test]
fn files_sound_as_the_reference_decodes_them() {
    for &(name, rate, decibels, more) in FILES {
        let sound = heard(&file(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        let wanted = floats(&format!("expected/{name}.f32"));
        assert_eq!(sound.rate, rate, "{name}");
        let beyond = sound.samples.len().checked_sub(wanted.len());
        assert!(
            beyond.is_some_and(|beyond| beyond <= more),
            "{name}: {} samples, {} wanted",
            sound.samples.len(),
            wanted.len()
        );
        let agreement = snr(&sound.samples, &wanted);
        assert!(agreement >= decibels, "{name}: {agreement:.1} dB");
    }
}

/// A wrong hint costs nothing but time.
#[test]
fn hints_are_only_hints() {
    for name in ["s16.wav", "stereo.mp3", "opus.webm", "aac.m4a", "vorbis.ogg", "stereo.flac"] {
        let wanted = heard(&file(name)).unwrap();
        for hint in ["wav", ".mp3", "audio/webm;codecs=opus", "m4a", "video/mp4", "nonsense", ""] {
            let found = decode(Cursor::new(file(name)), Some(hint), &Limits::default());
            assert_eq!(
                found.unwrap_or_else(|error| panic!("{name} as {hint:?}: {error}")),
                wanted,
                "{name} as {hint:?}"
            );
        }
    }
}

/// As it comes from a form or the disk: behind tags, with a cover.
#[test]
fn tags_before_an_mp3_are_passed_over() {
    let mut tagged = b"ID3\x04\0\0\0\0\x0F\x76APIC\0\0\x0F\x6C\0\0\0image/png\0\x03\0".to_vec();
    // Something that looks like a frame of MPEG audio.
    tagged.extend(b"\xFF\xFB\x90\x64".iter().cycle().take(10 + 0x7F6 - tagged.len()));
    tagged.extend(file("no_tag.mp3"));
    let mut behind = file("no_tag.mp3");
    behind.extend(b"TAG");
    behind.extend([b' '; 125]);
    let wanted = heard(&file("no_tag.mp3")).unwrap();
    for (name, bytes) in [("before", tagged), ("behind", behind)] {
        let found = heard(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(found, wanted, "{name}");
    }
}

#[test]
fn a_sound_knows_how_long_it_is() {
    assert_eq!(heard(&file("s16.wav")).unwrap().duration(), Duration::from_millis(250));
}

/// From the disk: one needn't have it in memory.
#[test]
fn files_on_disk_are_read() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/files/opus.ogg");
    let found = decode(std::fs::File::open(path).unwrap(), Some("opus"), &Limits::default()).unwrap();
    assert_eq!(found, heard(&file("opus.ogg")).unwrap());
}

/// Packet by packet or afterwards: it is the same.
#[test]
fn decoding_resamples_on_the_way() {
    for name in ["stereo.mp3", "opus.webm", "s16.wav", "aac.m4a"] {
        let found = decode_at(16_000, Cursor::new(file(name)), None, &Limits::default()).unwrap();
        assert_eq!(found, resample(heard(&file(name)).unwrap(), 16_000), "{name}");
    }
}
