//! Transcripts as files that players show, laid out as openai-whisper's writers do.

use std::fmt::Write;

use crate::Transcript;

/// SubRip: numbered, hours always, a comma before the milliseconds.
#[must_use]
pub fn srt(transcript: &Transcript) -> String {
    let mut file = String::new();
    for (index, segment) in transcript.segments.iter().enumerate() {
        let (start, end) = (time(segment.start, true, ','), time(segment.end, true, ','));
        // Writing to a string does not fail.
        let _ = write!(file, "{}\n{start} --> {end}\n{}\n\n", index + 1, cue(&segment.text));
    }
    file
}

/// WebVTT.
#[must_use]
pub fn vtt(transcript: &Transcript) -> String {
    let mut file = "WEBVTT\n\n".to_owned();
    for segment in &transcript.segments {
        let (start, end) = (time(segment.start, false, '.'), time(segment.end, false, '.'));
        let _ = write!(file, "{start} --> {end}\n{}\n\n", cue(&segment.text));
    }
    file
}

/// Values separated by tabs: begin and end in milliseconds, and the text.
#[must_use]
pub fn tsv(transcript: &Transcript) -> String {
    let mut file = "start\tend\ttext\n".to_owned();
    for segment in &transcript.segments {
        let text = segment.text.trim().replace('\t', " ");
        let _ = writeln!(file, "{}\t{}\t{text}", milliseconds(segment.start), milliseconds(segment.end));
    }
    file
}

/// A line a segment.
#[must_use]
pub fn txt(transcript: &Transcript) -> String {
    transcript.segments.iter().map(|segment| format!("{}\n", segment.text.trim())).collect()
}

/// A text that can stand under its times: an arrow in it would be taken for more of them, and an empty line for its end.
fn cue(text: &str) -> String {
    let text = text.trim().replace("-->", "->");
    if !text.contains('\n') {
        return text;
    }
    text.lines().filter(|line| !line.trim().is_empty()).collect::<Vec<_>>().join("\n")
}

fn milliseconds(seconds: f64) -> u64 {
    (seconds.max(0.0) * 1000.0).round_ties_even() as u64
}

fn time(seconds: f64, always_hours: bool, mark: char) -> String {
    let milliseconds = milliseconds(seconds);
    let (hours, rest) = (milliseconds / 3_600_000, milliseconds % 3_600_000);
    let (minutes, seconds, milliseconds) = (rest / 60_000, rest / 1000 % 60, rest % 1000);
    let hours = if always_hours || hours > 0 { format!("{hours:02}:") } else { String::new() };
    format!("{hours}{minutes:02}:{seconds:02}{mark}{milliseconds:03}")
}
