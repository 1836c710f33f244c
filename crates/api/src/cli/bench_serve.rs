//! `vllm-mlx bench-serve`: load on any server that speaks OpenAI's API, and what it made of it.

mod answer;
mod arrivals;
mod client;
mod load;
mod report;
mod rng;
mod sse;
pub mod stats;
mod words;
mod workload;

use std::{io::Write as _, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Map, Value, json};

use super::args::at_least_one;
use arrivals::{Level, Rate};
use client::Client;
use load::{Endpoint, Target};
use report::{Format, LevelReport};
use workload::{Source, Workload};

/// Flags of `bench-serve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The server, with or without /v1
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Model to ask for [default: the first that the server lists]
    #[arg(long)]
    model: Option<String>,
    /// Sent as a bearer token
    #[arg(long, env = "OPENAI_API_KEY", hide_env_values = true, value_name = "KEY")]
    api_key: Option<String>,
    /// Which of OpenAI's routes to ask
    #[arg(long, value_enum, default_value_t = Endpoint::Chat)]
    endpoint: Endpoint,
    /// What to ask
    #[arg(long, value_enum, default_value_t = Workload::Random)]
    workload: Workload,
    /// Tokens of a question, about, without the chat template's own
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = at_least_one)]
    prompt_tokens: usize,
    /// Tokens, about, that all prompts of shared-prefix begin with
    #[arg(long, value_name = "TOKENS", default_value_t = 1024, value_parser = at_least_one)]
    shared_prefix_tokens: usize,
    /// Requests of a conversation of multi-turn
    #[arg(long, default_value_t = 4, value_parser = at_least_one)]
    turns: usize,
    /// Prompts, one a line: text, a JSON string, or a JSON list of messages (makes the workload file)
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
    /// Most tokens of an answer
    #[arg(long, value_name = "TOKENS", default_value_t = 256, value_parser = at_least_one)]
    max_tokens: usize,
    /// Have the server go on to max-tokens, if it knows the field ignore_eos
    #[arg(long)]
    ignore_eos: bool,
    /// 0 takes the most probable token
    #[arg(long, default_value_t = 0.0)]
    temperature: f32,
    /// More fields of every request, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    extra_body: Option<Map<String, Value>>,
    /// Clients, each sending when it has been answered; several are levels of a sweep
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1", value_parser = at_least_one)]
    concurrency: Vec<usize>,
    /// Requests a second that arrive as a Poisson process, whatever the server's speed, or inf: all at once; several are levels of a sweep
    #[arg(long, value_name = "R,…", value_delimiter = ',', conflicts_with = "concurrency")]
    request_rate: Vec<Rate>,
    /// Requests of each level (of multi-turn: conversations) [default: 4 for each client, 64 with --request-rate]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    num_requests: Option<usize>,
    /// How often each level is run; its figures are those of all together
    #[arg(long, default_value_t = 1, value_parser = at_least_one)]
    repetitions: usize,
    /// Requests (of multi-turn: conversations) before the first level that are not counted
    #[arg(long, value_name = "N", default_value_t = 1)]
    warmup: usize,
    /// The same seed sends the same prompts at the same times; a server that still runs may hold them in its cache
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Seconds until a request is given up
    #[arg(long, alias = "request-timeout-s", value_name = "SECONDS", default_value_t = 600.0, value_parser = seconds)]
    request_timeout: f64,
    /// How to write the figures
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    /// Write the figures there
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Measures a server.
///
/// # Errors
/// One line each: flags, files, a server that isn't there, no request that was answered. Requests that fail beside others that
/// don't are counted.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let source = source(args)?;
    // The cores are for the server, which may well run on this machine: one thread sends and listens.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (model, reports) = runtime.block_on(measure(args, &source))?;
    let text = match args.format {
        Format::Table => table(args, &model, &reports),
        Format::Json => format!("{:#}\n", json(args, &model, &reports)),
        Format::Csv => csv(&reports),
    };
    match &args.output {
        Some(path) => std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?,
        None => std::io::stdout().write_all(text.as_bytes())?,
    }
    if reports.iter().all(LevelReport::all_failed) {
        let errors: Vec<String> = reports.iter().map(LevelReport::errors).collect();
        bail!("no request was answered: {}", errors.join("; "));
    }
    Ok(())
}

fn source(args: &Args) -> anyhow::Result<Source> {
    let file = match (&args.prompt_file, args.workload) {
        // A file says enough by itself.
        (Some(path), Workload::Random | Workload::File) => Some(workload::read(path)?),
        (Some(_), _) => bail!("--prompt-file goes with --workload file only"),
        (None, Workload::File) => bail!("--workload file wants --prompt-file FILE"),
        (None, _) => None,
    };
    let shared = args.workload == Workload::SharedPrefix;
    Ok(Source {
        seed: args.seed,
        prompt_tokens: args.prompt_tokens,
        prefix: shared.then(|| Source::shared_prefix(args.seed, args.shared_prefix_tokens)),
        turns: if args.workload == Workload::MultiTurn { args.turns } else { 1 },
        file,
    })
}

/// All levels, one after the other. Returns the model's name, too.
async fn measure(args: &Args, source: &Source) -> anyhow::Result<(String, Vec<LevelReport>)> {
    let timeout = Duration::from_secs_f64(args.request_timeout);
    let client = Client::new(&args.url, args.api_key.as_deref(), timeout)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => client.first_model().await?,
    };
    let target = Arc::new(Target { client, endpoint: args.endpoint, fields: fields(args, &model) });

    // No two requests of a run have the same number, so that no level finds what another left in the server's cache.
    let mut number = 0..;
    let mut take = |count: usize| number.by_ref().take(count).map(|n| source.conversation(n)).collect::<Vec<_>>();
    let warmup = bar("warm-up", args.warmup * source.turns);
    for conversation in take(args.warmup) {
        target.converse(conversation, &warmup).await;
    }
    warmup.finish_and_clear();

    let mut reports = Vec::new();
    for level in levels(args) {
        let count = args.num_requests.unwrap_or(match level {
            Level::Concurrency(clients) => 4 * clients,
            Level::Rate(_) => 64,
        });
        let bar = bar(&level.to_string(), count * source.turns * args.repetitions);
        let mut outcomes = Vec::new();
        for repetition in 0..args.repetitions as u64 {
            outcomes.push(load::run(&target, level, take(count), args.seed.wrapping_add(repetition), &bar).await);
        }
        bar.finish_and_clear();
        reports.push(LevelReport::new(level, &outcomes));
    }
    Ok((model, reports))
}

fn levels(args: &Args) -> Vec<Level> {
    if args.request_rate.is_empty() {
        args.concurrency.iter().copied().map(Level::Concurrency).collect()
    } else {
        args.request_rate.iter().copied().map(Level::Rate).collect()
    }
}

/// What all requests have in common. `--extra-body` has the last word.
fn fields(args: &Args, model: &str) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("model".into(), model.into());
    fields.insert("max_tokens".into(), args.max_tokens.into());
    fields.insert("temperature".into(), args.temperature.into());
    fields.insert("stream".into(), true.into());
    fields.insert("stream_options".into(), json!({ "include_usage": true }));
    if args.ignore_eos {
        fields.insert("ignore_eos".into(), true.into());
    }
    fields.extend(args.extra_body.clone().unwrap_or_default());
    fields
}

/// A bar over requests; hidden where stderr is no terminal.
fn bar(what: &str, requests: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {wide_bar} {pos}/{len} ({elapsed}, {eta} left)");
    let bar = ProgressBar::new(requests as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(500));
    bar
}

fn table(args: &Args, model: &str, reports: &[LevelReport]) -> String {
    let mut text = format!("{model} at {}, {}, seed {}\n", args.url, asked(args), args.seed);
    for report in reports {
        text.push('\n');
        text.push_str(&report.table());
    }
    text
}

/// The workload, for people.
fn asked(args: &Args) -> String {
    let what = match (args.workload, &args.prompt_file) {
        (_, Some(path)) => path.display().to_string(),
        (Workload::SharedPrefix, _) => {
            format!("~{} shared and ~{} own prompt tokens", args.shared_prefix_tokens, args.prompt_tokens)
        }
        (Workload::MultiTurn, _) => format!("{} turns of ~{} tokens", args.turns, args.prompt_tokens),
        _ => format!("~{} prompt tokens", args.prompt_tokens),
    };
    format!("{what}, at most {} output tokens", args.max_tokens)
}

fn json(args: &Args, model: &str, reports: &[LevelReport]) -> Value {
    let name =
        |value: &dyn Fn() -> Option<clap::builder::PossibleValue>| value().map(|value| value.get_name().to_owned());
    use clap::ValueEnum as _;
    let workload = if args.prompt_file.is_some() { Workload::File } else { args.workload };
    json!({
        "url": args.url,
        "model": model,
        "endpoint": name(&|| args.endpoint.to_possible_value()),
        "workload": name(&|| workload.to_possible_value()),
        "prompt_tokens": args.prompt_tokens,
        "shared_prefix_tokens": (workload == Workload::SharedPrefix).then_some(args.shared_prefix_tokens),
        "turns": (workload == Workload::MultiTurn).then_some(args.turns),
        "max_tokens": args.max_tokens,
        "seed": args.seed,
        "levels": reports.iter().map(LevelReport::json).collect::<Vec<_>>(),
    })
}

fn csv(reports: &[LevelReport]) -> String {
    let lines = reports.iter().map(LevelReport::csv);
    std::iter::once(LevelReport::csv_header()).chain(lines).map(|line| line + "\n").collect()
}

fn json_object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

fn seconds(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.001..=1e9).contains(seconds));
    seconds.ok_or_else(|| "must be a number of seconds above 0".into())
}
