//! Any bytes as an animation.
//!
//! Input: frames to see at most, frames a second in tenths, what their number is a multiple of with the spread in the highest
//! bit; then the file.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use vllm_fuzz::{allow_contained, head};
use vllm_media::{Limits, PictureFormat, Sampling, Spread, decode_video, sample_indices};

fuzz_target!(init: allow_contained(), |data: &[u8]| -> Corpus {
    let Some(([most, tenths, multiple], file)) = head(data) else { return Corpus::Reject };
    // Containers go to another program.
    if PictureFormat::of(file).is_none() {
        return Corpus::Reject;
    }
    let sampling = Sampling {
        fps: Some(f64::from(tenths) / 10.0),
        min_frames: None,
        max_frames: Some(most.into()),
        multiple_of: usize::from(multiple & 127),
        spread: if multiple < 128 { Spread::Starts } else { Spread::Ends },
    };
    let limits = Limits { pixels: 20_000, video_pixels: 50_000, frames: 200, ..Limits::default() };
    let first = decode_video(file, &sampling, &limits);
    assert_eq!(first, decode_video(file, &sampling, &limits), "the same file, another video");
    if let Ok(video) = first {
        let pixels: usize = video.frames.iter().map(|frame| frame.picture.pixels().len() / 3).sum();
        assert!(pixels as u64 <= limits.video_pixels, "{pixels} pixels");
        assert!((1..=usize::from(most)).contains(&video.frames.len()), "{} frames", video.frames.len());
        assert!(video.frames.is_sorted_by(|a, b| a.at < b.at), "frames out of order");
    }
    // And of a video of any length, without having it.
    let total = file.len() * usize::from(most);
    let indices = sample_indices(total, file.len() as f64 / 7.0, &sampling);
    assert!(indices.len() <= usize::from(most) && indices.is_sorted_by(|a, b| a < b));
    assert!(indices.last().is_none_or(|&last| last < total));
    Corpus::Keep
});
