//! Stop strings: what a stream shows is what the whole text says, and nothing that may become one was shown.
//!
//! Input: a byte for the cuts, then lines: the first is the text, the others are stop strings.
#![no_main]

use libfuzzer_sys::{Corpus, fuzz_target};
use vllm_fuzz::{head, pieces};
use vllm_text::StopStrings;

/// The definition, by brute force: the first place where a stop string ends, then the longest one there.
fn expected(stops: &[&str], text: &str) -> (String, Option<String>) {
    for end in 1..=text.len() {
        let ending = |stop: &&&str| text.as_bytes()[..end].ends_with(stop.as_bytes());
        if let Some(stop) = stops.iter().filter(ending).max_by_key(|stop| stop.len()) {
            return (text[..end - stop.len()].to_owned(), Some((*stop).to_owned()));
        }
    }
    (text.to_owned(), None)
}

fuzz_target!(|data: &[u8]| -> Corpus {
    let Some(([cuts], text)) = head(data) else { return Corpus::Reject };
    let Ok(text) = std::str::from_utf8(text) else { return Corpus::Reject };
    let mut lines = text.split('\n');
    let text = lines.next().unwrap_or_default();
    let stops: Vec<&str> = lines.collect();
    let Ok(machine) = StopStrings::new(&stops, false) else {
        assert!(stops.contains(&""), "refused: {stops:?}");
        return Corpus::Keep;
    };
    let expected = expected(&stops, text);
    for longest in [1, 4, text.len() + 1] {
        let (mut machine, mut shown, mut found) = (machine.clone(), String::new(), None);
        for piece in pieces(text, cuts, longest) {
            let (more, stop) = machine.push(piece);
            shown.push_str(&more);
            assert!(expected.0.starts_with(&shown), "{shown:?} was shown");
            found = found.or(stop);
        }
        shown.push_str(&machine.finish());
        assert_eq!((shown, found), expected, "{stops:?}, pieces of {longest}");
    }
    Corpus::Keep
});
