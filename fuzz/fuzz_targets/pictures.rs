//! Any bytes as a picture.
//!
//! Input: the file.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use vllm_fuzz::allow_contained;
use vllm_media::{Limits, PictureFormat, decode_picture};

fuzz_target!(init: allow_contained(), |data: &[u8]| -> Corpus {
    if PictureFormat::of(data).is_none() {
        return Corpus::Reject;
    }
    let limits = Limits { pixels: 50_000, ..Limits::default() };
    let first = decode_picture(data, &limits);
    assert_eq!(first, decode_picture(data, &limits), "the same file, another picture");
    if let Ok(picture) = first {
        let pixels = u64::from(picture.width()) * u64::from(picture.height());
        assert!((1..=limits.pixels).contains(&pixels), "{picture:?}");
        assert_eq!(picture.pixels().len() as u64, pixels * 3);
    }
    Corpus::Keep
});
