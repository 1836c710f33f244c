//! `vllm-mlx transcribe`.

use std::{
    fs::File,
    io::{self, Cursor, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use vllm_platform::{Activations, SpeechOptions};
use vllm_speech::{
    Transcript, subtitles,
    vad::{Silero, VadOptions},
    whisper::{DecodingOptions, Task},
};

use super::{
    args::{SourceArgs, activations, at_least_one},
    progress, whole_file,
};
use crate::{
    http::audio_json,
    speech::{
        Heard, Listening, ServedTranscriber, SpeechRole, SpeechSpec, Transcribed, hear, load_transcriber, load_vad,
    },
};

/// Flags of `transcribe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Sound files; - reads one from stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Whisper or Parakeet: a folder, or org/name on the hub
    #[arg(long, default_value = "openai/whisper-tiny")]
    model: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Threads for work on the CPU [default: one for each physical core]
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// On the CPU: what activations are rounded to for weights of 4 and 8 bits: int16, int8 or f32 (not at all)
    #[arg(long, value_name = "KIND", default_value = "int16", value_parser = activations)]
    activations: Activations,
    /// Language spoken: its code or English name [default: the model says]
    #[arg(long)]
    language: Option<String>,
    /// What is written down
    #[arg(long, value_enum, default_value_t)]
    task: TaskArg,
    /// How it is written
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Folder for the results, one file for each of FILE; - is the terminal [default: the terminal, for one file]
    #[arg(long, value_name = "DIR")]
    output_dir: Option<PathBuf>,
    /// When each word was said, in json formats
    #[arg(long)]
    word_timestamps: bool,
    /// A text that might come before: names, how it is spelled
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,
    /// Above 0: choose words at random, the more so the higher; at most 1 [default: 0, and higher where a text is poor]
    #[arg(long, value_name = "T")]
    temperature: Option<f32>,
    /// Makes what is chosen at random reproducible
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Listen only where somebody speaks, as this model finds it (Silero): its .safetensors file, its folder, or org/name
    #[arg(long, value_name = "MODEL")]
    vad_model: Option<String>,
}

/// What is written down.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
enum TaskArg {
    /// What is said
    #[default]
    Transcribe,
    /// What is said, in English
    Translate,
}

/// How it is written.
#[derive(Debug, Clone, Copy, Default, PartialEq, clap::ValueEnum)]
enum Format {
    /// The text, a line for each segment
    #[default]
    Txt,
    /// Text, language and duration
    Json,
    /// With all that is known of segments and words
    VerboseJson,
    /// Subtitles
    Srt,
    /// Subtitles for the web
    Vtt,
    /// Begin, end and text of each segment, separated by tabs
    Tsv,
    /// All of them
    All,
}

/// Transcribes files one after the other.
///
/// # Errors
/// One line each: model, options, and the first file that can't be heard or whose transcript can't be written.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let in_terminal = args.output_dir.is_none();
    if in_terminal && (args.files.len() > 1 || args.format == Format::All) {
        bail!("several results need a folder: --output-dir DIR");
    }
    let model = args.load()?;
    let options = args.options();
    model.check(&options)?;
    let vad = match &args.vad_model {
        Some(vad) => Some(load_vad(vad, &args.source.hub(), &progress::bars())?),
        None => None,
    };
    for file in &args.files {
        let shown = if is_stdin(file) { "stdin".into() } else { file.display().to_string() };
        let heard = open(file, model.sample_rate()).with_context(|| shown.clone())?;
        let live = in_terminal && args.format == Format::Txt;
        let transcript = listen(&model, heard, vad.as_ref(), options.clone(), live).with_context(|| shown)?;
        match &args.output_dir {
            None if live => {}
            None => io::stdout().write_all(args.written(args.format, &transcript).as_bytes())?,
            Some(folder) => args.save(folder, file, &transcript)?,
        }
    }
    Ok(())
}

impl Args {
    fn load(&self) -> anyhow::Result<ServedTranscriber> {
        let load = SpeechOptions {
            device: self.source.device,
            threads: self.threads,
            pin_threads: false,
            activations: self.activations,
        };
        let (model, hub) = (self.model.clone(), self.source.hub());
        let spec = SpeechSpec { model, names: Vec::new(), hub, load, role: SpeechRole::Transcribe };
        load_transcriber(&spec, &progress::bars())
    }

    fn options(&self) -> DecodingOptions {
        let mut options = DecodingOptions {
            task: match self.task {
                TaskArg::Transcribe => Task::Transcribe,
                TaskArg::Translate => Task::Translate,
            },
            language: self.language.clone(),
            prompt: self.prompt.clone(),
            word_timestamps: self.word_timestamps,
            seed: self.seed,
            ..DecodingOptions::default()
        };
        if let Some(temperature) = self.temperature.filter(|&temperature| temperature != 0.0) {
            options.temperatures = vec![temperature];
        }
        options
    }

    /// A transcript in a format; those that are one line end with it.
    fn written(&self, format: Format, transcript: &Transcript) -> String {
        let task = self.options().task;
        match format {
            Format::Txt | Format::All => subtitles::txt(transcript),
            Format::Json => audio_json::json(transcript).to_string() + "\n",
            Format::VerboseJson => {
                let shown = audio_json::Shown { task, segments: true, words: self.word_timestamps };
                audio_json::verbose_json(transcript, shown).to_string() + "\n"
            }
            Format::Srt => subtitles::srt(transcript),
            Format::Vtt => subtitles::vtt(transcript),
            Format::Tsv => subtitles::tsv(transcript),
        }
    }

    /// Writes the files of one sound.
    fn save(&self, folder: &Path, file: &Path, transcript: &Transcript) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let stem = if is_stdin(file) { "stdin".into() } else { file.file_stem().unwrap_or_default().to_owned() };
        let formats = match self.format {
            // `json` of all is the one with everything in it: both have the same ending.
            Format::All => vec![Format::Txt, Format::VerboseJson, Format::Srt, Format::Vtt, Format::Tsv],
            one => vec![one],
        };
        for format in formats {
            let ending = match format {
                Format::Txt | Format::All => "txt",
                Format::Json | Format::VerboseJson => "json",
                Format::Srt => "srt",
                Format::Vtt => "vtt",
                Format::Tsv => "tsv",
            };
            let mut name = stem.clone();
            name.push(".");
            name.push(ending);
            whole_file::write(&folder.join(name), self.written(format, transcript).as_bytes())?;
        }
        Ok(())
    }
}

fn is_stdin(file: &Path) -> bool {
    file == Path::new("-")
}

/// The user's own files may be as long as they like.
fn open(file: &Path, rate: u32) -> anyhow::Result<Heard> {
    let longest = Duration::from_secs(u64::from(u32::MAX));
    if is_stdin(file) {
        let mut bytes = Vec::new();
        io::stdin().read_to_end(&mut bytes)?;
        return Ok(hear(Cursor::new(bytes), None, longest, rate)?);
    }
    let hint = file.extension().and_then(|extension| extension.to_str());
    Ok(hear(File::open(file)?, hint, longest, rate)?)
}

/// Transcribes a sound with a bar on stderr and, if `live`, its segments on stdout as they come.
fn listen(
    model: &ServedTranscriber,
    heard: Heard,
    vad: Option<&Silero>,
    options: DecodingOptions,
    live: bool,
) -> anyhow::Result<Transcript> {
    let duration = heard.duration;
    let bar = if io::stderr().is_terminal() { bar(duration) } else { ProgressBar::hidden() };
    let speech = vad.map(|vad| vllm_speech::vad::speech(vad, &heard.samples, &VadOptions::default()));
    let mut events = model.listen(Listening { heard, speech, options }, None, None)?;
    let mut transcribed = Transcribed::default();
    let mut written = Ok(());
    while let Some(event) = events.blocking_next() {
        transcribed.take(event?, |segment| {
            bar.set_position((segment.end * 1000.0) as u64);
            if live && written.is_ok() {
                written = bar.suspend(|| {
                    let mut out = io::stdout().lock();
                    writeln!(out, "{}", segment.text.trim())?;
                    out.flush()
                });
            }
        });
        if written.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
    written?;
    transcribed.transcript.duration = duration.as_secs_f64();
    if transcribed.transcript.language.is_none() {
        transcribed.transcript.language = model.only_language().map(Into::into);
    }
    Ok(transcribed.transcript)
}

/// Over the time of the sound, in milliseconds.
fn bar(duration: Duration) -> ProgressBar {
    let template = "listening {wide_bar} {percent}% {elapsed} of {eta} left";
    // The template is a constant; a test makes it.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(duration.as_millis() as u64).with_style(style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_as_long_as_the_sound() {
        assert!(ProgressStyle::with_template("listening {wide_bar} {percent}% {elapsed} of {eta} left").is_ok());
        assert_eq!(bar(Duration::from_millis(1500)).length(), Some(1500));
    }
}
