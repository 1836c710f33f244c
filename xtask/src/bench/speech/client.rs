//! What our server is asked, and how long it takes: no client library is measured along.

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::command;

/// Samples a second of what Kokoro says.
const RATE: u32 = 24_000;

/// What was written down, and how long that took.
pub struct Heard {
    pub text: String,
    pub seconds: f64,
}

/// What was said: samples of 16 bits.
pub struct Said {
    pcm: Vec<u8>,
    /// Until all of it was there.
    pub seconds: f64,
    /// Until the first of it was there.
    pub first_byte: f64,
}

impl Said {
    /// How long it lasts, in seconds.
    pub fn duration(&self) -> f64 {
        self.pcm.len() as f64 / 2.0 / f64::from(RATE)
    }

    /// As a WAV file.
    pub fn wav(&self) -> Vec<u8> {
        let len = self.pcm.len() as u32;
        let mut file = Vec::with_capacity(self.pcm.len() + 44);
        file.extend_from_slice(b"RIFF");
        file.extend((36 + len).to_le_bytes());
        file.extend_from_slice(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
        file.extend(RATE.to_le_bytes());
        file.extend((2 * RATE).to_le_bytes());
        file.extend_from_slice(b"\x02\0\x10\0data");
        file.extend(len.to_le_bytes());
        file.extend(&self.pcm);
        file
    }
}

/// Has a WAV file written down.
pub fn hear(port: u16, model: &str, wav: &[u8]) -> Result<Heard> {
    const BOUNDARY: &str = "a-boundary-that-no-sound-has";
    let mut body = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--{BOUNDARY}\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"sound.wav\"\r\ncontent-type: audio/wav\r\n\r\n"
    )
    .into_bytes();
    body.extend_from_slice(wav);
    body.extend(format!("\r\n--{BOUNDARY}--\r\n").bytes());
    let answer = post(port, "/v1/audio/transcriptions", &format!("multipart/form-data; boundary={BOUNDARY}"), &body)?;
    let json: Value = serde_json::from_slice(&answer.body).context("the transcript")?;
    let text = json["text"].as_str().context("a transcript without text")?.to_owned();
    Ok(Heard { text, seconds: answer.seconds })
}

/// Has a text said.
pub fn say(port: u16, text: &str, voice: &str) -> Result<Said> {
    let body = json!({ "model": "kokoro-82m", "input": text, "voice": voice, "response_format": "pcm" });
    let answer = post(port, "/v1/audio/speech", "application/json", body.to_string().as_bytes())?;
    Ok(Said { pcm: answer.body, seconds: answer.seconds, first_byte: answer.first_byte })
}

/// A text's phonemes, as they are said.
pub fn phonemes(binary: &Path, text: &str) -> Result<String> {
    Ok(command::output(Command::new(binary).args(["speak", "--phonemes", text]))?.trim().to_owned())
}

/// Seconds that the spectrogram of a WAV file takes.
pub fn mel(file: &Path) -> Result<f64> {
    let mut example = command::cargo();
    example.args(["run", "--quiet", "--release", "--package", "vllm-speech", "--example", "mel_times"]).arg(file);
    let said = command::output(&mut example)?;
    said.trim().parse().with_context(|| format!("mel_times said {said:?}"))
}

struct Answer {
    body: Vec<u8>,
    seconds: f64,
    first_byte: f64,
}

fn post(port: u16, path: &str, kind: &str, body: &[u8]) -> Result<Answer> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    let start = Instant::now();
    // HTTP 1.0 has no chunks: the body ends with the connection.
    let head = format!(
        "POST {path} HTTP/1.0\r\nhost: localhost\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body)?;
    let (mut read, mut first_byte, mut piece) = (Vec::new(), None, vec![0; 1 << 16]);
    loop {
        let count = socket.read(&mut piece)?;
        if count == 0 {
            break;
        }
        read.extend_from_slice(&piece[..count]);
        if first_byte.is_none() && end_of_head(&read).is_some_and(|end| end < read.len()) {
            first_byte = Some(start.elapsed().as_secs_f64());
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    let end = end_of_head(&read).context("an answer without a head")?;
    let body = read.split_off(end);
    let head = String::from_utf8_lossy(&read);
    if head.split(' ').nth(1) != Some("200") {
        bail!("{}\n{}", head.lines().next().unwrap_or_default(), String::from_utf8_lossy(&body));
    }
    Ok(Answer { body, seconds, first_byte: first_byte.unwrap_or(seconds) })
}

fn end_of_head(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}
