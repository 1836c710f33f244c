//! CPU time that scheduler, HTTP and gRPC take for each token, on a runner that computes nothing.
//!
//! `cargo run --release -p vllm-api --example overhead [STREAMS] [TOKENS] [ROUNDS]` opens 16 streams of 500 tokens at the engine
//! itself, over HTTP and over gRPC (both from a second process, so that clients aren't counted), in turns, and divides its own CPU
//! time by the tokens. What the fake itself takes (it hashes whole sequences) is measured on its thread and taken off.
//! Linux only: it reads `/proc`.

use std::{
    env,
    io::{Read as _, Write as _},
    net::TcpStream,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::json;
use vllm_grpc_proto::vllm_proto::{
    GenerateRequest, ResponseOptions, StoppingCriteria, TokenIds, generate_request::Prompt,
    inference_client::InferenceClient,
};
use vllm_scheduler::{EngineHandle, Event, Request};

#[path = "paced/mod.rs"]
mod paced;
#[path = "../tests/it/support/mod.rs"]
mod support;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default: usize| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    match args.first().map(String::as_str) {
        Some("http") => return over_http(&args[1], number(2, 16)?, number(3, 500)?),
        Some("grpc") => return runtime.block_on(over_grpc(args[1].clone(), number(2, 16)?, number(3, 500)?)),
        _ => {}
    }
    let (streams, tokens, rounds) = (number(0, 16)?, number(1, 500)?, number(2, 3)?);
    let fake_ns = Arc::new(AtomicU64::new(0));
    // Without a pause, steps would run ahead of the sockets: a real model takes milliseconds.
    let pace = paced::Pace { step: Duration::from_millis(2), streams, context: tokens + 64 };
    let engine = paced::engine(pace, Arc::clone(&fake_ns))?;
    let folder = tempfile::tempdir()?;
    let app = paced::app(engine.clone(), folder.path())?;
    let (http, grpc) = runtime.block_on(paced::serve(&app, 0, 0))?;
    let ask = |way: &str, address: &str| -> anyhow::Result<()> {
        let numbers = [streams.to_string(), tokens.to_string()];
        let status = Command::new(env::current_exe()?).args([way, address]).args(numbers).status()?;
        ensure!(status.success(), "the client failed");
        Ok(())
    };
    // The first round is for warmth.
    for round in 0..=rounds {
        for way in ["engine", "http", "grpc"] {
            let (cpu, fake, start) = (paced::cpu_ns()?, fake_ns.load(Relaxed), Instant::now());
            match way {
                "engine" => runtime.block_on(in_process(&engine, streams, tokens))?,
                "http" => ask(way, &http.to_string())?,
                _ => ask(way, &grpc.to_string())?,
            }
            let all = (streams * tokens) as f64;
            let cpu = (paced::cpu_ns()? - cpu) as f64 / 1e3 / all;
            let fake = (fake_ns.load(Relaxed) - fake) as f64 / 1e3 / all;
            let speed = all / start.elapsed().as_secs_f64();
            if round > 0 {
                println!(
                    "{way}: {:.2} µs of CPU a token (and the fake runner's own {fake:.2}), {speed:.0} tokens/s",
                    cpu - fake
                );
            }
        }
    }
    Ok(())
}

/// Reads `streams` answers of `tokens` tokens from the engine to their ends.
async fn in_process(engine: &EngineHandle, streams: usize, tokens: usize) -> anyhow::Result<()> {
    let readers: Vec<_> = (0..streams)
        .map(|index| {
            let request =
                Request { prompt: vec![120], max_tokens: tokens, ..Request::new(format!("in-process-{index}")) };
            let mut events = engine.submit(request)?;
            Ok(tokio::spawn(async move {
                let mut count = 0;
                while let Some(event) = events.next().await {
                    count += usize::from(matches!(event, Event::Token(_)));
                }
                count
            }))
        })
        .collect::<anyhow::Result<_>>()?;
    for reader in readers {
        let count = reader.await?;
        ensure!(count == tokens, "{count} tokens");
    }
    Ok(())
}

/// Reads `streams` streams to their ends.
fn over_http(address: &str, streams: usize, tokens: usize) -> anyhow::Result<()> {
    let body = json!({ "model": "tiny", "prompt": "x", "max_tokens": tokens, "ignore_eos": true, "stream": true });
    let body = body.to_string();
    let request = format!(
        "POST /v1/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    thread::scope(|scope| {
        let readers: Vec<_> = (0..streams)
            .map(|_| {
                scope.spawn(|| -> anyhow::Result<()> {
                    let mut socket = TcpStream::connect(address)?;
                    socket.write_all(request.as_bytes())?;
                    let mut text = String::new();
                    socket.read_to_string(&mut text)?;
                    let chunks = text.matches("\"finish_reason\":null").count();
                    ensure!(text.contains("[DONE]") && chunks + 1 >= tokens, "{chunks} chunks:\n{text}");
                    Ok(())
                })
            })
            .collect();
        readers.into_iter().try_for_each(|reader| reader.join().map_err(|_| anyhow::anyhow!("a reader panicked"))?)
    })
}

/// The same through `vllm.Inference` on one connection, as vLLM Router asks: token ids in, token ids out.
async fn over_grpc(address: String, streams: usize, tokens: usize) -> anyhow::Result<()> {
    let client = InferenceClient::connect(format!("http://{address}")).await.context("gRPC")?;
    let readers: Vec<_> = (0..streams)
        .map(|index| {
            let mut client = client.clone();
            let request = GenerateRequest {
                request_id: format!("over-grpc-{index}"),
                prompt: Some(Prompt::TokenIds(TokenIds { ids: vec![120] })),
                stopping: Some(StoppingCriteria {
                    max_new_tokens: tokens as u32,
                    ignore_eos: true,
                    ..StoppingCriteria::default()
                }),
                response: Some(ResponseOptions {
                    output_text: Some(false),
                    output_token_ids: true,
                    ..ResponseOptions::default()
                }),
                ..GenerateRequest::default()
            };
            tokio::spawn(async move {
                let mut answers = client.generate_stream(request).await?.into_inner();
                let mut count = 0;
                while let Some(answer) = answers.message().await? {
                    count += answer.outputs.map_or(0, |output| output.token_ids.len());
                }
                ensure!(count == tokens, "{count} tokens");
                Ok(())
            })
        })
        .collect();
    for reader in readers {
        reader.await??;
    }
    Ok(())
}
