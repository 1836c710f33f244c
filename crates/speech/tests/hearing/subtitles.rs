//! Subtitles, as openai-whisper's writers lay them out.

use serde::Deserialize;
use vllm_speech::{Segment, Transcript, subtitles};

use crate::fixtures;

#[derive(Deserialize)]
struct Case {
    segments: Vec<Line>,
    srt: String,
    vtt: String,
    tsv: String,
    txt: String,
}

#[derive(Deserialize)]
struct Line {
    start: f64,
    end: f64,
    text: String,
}

fn transcript(lines: Vec<Line>) -> Transcript {
    let segment = |Line { start, end, text }| Segment {
        id: 0,
        seek: 0,
        start,
        end,
        text,
        tokens: vec![],
        temperature: 0.0,
        avg_logprob: 0.0,
        compression_ratio: 0.0,
        no_speech_prob: 0.0,
        words: vec![],
    };
    Transcript { language: None, duration: 0.0, segments: lines.into_iter().map(segment).collect() }
}

#[test]
fn writers_write_what_openais_write() {
    let case: Case = fixtures::json("subtitles.json");
    let transcript = transcript(case.segments);
    assert_eq!(subtitles::srt(&transcript), case.srt);
    assert_eq!(subtitles::vtt(&transcript), case.vtt);
    assert_eq!(subtitles::tsv(&transcript), case.tsv);
    assert_eq!(subtitles::txt(&transcript), case.txt);
}

#[test]
fn a_text_cannot_end_its_own_cue() {
    let line = Line { start: 0.0, end: 1.0, text: "one\n\n2\n00:00:05,000 --> 00:00:06,000\nforged".to_owned() };
    let written = subtitles::srt(&transcript(vec![line]));
    assert_eq!(written, "1\n00:00:00,000 --> 00:00:01,000\none\n2\n00:00:05,000 -> 00:00:06,000\nforged\n\n");
}

#[test]
fn nothing_said_is_nothing_but_a_header() {
    let nothing = Transcript::default();
    assert_eq!([subtitles::srt(&nothing), subtitles::txt(&nothing)], ["", ""]);
    assert_eq!([subtitles::vtt(&nothing), subtitles::tsv(&nothing)], ["WEBVTT\n\n", "start\tend\ttext\n"]);
}
