//! Files that are not what they say: cut off, too large, or bent.

mod fixtures;

use std::{
    panic,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fixtures::{files, folder};
use vllm_media::{Limits, MediaError, MediaErrorKind, Picture, Sampling, Video, decode_picture, decode_video};

#[test]
fn a_file_without_its_end_is_refused() {
    let mut kept = vec![];
    for (name, bytes) in files("pictures") {
        assert!(decode_picture(&bytes, &Limits::default()).is_ok(), "{name}");
        // Nine tenths down to nothing. (Of the last tenth metadata may be the most.)
        for tenth in 0..10 {
            let part = &bytes[..bytes.len() * tenth / 10];
            if decode_picture(part, &Limits::default()).is_ok() {
                kept.push(format!("{name}: {tenth} tenths"));
            }
        }
    }
    assert!(kept.is_empty(), "{}", kept.join("\n"));
}

#[test]
fn an_animation_without_its_end_is_refused() {
    let all = Sampling { fps: Some(1000.0), ..Sampling::default() };
    for (name, bytes) in files("animations") {
        let whole = decode_video(&bytes, &all, &Limits::default()).unwrap();
        for tenth in 0..10 {
            let part = &bytes[..bytes.len() * tenth / 10];
            let error = decode_video(part, &all, &Limits::default());
            assert!(error.is_err(), "{name}: {tenth} tenths of {} frames", whole.frames.len());
        }
    }
}

/// Where a file says its width and height: the places, how many bytes, and whether the greatest comes first.
fn size_fields(name: &str, bytes: &[u8]) -> (Vec<usize>, usize, bool) {
    let find = |wanted: &dyn Fn(&[u8]) -> bool| bytes.windows(8).position(wanted).unwrap();
    match name.rsplit('.').next().unwrap() {
        "png" => (vec![16, 20], 4, true),
        "gif" => (vec![6, 8], 2, false),
        "bmp" => (vec![18, 22], 4, false),
        // Of the canvas, less one.
        "webp" => (vec![24, 27], 3, false),
        "jpg" => {
            let frame = find(&|at| at[0] == 0xff && matches!(at[1], 0xc0 | 0xc2));
            (vec![frame + 7, frame + 5], 2, true)
        }
        // Tags 256 and 257, one number each, and 278: as many rows in a strip.
        "tiff" => {
            ([0, 1, 22].map(|tag| find(&|at| at[..2] == [tag, 1] && at[4..8] == [1, 0, 0, 0]) + 8).into(), 2, false)
        }
        other => panic!("{other}"),
    }
}

#[test]
fn size_is_judged_by_the_header() {
    let names = [
        "rgb.png",
        "rgba_16.png",
        "palette.gif",
        "rgb.bmp",
        "lossy_alpha.webp",
        "444.jpg",
        "gray_progressive.jpg",
        "cmyk.jpg",
        "rgb.tiff",
        "deflate.tiff",
    ];
    for name in names {
        let bytes = std::fs::read(folder("pictures").join(name)).unwrap();
        let (places, width, big) = size_fields(name, &bytes);
        for side in [60_000u64, 0] {
            let mut bent = bytes.clone();
            for &place in &places {
                let number =
                    if big { side.to_be_bytes()[8 - width..].to_vec() } else { side.to_le_bytes()[..width].to_vec() };
                bent[place..place + width].copy_from_slice(&number);
            }
            if name.ends_with("png") {
                // Its header has a checksum, which is not what the file is refused for.
                let sum = crc32(&bent[12..29]);
                bent[29..33].copy_from_slice(&sum.to_be_bytes());
            }
            let error = decode_picture(&bent, &Limits::default()).unwrap_err();
            assert_eq!(error.kind == MediaErrorKind::TooLarge, side > 0, "{name} {side}: {error}");
        }
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |sum, &byte| {
        (0..8).fold(sum ^ u32::from(byte), |sum, _| if sum & 1 == 1 { 0xedb8_8320 ^ (sum >> 1) } else { sum >> 1 })
    })
}

/// A bomb is refused before its memory is taken: a frame of 60000×60000 among small ones, too.
#[test]
fn limits_hold() {
    let bytes = |path: &str| std::fs::read(folder(path)).unwrap();
    let (png, gif) = (bytes("pictures/rgb.png"), bytes("animations/many.gif"));
    let all = Sampling { max_frames: Some(500), fps: Some(100.0), ..Sampling::default() };
    type Case<'a> = (&'a str, Limits, &'a dyn Fn(&Limits) -> Result<(), MediaError>);
    let picture = |limits: &Limits| decode_picture(&png, limits).map(drop);
    let video = |limits: &Limits| decode_video(&gif, &all, limits).map(drop);
    let limits = Limits::default;
    let cases: [Case<'_>; 6] = [
        ("bytes", Limits { image_bytes: png.len() - 1, ..limits() }, &picture),
        ("pixels", Limits { pixels: 37 * 29 - 1, ..limits() }, &picture),
        ("a video's bytes", Limits { video_bytes: gif.len() - 1, ..limits() }, &video),
        ("a frame's pixels", Limits { pixels: 63, ..limits() }, &video),
        ("all frames' pixels", Limits { video_pixels: 500 * 64 - 1, ..limits() }, &video),
        ("frames", Limits { frames: 499, ..limits() }, &video),
    ];
    for (name, tight, decode) in cases {
        assert_eq!(decode(&tight).unwrap_err().kind, MediaErrorKind::TooLarge, "{name}");
    }
    let enough = Limits {
        image_bytes: png.len(),
        video_bytes: gif.len(),
        pixels: 37 * 29,
        video_pixels: 500 * 64,
        frames: 500,
        ..limits()
    };
    picture(&enough).unwrap();
    video(&enough).unwrap();
    let error = decode_video(&gif, &all, &Limits { decode_time: Duration::ZERO, ..limits() }).unwrap_err();
    assert_eq!(error.kind, MediaErrorKind::Timeout);
}

/// Every file bent a few hundred times: it is refused or read, never more of it than is allowed, and nothing panics.
///
/// `VLLM_MUTATIONS=100000 cargo test -p vllm-media --test damaged bent` goes on for longer.
#[test]
fn bent_files_do_no_harm() {
    let rounds = std::env::var("VLLM_MUTATIONS").map_or(60, |rounds| rounds.parse().unwrap());
    let limits = Limits { pixels: 20_000, video_pixels: 60_000, frames: 20, ..Limits::default() };
    let sampling = Sampling { max_frames: Some(20), fps: Some(1000.0), ..Sampling::default() };
    // What a library panics over is contained, and counted below.
    let contained = Arc::new(AtomicUsize::new(0));
    let count = contained.clone();
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        if info.location().is_some_and(|place| place.file().contains("/registry/src/")) {
            count.fetch_add(1, Relaxed);
            eprintln!("contained: {info}");
        } else {
            usual(info);
        }
    }));

    let seeds: Vec<_> = files("pictures").into_iter().chain(files("animations")).collect();
    let (mut read, mut refused, mut slowest) = (0, 0, (Duration::ZERO, String::new()));
    for round in 0..rounds {
        for (index, (name, bytes)) in seeds.iter().enumerate() {
            let mut rng = Rng(round * 1000 + index as u64);
            let other = &seeds[rng.below(seeds.len())].1;
            let bent = bend(bytes, other, &mut rng);
            let start = Instant::now();
            let check = |pictures: &[&Picture]| {
                let pixels: u64 = pictures.iter().map(|picture| picture.pixels().len() as u64 / 3).sum();
                assert!(pixels <= limits.video_pixels, "{name}, round {round}: {pixels} pixels");
            };
            match decode_picture(&bent, &limits) {
                Ok(picture) => {
                    read += 1;
                    check(&[&picture]);
                }
                Err(error) => {
                    refused += 1;
                    assert!(error.message.len() < 500, "{name}, round {round}: {error}");
                }
            }
            if let Ok(Video { frames }) = decode_video(&bent, &sampling, &limits) {
                check(&frames.iter().map(|frame| &frame.picture).collect::<Vec<_>>());
            }
            if start.elapsed() > slowest.0 {
                slowest = (start.elapsed(), format!("{name}, round {round}"));
            }
        }
    }
    let _ = panic::take_hook();
    eprintln!("{read} read, {refused} refused; {contained:?} panics of libraries; the longest took {slowest:?}");
    assert!(read > 0 && refused > 0);
    if let Some(peak) = peak() {
        // Of 20000 pixels. (The tests beside this one need a little too.)
        assert!(peak < 512 << 20, "{peak} bytes were in use");
    }
}

/// The most bytes that this process had in memory, where that is known.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? << 10)
}

/// SplitMix64.
struct Rng(u64);

impl Rng {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }
}

/// Bits flipped, bytes set to remarkable ones, stretches doubled, dropped, or put in from another file.
fn bend(bytes: &[u8], other: &[u8], rng: &mut Rng) -> Vec<u8> {
    let mut bent = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        // Headers are what is interesting.
        let end = if rng.below(2) == 0 { bent.len() } else { bent.len().min(64) };
        let at = rng.below(end);
        let len = 1 + rng.below(bent.len().saturating_sub(at).min(40));
        if bent.len() < 2 {
            break;
        }
        match rng.below(6) {
            0 => bent[at] ^= 1 << rng.below(8),
            1 => bent[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][rng.below(6)],
            2 => drop(bent.drain(at..(at + len).min(bent.len()))),
            3 => {
                let piece = bent[at..(at + len).min(bent.len())].to_vec();
                bent.splice(at..at, piece);
            }
            4 => {
                let from = rng.below(other.len());
                let piece = other[from..(from + len).min(other.len())].to_vec();
                bent.splice(at..(at + len).min(bent.len()), piece);
            }
            _ => bent.truncate(at.max(1)),
        }
    }
    bent
}
