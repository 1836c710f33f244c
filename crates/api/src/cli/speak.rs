//! `vllm-mlx speak`.

use std::{
    io::{self, IsTerminal as _, Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use vllm_audio::{Encoder, Format, Sound};
use vllm_platform::{Activations, SpeechOptions};
use vllm_scheduler::SpeechStream;
use vllm_speech::phonemes::{Language, Phonemizer};

use super::{
    args::{SourceArgs, activations, at_least_one},
    progress, whole_file,
};
use crate::speech::{Speaking, SpeechRole, SpeechSpec, load_speaker};

/// Flags of `speak`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to say; - reads it from stdin
    text: String,
    /// File to write; - is stdout
    #[arg(short, long, value_name = "FILE", required_unless_present = "phonemes")]
    output: Option<PathBuf>,
    /// Say nothing: print how the text would be pronounced, in Kokoro's alphabet
    #[arg(long, conflicts_with = "output")]
    phonemes: bool,
    /// Kokoro: a folder, or org/name on the hub
    #[arg(long, default_value = "mlx-community/Kokoro-82M-bf16")]
    model: String,
    #[command(flatten)]
    source: SourceArgs,
    /// Threads for work on the CPU [default: one for each physical core]
    #[arg(long, value_parser = at_least_one)]
    threads: Option<usize>,
    /// On the CPU: what activations are rounded to for weights of 4 and 8 bits: int16, int8 or f32 (not at all)
    #[arg(long, value_name = "KIND", default_value = "int16", value_parser = activations)]
    activations: Activations,
    /// Who speaks: a voice, or a blend as af_heart(2)+am_adam(1) [default: af_heart]
    #[arg(long)]
    voice: Option<String>,
    /// Language: Kokoro's letter, or a tag as en-gb [default: the voice's]
    #[arg(long)]
    language: Option<String>,
    /// How fast: 2 is twice as fast
    #[arg(long, default_value_t = 1.0, value_parser = speed)]
    speed: f32,
    /// Of the noise in voiceless sounds
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// wav, mp3, flac, opus or pcm (16 bits, nothing else) [default: as FILE ends; wav on stdout]
    #[arg(long)]
    format: Option<Format>,
}

/// Speaks a text into a file.
///
/// # Errors
/// One line each: model, voice, text, file.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let text = args.text()?;
    let Some(output) = &args.output else { return args.print_phonemes(&text) };
    let format = args.format(output)?;
    let load = SpeechOptions {
        device: args.source.device,
        threads: args.threads,
        pin_threads: false,
        activations: args.activations,
    };
    let (model, hub) = (args.model.clone(), args.source.hub());
    let spec = SpeechSpec { model, names: Vec::new(), hub, load, role: SpeechRole::Speak };
    let model = load_speaker(&spec, &progress::bars())?;
    let (voice, language) = (args.voice.clone(), args.language.clone());
    let plan = model.plan(&text, &Speaking { voice, language, speed: args.speed, seed: args.seed, soon: false })?;
    let bar = if io::stderr().is_terminal() { bar(plan.utterances().len()) } else { ProgressBar::hidden() };
    let sound = model.speak(plan, None, None)?;
    let rate = model.sample_rate();
    if is_stdout(output) {
        stream(sound, format, rate, &bar)?;
    } else {
        let sound = Sound { samples: gather(sound, &bar)?, rate };
        whole_file::write(output, &Encoder::whole(format, &sound)?)?;
    }
    bar.finish_and_clear();
    Ok(())
}

impl Args {
    fn print_phonemes(&self, text: &str) -> anyhow::Result<()> {
        let language = match (&self.language, &self.voice) {
            (Some(tag), _) => Some(Language::parse(tag).with_context(|| format!("--language: there is no {tag:?}"))?),
            (None, Some(voice)) => Language::of_voice(voice),
            (None, None) => None,
        };
        let phonemizer = Phonemizer::new(language.unwrap_or(Language::AmericanEnglish));
        println!("{}", phonemizer.phonemes(text)?);
        Ok(())
    }

    fn format(&self, output: &Path) -> anyhow::Result<Format> {
        if let Some(format) = self.format {
            return Ok(format);
        }
        if is_stdout(output) {
            return Ok(Format::Wav);
        }
        let shown = output.display();
        match output.extension().and_then(|ending| ending.to_str()) {
            Some("ogg") => Ok(Format::Opus),
            Some(ending) => ending.parse().with_context(|| format!("{shown}: say which with --format")),
            None => bail!("{shown} does not say its format: say which with --format"),
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        if self.text != "-" {
            return Ok(self.text.clone());
        }
        let mut text = String::new();
        io::stdin().read_to_string(&mut text).context("the text on stdin is not readable")?;
        Ok(text)
    }
}

fn is_stdout(output: &Path) -> bool {
    output == Path::new("-")
}

/// All of it.
fn gather(mut sound: SpeechStream, bar: &ProgressBar) -> anyhow::Result<Vec<f32>> {
    let mut samples = Vec::new();
    while let Some(chunk) = sound.blocking_next() {
        samples.extend(chunk?);
        bar.inc(1);
    }
    Ok(samples)
}

/// To stdout, as it comes.
fn stream(mut sound: SpeechStream, format: Format, rate: u32, bar: &ProgressBar) -> anyhow::Result<()> {
    let (mut encoder, mut out) = (Encoder::new(format, rate)?, io::stdout().lock());
    while let Some(chunk) = sound.blocking_next() {
        out.write_all(&encoder.push(&chunk?)?)?;
        out.flush()?;
        bar.inc(1);
    }
    out.write_all(&encoder.finish()?)?;
    out.flush()?;
    Ok(())
}

fn bar(utterances: usize) -> ProgressBar {
    let template = "speaking {wide_bar} {pos}/{len} sentences";
    // The template is a constant; a test makes it.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(utterances as u64).with_style(style)
}

fn speed(text: &str) -> Result<f32, String> {
    match text.parse() {
        Ok(speed) if (0.25..=4.0).contains(&speed) => Ok(speed),
        _ => Err("must be a number from 0.25 to 4".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn formats_are_told_by_names() {
        let cases = [
            ("-o a.wav", Some(Format::Wav)),
            ("-o a.b.mp3", Some(Format::Mp3)),
            ("-o a.ogg", Some(Format::Opus)),
            ("-o a.FLAC", Some(Format::Flac)),
            ("-o a --format pcm", Some(Format::Pcm)),
            ("-o -", Some(Format::Wav)),
            ("-o - --format opus", Some(Format::Opus)),
            ("-o a", None),
            ("-o a.aac", None),
        ];
        for (flags, wanted) in cases {
            let args = ["speak", "hi"].into_iter().chain(flags.split(' '));
            let cli = <Cli as clap::Parser>::try_parse_from(args).unwrap();
            let output = cli.args.output.as_deref().expect("an output");
            assert_eq!(cli.args.format(output).ok(), wanted, "{flags}");
        }
        assert_eq!(bar(3).length(), Some(3));
        assert!(ProgressStyle::with_template("speaking {wide_bar} {pos}/{len} sentences").is_ok());
    }
}
