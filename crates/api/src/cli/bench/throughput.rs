//! Several requests at once.

use std::{
    io::Write as _,
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use serde_json::json;
use vllm_scheduler::EngineHandle;

use super::{Args, Measured, measure};
use crate::{
    cli::{bench_serve::stats::Summary, report::mib},
    memory::peak_rss_bytes,
};

/// Runs the requests of every repeat, `--concurrency` at once, and prints what all of a repeat came to.
///
/// # Errors
/// The first request that fails.
pub fn run(engine: &EngineHandle, args: &Args) -> anyhow::Result<()> {
    let count = args.num_prompts.unwrap_or(args.concurrency);
    let mut out = std::io::stdout();
    for repeat in 0..args.repeat {
        let (duration, measured) = together(engine, args, repeat * count..(repeat + 1) * count)?;
        let per_second = |tokens: usize| (count * tokens) as f64 / duration.as_secs_f64();
        let (prompt_tps, generation_tps) = (per_second(args.prompt_tokens), per_second(args.generate));
        let ttfts = measured.iter().map(|measured| measured.ttft.as_secs_f64() * 1e3).collect();
        let ttft = Summary::of(ttfts).ok_or_else(|| anyhow!("no request was run"))?;
        let peak = peak_rss_bytes();
        if args.json {
            let line = json!({
                "concurrency": args.concurrency,
                "num_prompts": count,
                "duration_s": duration.as_secs_f64(),
                "prompt_tps": prompt_tps,
                "generation_tps": generation_tps,
                "ttft_ms": ttft.json(),
                "peak_rss_bytes": peak,
            });
            writeln!(out, "{line}")?;
        } else {
            writeln!(
                out,
                "{count} requests, {} at once: prompt {prompt_tps:.1} tok/s, generation {generation_tps:.1} tok/s, first token p50 {:.0} ms, \
                 p99 {:.0} ms, peak {}",
                args.concurrency,
                ttft.p50,
                ttft.p99,
                peak.map_or("–".into(), mib),
            )?;
        }
        out.flush()?;
    }
    Ok(())
}

/// Runs the requests with these numbers and says how long all of them took.
fn together(engine: &EngineHandle, args: &Args, numbers: Range<usize>) -> anyhow::Result<(Duration, Vec<Measured>)> {
    let next = AtomicUsize::new(numbers.start);
    let client = || -> anyhow::Result<Vec<Measured>> {
        let mut measured = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= numbers.end {
                return Ok(measured);
            }
            measured.push(measure(engine, args, number, || ())?);
        }
    };
    let start = Instant::now();
    let measured: anyhow::Result<Vec<Vec<Measured>>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..args.concurrency).map(|_| scope.spawn(client)).collect();
        let joined = clients.into_iter().map(|client| client.join().map_err(|_| anyhow!("a client's thread panicked")));
        joined.map(|result| result.and_then(|measured| measured)).collect()
    });
    Ok((start.elapsed(), measured?.into_iter().flatten().collect()))
}
