//! `vllm-mlx generate`.

use std::io::{IsTerminal as _, Read as _, Write as _, stdin, stdout};

use anyhow::{Context as _, bail};
use serde_json::json;
use vllm_scheduler::{FinishReason, Request};

use super::{
    args::{ModelArgs, RuntimeArgs, SamplingArgs, load_spec},
    files::{self, Files},
    media_args::FileArgs,
    progress,
    report::Report,
};
use crate::{
    answer::{Answer, End, Ending, TextOptions},
    model::{ChatPrompt, PromptError, ServedModel, load},
    vision::{Medium, SeenPrompt},
};

/// Flags of `generate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    files: FileArgs,
    /// What to answer [default: read from stdin]
    #[arg(long, short)]
    prompt: Option<String>,
    /// Instructions for the model
    #[arg(long, conflicts_with = "raw")]
    system: Option<String>,
    /// Continue the prompt as it stands, without the chat template
    #[arg(long)]
    raw: bool,
    /// Go on to max-tokens, whatever the model says
    #[arg(long)]
    ignore_eos: bool,
    /// Print one JSON object at the end instead of streaming text
    #[arg(long)]
    json: bool,
    /// Print no figures
    #[arg(long, short)]
    quiet: bool,
}

/// Answers one prompt.
///
/// # Errors
/// One line each: model, prompt, parameters, engine.
pub fn run(args: &Args) -> anyhow::Result<()> {
    args.sampling.check()?;
    let prompt = match &args.prompt {
        Some(prompt) => prompt.clone(),
        None => read_stdin()?,
    };
    let model = load(load_spec(&args.model.model, &args.model.source, &args.runtime, 1), &progress::bars())?;
    let info = model.engine.info();
    let params = args.sampling.params(&model.sampling, info.vocab_size)?;
    let media = Files::new()?.open(&model, &args.files)?;
    let SeenPrompt { tokens, media, .. } = tokenise(args, &model, prompt, media)?;
    let context = info.context_length;
    if tokens.len() >= context {
        bail!("the prompt has {} tokens: this model's context is {context}, prompt and answer together", tokens.len());
    }
    let request = Request {
        params,
        max_tokens: args.sampling.max_tokens.min(context - tokens.len()),
        stop_tokens: if args.ignore_eos { Vec::new() } else { model.stop_tokens() },
        prompt: tokens,
        media,
        ..Request::new("generate")
    };
    let options = TextOptions { stop: args.sampling.stop.clone(), ..TextOptions::default() };
    let mut answer = Answer::start(&model.engine, &model.tokenizer, request, &options)?;
    let (text, ending) = stream(&mut answer, !args.json)?;
    let report = Report::new(&ending, &model.engine);
    if args.json {
        writeln!(stdout(), "{}", report.json(&text, &ending))?;
    } else if !args.quiet {
        eprintln!("{}", report.line());
    }
    model.shutdown();
    model.engine.join();
    Ok(())
}

/// Collects an answer and, with `print`, writes it as it comes.
fn stream(answer: &mut Answer, print: bool) -> anyhow::Result<(String, Ending)> {
    let mut out = stdout();
    let mut text = String::new();
    while let Some(piece) = answer.blocking_next() {
        text.push_str(&piece.text);
        if print && !piece.text.is_empty() {
            out.write_all(piece.text.as_bytes())?;
            out.flush()?;
        }
        let ending = match piece.end {
            None => continue,
            Some(End::Failed(error)) => bail!(error),
            Some(End::Finished(ending)) => ending,
        };
        if print && !text.ends_with('\n') {
            writeln!(out)?;
        }
        if ending.reason == FinishReason::Abort {
            bail!("the engine stopped before the answer was complete");
        }
        return Ok((text, ending));
    }
    bail!("the answer broke off")
}

fn tokenise(args: &Args, model: &ServedModel, prompt: String, media: Vec<Medium>) -> anyhow::Result<SeenPrompt> {
    let plain = |prompt: &str| -> anyhow::Result<SeenPrompt> {
        Ok(SeenPrompt { tokens: model.tokenizer.encode(prompt, true)?, ..SeenPrompt::default() })
    };
    if args.raw {
        return plain(&prompt);
    }
    let system = args.system.iter().map(|text| json!({ "role": "system", "content": text }));
    let is_text = media.is_empty();
    let content = files::content(&prompt, &media);
    let messages = system.chain([json!({ "role": "user", "content": content })]).collect();
    match model.chat_prompt(&ChatPrompt { messages, media, add_generation_prompt: true }) {
        Err(PromptError::NoTemplate) if args.system.is_none() && is_text => {
            eprintln!("note: this model has no chat template: continuing the prompt as it stands");
            plain(&prompt)
        }
        result => Ok(result?),
    }
}

fn read_stdin() -> anyhow::Result<String> {
    if stdin().is_terminal() {
        bail!("no prompt: give --prompt TEXT, or pipe one in");
    }
    let mut prompt = String::new();
    stdin().read_to_string(&mut prompt).context("the prompt on stdin is not readable")?;
    // What `echo` adds.
    Ok(prompt.strip_suffix('\n').map(str::to_owned).unwrap_or(prompt))
}
