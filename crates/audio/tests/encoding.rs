//! What is written, read back: by our own decoder here, and by others' in `fixtures/encoders.py`.

mod support;

use support::{chirp, heard, snr};
use vllm_audio::{DecodeError, EncodeError, Encoder, Format, Sound, resample};

/// Pieces as a synthesizer gives them: some empty, some longer than any frame.
const PIECES: [usize; 7] = [0, 1, 479, 480, 10_000, 3, 4096];

fn streamed(format: Format, sound: &Sound) -> Vec<u8> {
    let mut encoder = Encoder::new(format, sound.rate).unwrap();
    let (mut bytes, mut rest) = (Vec::new(), &sound.samples[..]);
    for piece in PIECES.iter().cycle() {
        let (now, later) = rest.split_at((*piece).min(rest.len()));
        bytes.extend(encoder.push(now).unwrap());
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    bytes.extend(encoder.finish().unwrap());
    bytes
}

fn rounded(samples: &[f32]) -> Vec<f32> {
    samples.iter().map(|sample| (sample * 32768.0).round().clamp(-32768.0, 32767.0) / 32768.0).collect()
}

#[test]
fn lossless_formats_give_back_every_sample() {
    for rate in [8_000, 22_050, 24_000, 48_000, 96_000] {
        for length in [1, 31, 4095, 4096, 4097, 20_000] {
            let mut sound = Sound { samples: chirp(rate, length), rate };
            sound.samples[0] = 1.5;
            sound.samples[length / 2] = -1.5;
            let wanted = Sound { samples: rounded(&sound.samples), rate };
            for format in [Format::Wav, Format::Flac] {
                let name = format!("{length} samples of {rate} Hz as {format}");
                assert_eq!(heard(&Encoder::whole(format, &sound).unwrap()).unwrap(), wanted, "{name}, whole");
                assert_eq!(heard(&streamed(format, &sound)).unwrap(), wanted, "{name}, streamed");
            }
            let pcm = streamed(Format::Pcm, &sound);
            let read = pcm.chunks_exact(2).map(|two| f32::from(i16::from_le_bytes([two[0], two[1]])) / 32768.0);
            assert_eq!(read.collect::<Vec<_>>(), wanted.samples);
        }
    }
}

/// What an encoder puts in front of a stream of MP3, and a decoder adds.
const DELAY: usize = 528 + 529;

/// Format, rate, the rate that is written, what a tone keeps (dB), and by how many samples a stream comes late.
const LOSSY: &[(Format, u32, u32, f64, usize)] = &[
    (Format::Mp3, 8_000, 8_000, 50.0, DELAY),
    (Format::Mp3, 16_000, 16_000, 50.0, DELAY),
    (Format::Mp3, 22_050, 22_050, 50.0, DELAY),
    (Format::Mp3, 24_000, 24_000, 50.0, DELAY),
    (Format::Mp3, 44_100, 44_100, 50.0, DELAY),
    (Format::Mp3, 48_000, 48_000, 50.0, DELAY),
    (Format::Opus, 8_000, 48_000, 25.0, 0),
    (Format::Opus, 12_000, 48_000, 25.0, 0),
    (Format::Opus, 16_000, 48_000, 25.0, 0),
    (Format::Opus, 24_000, 48_000, 25.0, 0),
    (Format::Opus, 48_000, 48_000, 25.0, 0),
    // Not a rate of the format.
    (Format::Mp3, 6_000, 8_000, 50.0, DELAY),
    (Format::Mp3, 96_000, 48_000, 50.0, DELAY),
    (Format::Opus, 22_050, 48_000, 25.0, 0),
    (Format::Opus, 44_100, 48_000, 25.0, 0),
];

#[test]
fn lossy_formats_give_back_the_tone_where_it_was() {
    for &(format, rate, written, decibels, late) in LOSSY {
        let sound = Sound { samples: chirp(rate, rate as usize / 2), rate };
        let wanted = resample(sound.clone(), written).samples;
        let check = |bytes: &[u8], late: usize, how: &str| {
            let name = format!("{format} of {rate} Hz, {how}");
            let found = heard(bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(found.rate, written, "{name}");
            let least = wanted.len() + late;
            // Without a length in it, a file ends with a frame.
            let most = if late > 0 { least + 1152 } else { least };
            assert!(
                (least..=most).contains(&found.samples.len()),
                "{name}: {} samples, {least} wanted",
                found.samples.len()
            );
            let agreement = snr(&found.samples[late..], &wanted);
            assert!(agreement > decibels, "{name}: {agreement:.1} dB");
        };
        check(&Encoder::whole(format, &sound).unwrap(), 0, "whole");
        check(&streamed(format, &sound), late, "streamed");
    }
}

/// Bytes a second of speech take at most, and what a stream may hold back.
#[test]
fn what_was_pushed_can_be_sent_at_once() {
    let cases = [
        (Format::Wav, 48_044, 0.0),
        (Format::Pcm, 48_000, 0.0),
        (Format::Flac, 48_042, 0.18),
        (Format::Mp3, 9_000, 0.05),
        (Format::Opus, 8_000, 0.03),
    ];
    for (format, most, behind) in cases {
        let mut encoder = Encoder::new(format, 24_000).unwrap();
        let second = encoder.push(&chirp(24_000, 24_000)).unwrap();
        assert!(!second.is_empty() && second.len() <= most, "{format}: {} bytes", second.len());
        if format == Format::Pcm {
            continue;
        }
        // A listener who has only that.
        let heard = heard(&second).unwrap_or_else(|error| panic!("{format}: {error}"));
        assert!(heard.duration().as_secs_f64() >= 1.0 - behind, "{format}: {:?}", heard.duration());
    }
}

#[test]
fn headers_tell_the_length_of_a_whole_file_alone() {
    let sound = Sound { samples: chirp(24_000, 1000), rate: 24_000 };
    let length = |bytes: &[u8]| u32::from_le_bytes(bytes[40..44].try_into().unwrap());
    assert_eq!(length(&Encoder::whole(Format::Wav, &sound).unwrap()), 2000);
    assert_eq!(length(&streamed(Format::Wav, &sound)), u32::MAX);
    let samples = |bytes: &[u8]| u32::from_be_bytes(bytes[22..26].try_into().unwrap());
    assert_eq!(samples(&Encoder::whole(Format::Flac, &sound).unwrap()), 1000);
    assert_eq!(samples(&streamed(Format::Flac, &sound)), 0);
}

#[test]
fn what_cannot_be_written_is_refused() {
    for format in Format::ALL {
        assert_eq!(Encoder::new(format, 0).err(), Some(EncodeError::Rate { format, rate: 0 }));
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut encoder = Encoder::new(format, 24_000).unwrap();
            assert_eq!(encoder.push(&[0.5, bad]), Err(EncodeError::NotFinite), "{format}");
            let sound = Sound { samples: vec![bad], rate: 24_000 };
            assert_eq!(Encoder::whole(format, &sound), Err(EncodeError::NotFinite), "{format}");
        }
    }
    let error = Encoder::new(Format::Flac, 192_000).err().unwrap();
    assert_eq!(error.to_string(), "flac can't have 192000 samples a second");
}

/// Nothing is said: a file without a sample, which is no sound when it is read. (Of FLAC's header alone, it can't be said that
/// nothing is missing.)
#[test]
fn nothing_can_be_written() {
    for format in [Format::Wav, Format::Flac, Format::Opus] {
        let bytes = Encoder::whole(format, &Sound { samples: Vec::new(), rate: 24_000 }).unwrap();
        let found = heard(&bytes);
        assert!(matches!(found, Err(DecodeError::Empty | DecodeError::Damaged(_))), "{format}: {found:?}");
    }
}
