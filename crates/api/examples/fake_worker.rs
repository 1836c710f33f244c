//! A worker that computes nothing but takes as long as a model would: for measuring what stands in front of workers.
//!
//! `cargo run --release -p vllm-api --example fake_worker HTTP-PORT GRPC-PORT [STEP-MS] [STREAMS] [CONTEXT]` serves the fake
//! runner as `tiny` until it is killed. A step takes `STEP-MS` (10) whatever is in it, and has at most `STREAMS` (16) requests.

use std::{env, sync::Arc, time::Duration};

#[path = "paced/mod.rs"]
mod paced;
#[path = "../tests/it/support/mod.rs"]
mod support;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let number = |index: usize, default: f64| args.get(index).map_or(Ok(default), |arg| arg.parse());
    let pace = paced::Pace {
        step: Duration::from_secs_f64(number(2, 10.0)? / 1e3),
        streams: number(3, 16.0)? as usize,
        context: number(4, 1024.0)? as usize,
    };
    let folder = tempfile::tempdir()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let app = paced::app(paced::engine(pace, Arc::default())?, folder.path())?;
    runtime.block_on(async {
        let (http, grpc) = paced::serve(&app, number(0, 0.0)? as u16, number(1, 0.0)? as u16).await?;
        println!("http {http}\ngrpc {grpc}");
        std::future::pending::<()>().await;
        Ok(())
    })
}
