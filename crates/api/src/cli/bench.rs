//! `vllm-mlx bench`.

mod profile;
mod throughput;

use std::{
    io::Write as _,
    time::{Duration, Instant},
};

use anyhow::bail;
use serde_json::json;
use vllm_platform::TokenId;
use vllm_scheduler::{EngineHandle, Event, Request};

use super::{
    args::{ModelArgs, RuntimeArgs, at_least_one, load_spec},
    progress,
    report::mib,
};
use crate::{memory::peak_rss_bytes, model::load};

/// Flags of `bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Tokens of the prompt
    #[arg(long, default_value_t = 512, value_parser = at_least_one)]
    prompt_tokens: usize,
    /// Tokens to generate
    #[arg(long, default_value_t = 64, value_parser = at_least_one)]
    generate: usize,
    /// How often
    #[arg(long, default_value_t = 5, value_parser = at_least_one)]
    repeat: usize,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one)]
    concurrency: usize,
    /// Requests of each repeat, of which the figures are then those of all together [default: as many as at once]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    num_prompts: Option<usize>,
    /// Print one JSON object for each repeat
    #[arg(long)]
    json: bool,
    /// Tell what the steps of prompt and answer were spent on
    #[arg(long, conflicts_with_all = ["json", "num_prompts", "concurrency"])]
    profile: bool,
}

struct Measured {
    /// From submission to the first token.
    ttft: Duration,
    /// From the first token to the last.
    decode: Duration,
}

/// Measures.
///
/// # Errors
/// One line each: model, context, engine.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let model =
        load(load_spec(&args.model.model, &args.model.source, &args.runtime, args.concurrency), &progress::bars())?;
    if args.concurrency > 1 || args.num_prompts.is_some() {
        throughput::run(&model.engine, args)?;
    } else {
        alone(&model.engine, args)?;
    }
    model.engine.shutdown();
    model.engine.join();
    Ok(())
}

/// One request at a time.
fn alone(engine: &EngineHandle, args: &Args) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    for repeat in 0..args.repeat {
        let profile = || args.profile.then(|| engine.profile()).flatten();
        drop(profile());
        let mut of_prompt = None;
        let measured = measure(engine, args, repeat, || of_prompt = profile())?;
        let of_answer = profile();
        let prefill_tps = args.prompt_tokens as f64 / measured.ttft.as_secs_f64();
        let decode_tps =
            (args.generate > 1).then(|| (args.generate - 1) as f64 / measured.decode.as_secs_f64().max(1e-9));
        let ttft_ms = measured.ttft.as_secs_f64() * 1e3;
        let peak = peak_rss_bytes();
        if args.json {
            let line = json!({
                "prefill_tps": prefill_tps,
                "decode_tps": decode_tps,
                "ttft_ms": ttft_ms,
                "peak_rss_bytes": peak,
            });
            writeln!(out, "{line}")?;
        } else {
            let decode = decode_tps.map_or("–".into(), |tps| format!("{tps:.1}"));
            let peak = peak.map_or("–".into(), mib);
            writeln!(
                out,
                "prefill {prefill_tps:.1} tok/s, decode {decode} tok/s, first token {ttft_ms:.0} ms, peak {peak}"
            )?;
        }
        for (what, profile) in [("prompt", of_prompt), ("answer", of_answer)] {
            if let Some(profile) = profile {
                write!(out, "{what}: {}", profile::table(&profile))?;
            }
        }
        out.flush()?;
    }
    Ok(())
}

/// Runs the request with this number; calls `begun` at its first token.
fn measure(engine: &EngineHandle, args: &Args, number: usize, begun: impl FnOnce()) -> anyhow::Result<Measured> {
    let request = Request {
        prompt: prompt(args.prompt_tokens, engine.info().vocab_size, number),
        max_tokens: args.generate,
        // No stop tokens: every request generates as many.
        ..Request::new(format!("bench-{number}"))
    };
    let submitted = Instant::now();
    let mut events = engine.submit(request)?;
    let (mut first, mut last) = (None, submitted);
    let mut begun = Some(begun);
    while let Some(event) = events.blocking_next() {
        match event {
            Event::Token(_) => {
                last = Instant::now();
                first.get_or_insert(last);
                if let Some(begun) = begun.take() {
                    begun();
                }
            }
            Event::Finished(_) => break,
            Event::Failed(error) => bail!(error),
        }
    }
    let Some(first) = first else { bail!("no token was generated") };
    Ok(Measured { ttft: first - submitted, decode: last - first })
}

/// Tokens that are spread over the vocabulary and differ in each request from the first on, so that no prefix cache
/// ever helps.
fn prompt(len: usize, vocab: usize, number: usize) -> Vec<TokenId> {
    (0..len).map(|i| ((i * 7919 + (number + 1) * 104_729) % vocab.max(1)) as TokenId).collect()
}
