//! Whisper's windows, segments and words, as openai-whisper's `transcribe` makes them of a model that follows a script.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use vllm_platform::{ListenerInfo, TokenId};
use vllm_speech::Segment;
use vllm_speech::whisper::{Ask, DecodingOptions, LongForm, Task, Vocabulary, WindowDecoder};

use crate::fixtures::{self, noise, vocabulary};

#[derive(Deserialize)]
struct Fixture {
    runs: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    name: String,
    language: String,
    frames: usize,
    options: Options,
    windows: Vec<Window>,
    segments: Vec<Wanted>,
}

/// `transcribe`'s arguments where they are not the defaults.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    temperature: Vec<f32>,
    word_timestamps: bool,
    without_timestamps: bool,
    condition_on_previous_text: bool,
    initial_prompt: Option<String>,
    task: String,
    compression_ratio_threshold: Option<f32>,
    logprob_threshold: Option<f32>,
    no_speech_threshold: Option<f32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            temperature: vec![0.0],
            word_timestamps: false,
            without_timestamps: false,
            condition_on_previous_text: true,
            initial_prompt: None,
            task: "transcribe".to_owned(),
            compression_ratio_threshold: Some(2.4),
            logprob_threshold: Some(-1.0),
            no_speech_threshold: Some(0.6),
        }
    }
}

impl Options {
    fn decoding(self, language: &str) -> DecodingOptions {
        DecodingOptions {
            task: if self.task == "translate" { Task::Translate } else { Task::Transcribe },
            language: Some(language.to_owned()),
            prompt: self.initial_prompt,
            temperatures: self.temperature,
            compression_ratio_threshold: self.compression_ratio_threshold,
            logprob_threshold: self.logprob_threshold,
            no_speech_threshold: self.no_speech_threshold,
            condition_on_previous_text: self.condition_on_previous_text,
            word_timestamps: self.word_timestamps,
            without_timestamps: self.without_timestamps,
            seed: 1,
        }
    }
}

/// What the script says about a window.
#[derive(Deserialize)]
struct Window {
    seek: usize,
    tokens: Vec<TokenId>,
    peak: f32,
    no_speech: f32,
    /// What the decoder was fed first.
    initial: Vec<TokenId>,
    attempts: usize,
}

#[derive(Deserialize)]
struct Wanted {
    seek: usize,
    start: f64,
    end: f64,
    text: String,
    tokens: Vec<TokenId>,
    temperature: f32,
    avg_logprob: f32,
    compression_ratio: f32,
    no_speech_prob: f32,
    #[serde(default)]
    words: Vec<WantedWord>,
}

#[derive(Deserialize)]
struct WantedWord {
    word: String,
    start: f64,
    end: f64,
    probability: f32,
}

const PLACES: usize = 1500;

fn listener() -> ListenerInfo {
    ListenerInfo {
        window_frames: 2 * PLACES,
        encoded_frames: PLACES,
        max_text_len: 448,
        alignment_heads: vec![(0, 0), (0, 1)],
    }
}

/// The logits of `make.py`'s `Inference`.
fn follow(vocabulary: &Vocabulary, window: &Window, decoder: &mut WindowDecoder) {
    let [sot] = vocabulary.detection_prompt();
    // The marks' order, from the end of the text on: end, start, 99 languages, four marks, silence, no times, times.
    let (eot, no_speech, times) = (sot - 1, sot + 104, sot as usize + 106);
    let mut attempts = 0;
    let mut written = 0;
    while let Some(feed) = decoder.feed() {
        if feed.begins {
            attempts += 1;
            written = 0;
            assert_eq!(feed.tokens, window.initial, "window at {}", window.seek);
        } else {
            written += 1;
            assert_eq!(feed.logits, 1);
        }
        let target = window.tokens.get(written).copied().unwrap_or(eot);
        let mut row = vec![0.0; vocabulary.size()];
        row[times..].fill(-4.0);
        row[no_speech as usize] = window.no_speech;
        row[target as usize] = window.peak;
        decoder.take(&mut row.repeat(feed.logits));
    }
    assert_eq!((attempts, decoder.attempts()), (window.attempts, window.attempts), "window at {}", window.seek);
}

/// What `make.py`'s heads attend to.
fn weights(seek: usize, tokens: usize, heard: usize) -> Vec<f32> {
    let ridge = |place: usize| {
        let (token, place) = (place / PLACES % tokens, place % PLACES);
        let distance = (place * tokens).abs_diff(token * heard) as f64;
        (8.0 - distance / (tokens * 4) as f64).max(0.0)
    };
    noise(seek as u64, 2 * tokens * PLACES)
        .enumerate()
        .map(|(place, noise)| (noise * 2.0 + ridge(place)) as f32)
        .collect()
}

/// The logits of its last rows, when all these tokens are fed.
fn word_logits(size: usize, tokens: &[TokenId], rows: std::ops::Range<usize>) -> Vec<f32> {
    let mut logits = vec![];
    for row in rows {
        let begin = logits.len();
        logits.extend((0..size).map(|token| ((row * 7919 + token * 104_729) % 1000) as f32 / 100.0));
        logits[begin + tokens[row + 1] as usize] += 8.0;
    }
    logits
}

fn transcribe(vocabulary: &Arc<Vocabulary>, run: &mut Run) -> Vec<Segment> {
    let windows: HashMap<usize, Window> = run.windows.drain(..).map(|window| (window.seek, window)).collect();
    let options = Arc::new(std::mem::take(&mut run.options).decoding(&run.language));
    let language = vocabulary.check(&options).unwrap();
    assert_eq!(language, Some(run.language.as_str()));
    let mut long = LongForm::new(Arc::clone(vocabulary), options, language, run.frames, &listener()).unwrap();
    let mut segments = vec![];
    let (mut decoded, mut heard, mut at) = (0, 0, 0);
    loop {
        match long.next() {
            Ask::Decode { seek, frames, mut decoder } => {
                assert_eq!(long.progress(), seek);
                assert_eq!(frames, (run.frames - seek).min(3000));
                (heard, at) = (frames / 2, seek);
                let window = windows.get(&seek).unwrap_or_else(|| panic!("{}: no window at {seek}", run.name));
                follow(vocabulary, window, &mut decoder);
                segments.extend(long.decoded(decoder.finish().unwrap()));
                decoded += 1;
            }
            Ask::Align { tokens, fed, logits } => {
                let weights = weights(at, tokens.len(), heard);
                let logits = word_logits(vocabulary.size(), &tokens, fed - logits..fed);
                segments.extend(long.aligned(&weights, &logits));
            }
            Ask::Done => break,
        }
    }
    assert_eq!((decoded, long.progress()), (windows.len(), run.frames), "{}", run.name);
    segments
}

#[test]
fn segments_are_those_of_openai_whisper() {
    let vocabulary = vocabulary();
    for mut run in fixtures::json::<Fixture>("long_form.json").runs {
        let segments = transcribe(&vocabulary, &mut run);
        assert_eq!(segments.len(), run.segments.len(), "{}", run.name);
        assert!(segments.len() > 1, "{}", run.name);
        for (index, (found, wanted)) in segments.iter().zip(&run.segments).enumerate() {
            let name = format!("{}, segment {index}", run.name);
            assert_eq!((found.id, found.seek, &found.text), (index, wanted.seek, &wanted.text), "{name}");
            assert_eq!((&found.tokens, found.temperature), (&wanted.tokens, wanted.temperature), "{name}");
            near(&name, [found.start, found.end], [wanted.start, wanted.end], 1e-9);
            let numbers = [found.avg_logprob, found.no_speech_prob].map(f64::from);
            near(&name, numbers, [wanted.avg_logprob, wanted.no_speech_prob].map(f64::from), 1e-5);
            // The compressor finds some bytes more or less.
            near(&name, [f64::from(found.compression_ratio)], [f64::from(wanted.compression_ratio)], 0.1);
            assert_eq!(found.words.len(), wanted.words.len(), "{name}: {:?}", found.words);
            for (found, wanted) in found.words.iter().zip(&wanted.words) {
                assert_eq!(found.text, wanted.word, "{name}");
                near(&name, [found.start, found.end], [wanted.start, wanted.end], 1e-9);
                near(&name, [f64::from(found.probability)], [f64::from(wanted.probability)], 1e-5);
            }
        }
    }
}

fn near<const N: usize>(name: &str, found: [f64; N], wanted: [f64; N], most: f64) {
    let is_near = found.iter().zip(&wanted).all(|(found, wanted)| (found - wanted).abs() <= most);
    assert!(is_near, "{name}: {found:?}, not {wanted:?}");
}

#[test]
fn a_sound_without_frames_has_nothing_to_decode() {
    let vocabulary = vocabulary();
    let options = Arc::new(DecodingOptions::default());
    let long = LongForm::new(vocabulary, options, Some("en"), 0, &listener()).unwrap();
    assert!(matches!(long.next(), Ask::Done));
}

#[test]
fn the_seed_decides_what_is_sampled() {
    let vocabulary = vocabulary();
    let texts = [1, 1, 2].map(|seed| {
        let options = DecodingOptions { temperatures: vec![1.0], seed, ..DecodingOptions::default() };
        let long = LongForm::new(Arc::clone(&vocabulary), Arc::new(options), Some("en"), 3000, &listener()).unwrap();
        let Ask::Decode { mut decoder, .. } = long.next() else { panic!("nothing to decode") };
        while let Some(feed) = decoder.feed() {
            decoder.take(&mut vec![0.0; feed.logits * vocabulary.size()]);
        }
        decoder.finish().unwrap().tokens
    });
    assert_eq!(texts[0], texts[1]);
    assert_ne!(texts[0], texts[2]);
}

#[test]
fn a_text_that_never_ends_is_cut() {
    let vocabulary = vocabulary();
    let options =
        Arc::new(DecodingOptions { temperatures: vec![0.0], without_timestamps: true, ..DecodingOptions::default() });
    // Prompt, first tokens: how many more there is room for, in a text of 20 tokens at most.
    let cases = [(0, 10), (3, 10), (5, 10), (9, 7), (300, 7)];
    for (prompt, room) in cases {
        let previous = vec![30; prompt];
        let mut decoder =
            WindowDecoder::new(Arc::clone(&vocabulary), Arc::clone(&options), Some("en"), &previous, 20, 0);
        let mut fed = 0;
        while let Some(feed) = decoder.feed() {
            fed += feed.tokens.len();
            let mut row = vec![0.0; vocabulary.size()];
            row[77] = 9.0;
            decoder.take(&mut row.repeat(feed.logits));
        }
        assert!(fed <= 20, "{fed} tokens fed after a prompt of {prompt}");
        assert_eq!(decoder.finish().unwrap().tokens.len(), room, "after a prompt of {prompt}");
    }
}
