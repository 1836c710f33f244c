//! The command line.

mod access_args;
mod answer_args;
mod args;
mod bench;
mod bench_serve;
mod chat;
mod completions;
mod config_file;
mod doctor;
mod encoders;
mod files;
mod follow;
mod generate;
mod grpc_args;
mod info;
mod launch;
mod list;
mod media_args;
mod pipeline_args;
mod progress;
mod pull;
mod reload;
mod report;
mod rm;
mod serve;
mod signals;
mod speak;
mod speech;
mod speech_args;
mod transcribe;
mod warm;
mod whole_file;

pub(crate) use args::bytes as parse_bytes;
use clap::{CommandFactory as _, FromArgMatches as _, Parser, Subcommand};

use crate::{pipeline::Over, telemetry::LogArgs};

#[derive(Debug, Parser)]
#[command(name = "vllm-mlx", version, about = "Runs language models on Apple MLX: in the terminal and over HTTP")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Answer one prompt
    Generate(generate::Args),
    /// Talk with a model in the terminal
    Chat(chat::Args),
    /// Serve a model over HTTP, with OpenAI's API
    Serve(Box<serve::Args>),
    /// Compute some layers of a model that another machine serves with --pipeline
    Follow(follow::Args),
    /// Write down what is said in sound files
    Transcribe(transcribe::Args),
    /// Say a text, into a sound file
    Speak(speak::Args),
    /// Say what a model is and whether it fits, without loading it
    Info(info::Args),
    /// Fetch a model from the hub
    #[command(visible_alias = "download")]
    Pull(pull::Args),
    /// List the models in the hub's cache
    List(list::Args),
    /// Remove models from the hub's cache
    Rm(rm::Args),
    /// Look at everything that a server needs: device, memory, kernels, port, cache
    Doctor(doctor::Args),
    /// Run a coding agent with a server's model: claude, opencode or codex
    Launch(launch::Args),
    /// Print a script that completes this program's flags in a shell
    Completions(completions::Args),
    /// Print the manual page
    Man,
    /// Measure prompt and generation speed
    Bench(bench::Args),
    /// Put load on a server that speaks OpenAI's API, and measure it
    BenchServe(bench_serve::Args),
}

/// Parses the command line, runs it and returns the exit code. Errors are one line on stderr and code 1; that of a
/// pipeline that has to be started again is [`Over::EXIT_CODE`].
#[must_use]
pub fn main() -> u8 {
    let args: Vec<_> = std::env::args_os().collect();
    let parsed = config_file::parse(&Cli::command(), &args);
    let parsed = parsed.and_then(|(matches, settings)| Ok((Cli::from_arg_matches(&matches)?, settings)));
    let (cli, settings) = match parsed {
        Ok(parsed) => parsed,
        // Help and version are no errors.
        Err(asked) if asked.exit_code() == 0 => asked.exit(),
        Err(wrong) => {
            eprintln!("error: {}", usage_error(&wrong.to_string()));
            return 1;
        }
    };
    match &cli.command {
        Command::Serve(args) => args.log.init(),
        Command::Follow(args) => args.log.init(),
        _ => LogArgs::quiet().init(),
    }
    let result = match cli.command {
        Command::Generate(args) => generate::run(&args),
        Command::Chat(args) => chat::run(&args),
        Command::Serve(args) => serve::run(&args, settings),
        Command::Follow(args) => follow::run(&args),
        Command::Transcribe(args) => transcribe::run(&args),
        Command::Speak(args) => speak::run(&args),
        Command::Info(args) => info::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::List(args) => list::run(&args),
        Command::Rm(args) => rm::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Launch(args) => launch::run(&args),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Man => completions::man(Cli::command()),
        Command::Bench(args) => bench::run(&args),
        Command::BenchServe(args) => bench_serve::run(&args),
    };
    match result {
        Ok(()) => 0,
        // Whoever reads our output has had enough: `vllm-mlx … | head`.
        Err(error) if is_broken_pipe(&error) => 0,
        Err(error) => {
            eprintln!("error: {}", one_line(&error));
            if error.is::<Over>() { Over::EXIT_CODE } else { 1 }
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let io = error.chain().find_map(|cause| cause.downcast_ref::<std::io::Error>());
    io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// An error with its causes, those left out that the one before already quotes.
fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
    }
    line.replace(['\n', '\r'], " ")
}

/// What clap has to say, on one line, without the usage that `--help` shows better.
fn usage_error(text: &str) -> String {
    let paragraphs = text.split("\n\n").filter(|part| !part.trim_start().starts_with("Usage:"));
    let said: Vec<&str> = paragraphs.filter(|part| !part.starts_with("For more information")).collect();
    let words: Vec<&str> = said.iter().flat_map(|part| part.split_whitespace()).collect();
    let line = words.join(" ");
    format!("{} (see --help)", line.strip_prefix("error: ").unwrap_or(&line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_one_line() {
        let cases: [(&[&str], &str); 4] = [
            (&["generate"], "the following required arguments were not provided: <MODEL> (see --help)"),
            (
                &["generate", "m", "--max-tokens", "0"],
                "invalid value '0' for '--max-tokens <TOKENS>': must be at least 1 (see --help)",
            ),
            (
                &["info", "m", "--device", "tpu"],
                "invalid value 'tpu' for '--device <DEVICE>': unknown device \"tpu\": use auto, metal, cuda or cpu (see --help)",
            ),
            (
                &["serve", "m", "--prot", "1"],
                "unexpected argument '--prot' found tip: a similar argument exists: '--port' (see --help)",
            ),
        ];
        for (args, wanted) in cases {
            let error = Cli::try_parse_from([&["vllm-mlx"], args].concat()).unwrap_err();
            assert_eq!(usage_error(&error.to_string()), wanted);
        }
    }

    #[test]
    fn errors_are_one_line_without_repetition() {
        let error = anyhow::anyhow!("no such file").context("a/b: no such file").context("cannot\nload");
        assert_eq!(one_line(&error), "cannot load: a/b: no such file");
    }
}
