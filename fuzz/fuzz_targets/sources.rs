//! Any text in place of a picture.
//!
//! Input: the text.
#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use vllm_fuzz::insert;
use vllm_media::Source;

const PIECES: &[&str] = &[
    "data:", "image/png", ";base64,", "http://", "https://", "file://", "file:///", "localhost", "example.com", "[::1]", ":80", "@",
    "/9j/", "R0lGODlh", "iVBORw0KGgo", "UklGR", "%20", "%", "=", "==", "..", "/", "\n", "é", "?", "#",
];

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    insert(data, size, max_size, seed, 0, PIECES)
});

fuzz_target!(|text: &str| {
    match Source::parse(text) {
        Ok(Source::Url(url)) => {
            assert!(matches!(url.scheme_str(), Some("http" | "https")), "{url}");
            assert!(url.host().is_some_and(|host| !host.is_empty()), "{url}");
            assert_eq!(Source::parse(&url.to_string()), Ok(Source::Url(url)));
        }
        Ok(Source::Bytes(bytes)) => assert!(bytes.len() <= text.len()),
        Ok(Source::Path(path)) => assert!(!path.as_os_str().is_empty()),
        Err(error) => assert!(!error.message.is_empty() && error.message.len() < 500, "{error}"),
    }
});
