//! The workspace's own commands (`cargo xtask …`).
//!
//! Every command can be repeated, does only what is not done yet, and leaves nothing half-done behind: whatever it makes is written beside
//! its place and renamed into it when whole.

mod bench;
mod bindings;
mod ci;
mod command;
mod demo;
mod disk;
mod models;
mod paths;
mod pip;
mod progress;
mod setup;
mod test;
mod venv;
mod wheel;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Builds, prepares, tests and measures vllm-mlx", arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Prepare MLX: unpack the official wheel and mlx-c's sources under target/mlx
    Setup {
        /// `cpu`, `cuda13`, `metal`, or a folder with include/mlx and lib/libmlx [default: what fits this machine]
        #[arg(long, value_name = "WHICH")]
        mlx: Option<setup::Choice>,
    },
    /// Models that the package registries carry, and models of random weights to measure with
    #[command(subcommand)]
    Models(Models),
    /// Prepare everything, build in release and answer a prompt
    Demo {
        /// What to ask
        #[arg(default_value = demo::PROMPT)]
        prompt: String,
    },
    /// Prepare everything and run every test
    Test {
        /// Passed on to `cargo test`, in place of `--workspace`
        #[arg(last = true)]
        args: Vec<String>,
    },
    /// What a change has to pass: format, lints, docs, licences, layers, tests
    Ci {
        /// `format`, `layers`, `licences`, `clippy`, `docs`, `tests` [default: all]
        checks: Vec<String>,
    },
    /// Measurements
    #[command(subcommand)]
    Bench(Bench),
    /// Generate crates/mlx-sys/src/bindings.rs anew
    Bindings,
}

#[derive(Subcommand)]
enum Models {
    /// Name the models that can be fetched or made
    List,
    /// Fetch a model and check it by its hash; or make it, if its weights are random
    Fetch {
        name: String,
        /// Where to put it [default: target/models/NAME, or target/models/random]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Bench {
    /// SmolLM2 and Qwen3-0.6B's shape on the CPU, alternating with llama.cpp: prefill, decode, sixteen at once, memory
    Cpu(bench::cpu::CpuArgs),
    /// How soon a server answers after its start
    Serve(bench::serve::ServeArgs),
    /// Many requests at once, repeated prompts, short ones behind long ones, beside other servers
    Engine(bench::engine::EngineArgs),
    /// What HTTP and gRPC cost a token, and two workers behind SMG against one
    Fleet(bench::fleet::FleetArgs),
    /// Minutes of mixed load with clients that go away: nothing may be left behind
    Soak(bench::soak::SoakArgs),
    /// Questions about an image and a video, the first time and again, beside mlx-vlm
    Vision(bench::vision::VisionArgs),
    /// Speech written down and texts said, beside faster-whisper and ONNX Runtime
    Speech(bench::speech::SpeechArgs),
}

fn main() {
    let result = match Cli::parse().task {
        Task::Setup { mlx } => setup::run(mlx),
        Task::Models(Models::List) => models::list(),
        Task::Models(Models::Fetch { name, out }) => {
            models::fetch(&name, out).map(|path| println!("{}", path.display()))
        }
        Task::Demo { prompt } => demo::run(&prompt),
        Task::Test { args } => test::run(&args),
        Task::Ci { checks } => ci::run(&checks),
        Task::Bench(Bench::Cpu(args)) => bench::cpu::run(&args),
        Task::Bench(Bench::Serve(args)) => bench::serve::run(&args),
        Task::Bench(Bench::Engine(args)) => bench::engine::run(&args),
        Task::Bench(Bench::Fleet(args)) => bench::fleet::run(&args),
        Task::Bench(Bench::Soak(args)) => bench::soak::soak(&args),
        Task::Bench(Bench::Vision(args)) => bench::vision::run(&args),
        Task::Bench(Bench::Speech(args)) => bench::speech::run(&args),
        Task::Bindings => bindings::run(),
    };
    if let Err(error) = result {
        eprintln!("error: {error:#}");
        std::process::exit(1);
    }
}
