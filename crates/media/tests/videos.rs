//! Animations and containers, beside the frames that Pillow sees in them and that went into them (`fixtures/make.py`).

mod fixtures;

use std::collections::BTreeMap;

use fixtures::{Expected, compare, files, folder, json};
use serde::Deserialize;
use vllm_media::{Limits, MediaErrorKind, Sampling, Spread, decode_video, sample_indices};

#[derive(Deserialize)]
struct Animation {
    width: u32,
    height: u32,
    frames: Vec<Shown>,
}

#[derive(Deserialize)]
struct Shown {
    at: f64,
    rgb: String,
}

/// All frames, or the most that are allowed.
fn all() -> Sampling {
    Sampling { fps: Some(1000.0), max_frames: Some(768), ..Sampling::default() }
}

#[test]
fn animations_are_as_pillow_sees_them() {
    let mut wrong = vec![];
    for (name, wanted) in json::<BTreeMap<String, Animation>>("animations.json") {
        let bytes = std::fs::read(folder("animations").join(&name)).unwrap();
        let video = match decode_video(&bytes, &all(), &Limits::default()) {
            Ok(video) => video,
            Err(error) => {
                wrong.push(format!("{name}: {error}"));
                continue;
            }
        };
        let at: Vec<f64> = video.frames.iter().map(|frame| (frame.at * 1000.0).round() / 1000.0).collect();
        let wanted_at: Vec<f64> = wanted.frames.iter().map(|frame| frame.at).collect();
        if at != wanted_at {
            wrong.push(format!("{name}: at {at:?}, not {wanted_at:?}"));
        }
        for (index, (frame, shown)) in video.frames.iter().zip(wanted.frames).enumerate() {
            let wanted = Expected { width: wanted.width, height: wanted.height, rgb: shown.rgb };
            wrong.extend(compare(&format!("{name}, frame {index}"), &frame.picture, &wanted, (0, 0.0)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn of_a_long_animation_some_frames_are_seen() {
    let bytes = std::fs::read(folder("animations/many.gif")).unwrap();
    // Room for 64 of the 500 frames of 8×8, and no more.
    let limits = Limits { video_pixels: 64 * 64, ..Limits::default() };
    let video = decode_video(&bytes, &Sampling { fps: Some(24.0), ..Sampling::default() }, &limits).unwrap();
    assert_eq!(video.frames.len(), 64);
    for (i, frame) in video.frames.iter().enumerate() {
        let index = i * 500 / 64;
        let colour = [u8::try_from(index % 256).unwrap(), u8::try_from(index / 256).unwrap(), 7];
        assert_eq!(frame.picture.pixels()[..3], colour, "frame {i}");
        assert!((frame.at - index as f64 * 0.04).abs() < 1e-9, "frame {i}");
    }
    // 20 seconds, two frames each.
    assert_eq!(decode_video(&bytes, &Sampling::default(), &Limits::default()).unwrap().frames.len(), 40);
}

#[test]
fn what_is_no_video() {
    let decode = |bytes: &[u8]| decode_video(bytes, &Sampling::default(), &Limits::default()).unwrap_err();
    for (name, bytes) in files("pictures") {
        if name.ends_with(".gif") {
            continue;
        }
        let error = decode(&bytes);
        assert!(error.kind == MediaErrorKind::Invalid && error.message.contains("image"), "{name}: {error}");
    }
    assert_eq!(decode(b"").kind, MediaErrorKind::Invalid);
    for text in
        [&b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n"[..], b"ffconcat version 1.0\nfile /etc/passwd\n", b"<html>"]
    {
        assert_eq!(decode(text).kind, MediaErrorKind::Unsupported);
    }
}

#[derive(Deserialize)]
struct Sampled {
    total: usize,
    rate: f64,
    fps: f64,
    least: usize,
    most: usize,
    starts: Vec<usize>,
    ends: Vec<usize>,
}

#[test]
fn frames_are_those_that_transformers_chooses() {
    let cases: Vec<Sampled> = json("sampling.json");
    assert!(cases.len() > 100);
    for case in cases {
        let sampling = Sampling {
            fps: Some(case.fps),
            min_frames: Some(case.least),
            max_frames: Some(case.most),
            ..Sampling::default()
        };
        let name = format!("{} frames at {}, {sampling:?}", case.total, case.rate);
        let qwen2 = Sampling { multiple_of: 2, ..sampling };
        assert_eq!(sample_indices(case.total, case.rate, &qwen2), case.starts, "{name}");
        let qwen3 = Sampling { spread: Spread::Ends, ..sampling };
        assert_eq!(sample_indices(case.total, case.rate, &qwen3), case.ends, "{name}");
    }
}

/// `VLLM_FFMPEG=… cargo test -p vllm-media --test videos -- --ignored`
#[test]
#[ignore = "needs an ffmpeg"]
fn containers() {
    for (name, bytes) in files("videos") {
        let video =
            decode_video(&bytes, &Sampling { fps: Some(4.0), ..Sampling::default() }, &Limits::default()).unwrap();
        assert_eq!(video.frames.len(), 10, "{name}");
        for (i, frame) in video.frames.iter().enumerate() {
            let index = i * 25 / 10;
            assert!((frame.at - index as f64 / 10.0).abs() < 0.002, "{name}, frame {i}: {}", frame.at);
            assert_eq!((frame.picture.width(), frame.picture.height()), (64, 48), "{name}");
            let pixel = |x: usize| &frame.picture.pixels()[(24 * 64 + x) * 3..][..3];
            let gray = u8::try_from(index * 10).unwrap();
            for (x, wanted) in [(10, [50, 100, 200]), (50, [gray; 3])] {
                let off = pixel(x).iter().zip(wanted).map(|(a, b)| a.abs_diff(b)).max().unwrap();
                assert!(off <= 12, "{name}, frame {i}, column {x}: {:?}, not {wanted:?}", pixel(x));
            }
        }
        let limits = Limits { pixels: 64 * 48 - 1, ..Limits::default() };
        let error = decode_video(&bytes, &Sampling::default(), &limits).unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::TooLarge, "{name}: {error}");
        let error = decode_video(&bytes[..200], &Sampling::default(), &Limits::default()).unwrap_err();
        assert_eq!(error.kind, MediaErrorKind::Invalid, "{name}: {error}");
    }
}
