//! `cargo xtask bench speech`: how fast speech is written down and texts are said, beside what Python has for it; and how well what was said
//! is understood again.
//!
//! Models that hear and speak as users have them: one server, asked over HTTP. The peers stay loaded in one Python process, and what they
//! take to load, to read files and to warm up is not counted. All take turns in each round.

mod client;
mod error_rate;
mod peers;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::json;

use self::{client::Said, peers::Peers};
use super::{
    measure::median,
    server::{Server, free_port},
};
use crate::{models, paths, setup};

#[derive(Args)]
pub struct SpeechArgs {
    /// Rounds
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Leave the peers out
    #[arg(long)]
    alone: bool,
    /// And mlx-audio and transformers, which take minutes on a CPU
    #[arg(long)]
    slow: bool,
    /// Say the twenty sentences and write them down again: how many words are wrong
    #[arg(long)]
    round_trip: bool,
    /// Measure this vllm-mlx, in place of one built from here
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// More flags of `vllm-mlx serve`, separated by spaces
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    ours_flags: String,
}

const PATIENCE: Duration = Duration::from_secs(300);
const VOICE: &str = "af_heart";
/// One sentence of every day, and a long one.
const TEXTS: [(&str, &str); 2] = [
    ("short", "The train to the coast leaves at a quarter past nine."),
    (
        "long",
        "When the rain had stopped, she opened the window, and the smell of wet grass came in with the voices of the children who were \
         playing in the street below.",
    ),
];
/// The peers by what is asked of them, the last ones slow.
const HEARERS: [&str; 4] = ["faster-whisper int8", "faster-whisper float32", "transformers", "mlx-audio, Whisper"];
const SPEAKERS: [&str; 2] = ["ONNX Runtime int8", "mlx-audio, Kokoro"];
const MELS: [&str; 2] = ["openai-whisper", "faster-whisper int8"];

/// How many times faster than real time, by what was done and by whom.
type Samples = BTreeMap<(String, String), Vec<f64>>;

/// Measures and prints a table. All samples are kept in `target/bench/speech.json`.
pub fn run(args: &SpeechArgs) -> Result<()> {
    ensure!(args.rounds > 0, "--rounds must be at least 1");
    setup::run(None)?;
    let [whisper, kokoro, librivox, clips] =
        ["whisper-tiny.en", "kokoro-82m", "librivox", "clips"].map(|name| models::fetch(name, None));
    let (whisper, kokoro, librivox, clips) = (whisper?, kokoro?, librivox?, clips?);
    let binary = args.ours.clone().map_or_else(super::release_build, Ok)?;
    let mut peers = if args.alone { None } else { Some(Peers::start(&whisper, &kokoro, args.slow)?) };
    let sounds = sounds(&librivox, &clips)?;
    let server = start(args, &binary, &whisper, &kokoro)?;
    let mut samples = Samples::new();
    let mut first_byte = vec![];
    for round in 0..args.rounds {
        eprintln!("round {}", round + 1);
        for (name, files) in &sounds {
            hear(name, files, server.port, peers.as_mut(), &mut samples)?;
        }
        for (name, text) in TEXTS {
            let said = say(&format!("say, {name}"), text, &binary, &kokoro, server.port, peers.as_mut(), &mut samples)?;
            if name == "short" {
                first_byte.push(said.first_byte * 1e3);
            }
        }
        if let Some(peers) = &mut peers {
            mels(&clips.join("two_cities.wav"), peers, &mut samples)?;
        }
    }
    println!("{}", report(args, &samples, &first_byte));
    if args.round_trip {
        println!("{}", round_trip(&binary, &kokoro, server.port, peers.as_mut().filter(|_| args.slow))?);
    }
    let place = paths::target().join("bench");
    fs::create_dir_all(&place)?;
    let kept: Vec<_> =
        samples.iter().map(|((what, who), all)| json!({ "what": what, "who": who, "samples": all })).collect();
    fs::write(place.join("speech.json"), serde_json::to_vec_pretty(&kept)?)?;
    server.stop(Duration::from_secs(30))
}

/// What is written down: five short files one after the other, and a longer one.
fn sounds(librivox: &Path, clips: &Path) -> Result<Vec<(&'static str, Vec<PathBuf>)>> {
    let mut short: Vec<PathBuf> = fs::read_dir(librivox)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    short.retain(|path| path.extension().is_some_and(|extension| extension == "wav"));
    short.sort();
    Ok(vec![("hear, five clips of 3 to 7 s", short), ("hear, 44 s", vec![clips.join("two_cities.wav")])])
}

/// Seconds of a WAV file.
fn seconds(path: &Path) -> Result<f64> {
    let bytes = fs::read(path).with_context(|| path.display().to_string())?;
    let number = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let rate = number(28).context("a WAV file's bytes a second")?;
    let data = bytes.windows(4).position(|four| four == b"data").and_then(|at| number(at + 4)).context("no data")?;
    Ok(f64::from(data) / f64::from(rate))
}

fn start(args: &SpeechArgs, binary: &Path, whisper: &Path, kokoro: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut serve = Command::new(binary);
    serve.arg("serve").arg(whisper).args(["--served-model-name", "hear", "--port", &port.to_string()]);
    serve.arg("--speech-model").arg(kokoro).args(["--log-level", "error"]);
    serve.args(args.ours_flags.split_whitespace()).stderr(Stdio::inherit());
    let mut server = Server::start(&mut serve, port)?;
    server.wait(PATIENCE, |server| server.health() == Some(200))?;
    // The first of each kind warms up.
    client::say(port, "Ready.", VOICE)?;
    Ok(server)
}

fn note(samples: &mut Samples, what: &str, who: &str, times: f64) {
    eprintln!("{what}: {who}: {times:.1}");
    samples.entry((what.into(), who.into())).or_default().push(times);
}

fn hear(what: &str, files: &[PathBuf], port: u16, peers: Option<&mut Peers>, samples: &mut Samples) -> Result<()> {
    let all: f64 = files.iter().map(|file| seconds(file)).sum::<Result<f64>>()?;
    let mut took = 0.0;
    for file in files {
        took += client::hear(port, "hear", &fs::read(file)?)?.seconds;
    }
    note(samples, what, "vllm-mlx", all / took);
    let Some(peers) = peers else { return Ok(()) };
    for who in peers.those(&HEARERS) {
        let mut took = 0.0;
        for file in files {
            took += peers.hear(who, file)?.seconds;
        }
        note(samples, what, who, all / took);
    }
    Ok(())
}

fn say(
    what: &str,
    text: &str,
    binary: &Path,
    kokoro: &Path,
    port: u16,
    peers: Option<&mut Peers>,
    samples: &mut Samples,
) -> Result<Said> {
    let said = client::say(port, text, VOICE)?;
    note(samples, what, "vllm-mlx", said.duration() / said.seconds);
    if let Some(peers) = peers {
        let phonemes = client::phonemes(binary, text)?;
        let voice = kokoro.join(format!("voices/{VOICE}.bin"));
        for who in peers.those(&SPEAKERS) {
            let (took, sound) = peers.say(who, &phonemes, &voice, None)?;
            note(samples, what, who, sound / took);
        }
    }
    Ok(said)
}

/// Spectrograms: ours by an example of the crate that makes them.
fn mels(file: &Path, peers: &mut Peers, samples: &mut Samples) -> Result<()> {
    let (what, all) = ("log-mel", seconds(file)?);
    note(samples, what, "vllm-mlx", all / client::mel(file)?);
    for who in MELS {
        note(samples, what, who, all / peers.mel(who, file)?);
    }
    Ok(())
}

/// Twenty sentences said and written down again: how many of their words are wrong.
fn round_trip(binary: &Path, kokoro: &Path, port: u16, mut peers: Option<&mut Peers>) -> Result<String> {
    let folder = std::env::temp_dir().join(format!("vllm-mlx-speech-{}", std::process::id()));
    fs::create_dir_all(&folder)?;
    let (mut ours, mut theirs) = (vec![], vec![]);
    for text in error_rate::sentences() {
        let heard = client::hear(port, "hear", &client::say(port, text, VOICE)?.wav())?.text;
        eprintln!("{text}\n  {heard}");
        ours.push((text, heard));
        if let Some(peers) = &mut peers {
            let (wav, phonemes) = (folder.join("said.wav"), client::phonemes(binary, text)?);
            peers.say(SPEAKERS[1], &phonemes, &kokoro.join(format!("voices/{VOICE}.bin")), Some(&wav))?;
            theirs.push((text, client::hear(port, "hear", &fs::read(&wav)?)?.text));
        }
    }
    fs::remove_dir_all(&folder)?;
    let mut said =
        format!("Said and written down again, words that are wrong: vllm-mlx {:.1} %", error_rate::percent(&ours)?);
    if !theirs.is_empty() {
        // Writing to a string cannot fail.
        let _ = write!(said, ", mlx-audio {:.1} %", error_rate::percent(&theirs)?);
    }
    Ok(said)
}

fn report(args: &SpeechArgs, samples: &Samples, first_byte: &[f64]) -> String {
    let mut table = format!(
        "Times faster than real time, medians of {} rounds\n\n| | by | × real time | ours beside it |\n|---|---|---|---|\n",
        args.rounds
    );
    for ((what, who), all) in samples {
        let times = median(all.iter().copied());
        let ours = samples.get(&(what.clone(), "vllm-mlx".into())).map(|ours| median(ours.iter().copied()) / times);
        let ours = ours.filter(|_| who != "vllm-mlx").map_or(String::new(), |ratio| format!("{ratio:.2}×"));
        // Writing to a string cannot fail.
        let _ = writeln!(table, "| {what} | {who} | {times:.1} | {ours} |");
    }
    let _ = writeln!(table, "\nFirst byte of one sentence's sound: {:.0} ms", median(first_byte.iter().copied()));
    table
}
