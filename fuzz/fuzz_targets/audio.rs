//! Any bytes as a sound file.
//!
//! Input: how many tenths of a second may be heard, the most channels; then the file.
#![no_main]

use std::{io::Cursor, time::Duration};

use libfuzzer_sys::{Corpus, fuzz_target};
use vllm_audio::{DecodeError, Limits, decode};
use vllm_fuzz::{allow_contained, head};

fuzz_target!(init: allow_contained(), |data: &[u8]| -> Corpus {
    let Some(([tenths, channels], file)) = head(data) else { return Corpus::Reject };
    let limits = Limits {
        duration: Duration::from_millis(100 * u64::from(tenths)),
        channels: channels.into(),
        ..Limits::default()
    };
    let heard = || decode(Cursor::new(file.to_vec()), None, &limits);
    let first = heard();
    match (&first, heard()) {
        (Ok(first), Ok(again)) => assert_eq!(*first, again, "the same file, another sound"),
        (Err(first), Err(again)) => assert_eq!(first.to_string(), again.to_string(), "the same file, another error"),
        (first, again) => panic!("{first:?} once, {again:?} the next time"),
    }
    match first {
        Ok(sound) => {
            assert!(limits.rates.contains(&sound.rate), "{} samples a second", sound.rate);
            assert!(!sound.samples.is_empty() && sound.duration() <= limits.duration, "{:?}", sound.duration());
            assert!(sound.samples.iter().all(|sample| sample.is_finite()), "a sample that is no number");
        }
        Err(DecodeError::Io(error)) => panic!("memory doesn't fail: {error}"),
        Err(_) => {}
    }
    Corpus::Keep
});
