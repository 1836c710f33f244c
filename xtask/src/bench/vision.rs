//! `cargo xtask bench vision`: how long a question about pictures takes, the first time and again, beside mlx-vlm.
//!
//! A model of random weights with Qwen2.5-VL-3B's vision encoder before a small language model, so that what is measured is looking and
//! not looking again. Each round starts a new server with nothing on its SSD.

mod picture;
mod question;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::{
    picture::{Picture, data_uri},
    question::{Answer, Question, image, vision_stats},
};
use super::{
    measure::median,
    server::{Server, free_port},
};
use crate::{models, paths, setup, venv};

#[derive(Args)]
pub struct VisionArgs {
    /// Rounds, each with a new server
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Columns and rows of the image
    #[arg(long, default_value_t = 1024)]
    side: usize,
    /// Frames of the video; 0: none
    #[arg(long, default_value_t = 64)]
    frames: usize,
    /// Columns and rows of each frame
    #[arg(long, default_value_t = 224)]
    frame_side: usize,
    /// Leave mlx-vlm out
    #[arg(long)]
    alone: bool,
    /// Measure this vllm-mlx, in place of one built from here
    #[arg(long, value_name = "PROGRAM")]
    ours: Option<PathBuf>,
    /// More flags of `vllm-mlx serve`, separated by spaces
    #[arg(long, value_name = "FLAGS", default_value = "", allow_hyphen_values = true)]
    ours_flags: String,
}

const MLX_VLM: &str = "mlx[cpu]==0.32.4\nmlx-vlm==0.7.10\ntransformers==5.23.0\ntorch==2.15.0\ntorchvision==0.29.2\n";
const MODEL: &str = "m";
/// A large encoder on a small machine takes minutes for a video.
const PATIENCE: Duration = Duration::from_secs(900);
const QUESTIONS: [&str; 2] = ["What is to be seen here?", "And which colours has it?"];

/// Milliseconds to the first token, by what was asked.
type Samples = BTreeMap<&'static str, Vec<f64>>;

/// Measures and prints a table. All samples are kept in `target/bench/vision.json`.
pub fn run(args: &VisionArgs) -> Result<()> {
    ensure!(args.rounds > 0 && args.side > 0 && args.frame_side > 0, "--rounds and sides must be at least 1");
    setup::run(None)?;
    let [bf16, f32] = models::seeing::MODELS.map(|model| model.name);
    let model = models::fetch(bf16, None)?;
    let binary = args.ours.clone().map_or_else(super::release_build, Ok)?;
    let peer = if args.alone {
        None
    } else {
        let python = venv::ready(&paths::target().join("peers/mlx-vlm"), MLX_VLM);
        Some((python.context("mlx-vlm (--alone leaves it out)")?, models::fetch(f32, None)?))
    };
    let mut samples = Samples::new();
    for round in 0..args.rounds {
        let folder = std::env::temp_dir().join(format!("vllm-mlx-vision-{}", std::process::id()));
        fs::create_dir_all(&folder)?;
        let result = ours(args, &binary, &model, &folder, &mut samples);
        fs::remove_dir_all(&folder)?;
        result.with_context(|| format!("round {round}"))?;
        if let Some((python, model)) = &peer {
            mlx_vlm(args, python, model, &mut samples)?;
        }
    }
    println!("{}", report(args, &samples));
    let place = paths::target().join("bench");
    fs::create_dir_all(&place)?;
    fs::write(place.join("vision.json"), serde_json::to_vec_pretty(&json!(samples))?)?;
    Ok(())
}

/// One round of ours.
fn ours(args: &VisionArgs, binary: &Path, model: &Path, ssd: &Path, samples: &mut Samples) -> Result<()> {
    let picture = Picture::new(args.side, 1);
    let (png, bmp) = (data_uri("png", &picture.png()), data_uri("bmp", &picture.bmp()));
    let url = picture::serve(picture.png())?;
    let start = || start(args, binary, model, ssd);
    let asked = |port, parts: &[Value], question: usize, salt| {
        Question { model: MODEL, parts: parts.to_vec(), text: QUESTIONS[question], salt }.ask(port)
    };
    let mut note = |name: &'static str, answer: &Answer| {
        eprintln!("{name}: {:.0} ms, {}", answer.first_token_ms, answer.usage);
        samples.entry(name).or_default().push(answer.first_token_ms);
    };

    let (png, bmp, url) = ([image(&png)], [image(&bmp)], [image(&url)]);
    let server = start()?;
    let port = server.port;
    note("image, first", &asked(port, &png, 0, None)?);
    let runs = encoder_runs(port)?;
    note("image, second question", &asked(port, &png, 1, None)?);
    note("image, as a URL", &asked(port, &url, 1, None)?);
    note("image, as BMP", &asked(port, &bmp, 1, None)?);
    note("image, features only", &asked(port, &png, 1, Some("another"))?);
    ensure!(encoder_runs(port)? == runs, "the image was encoded again");
    let fresh = [image(&data_uri("png", &Picture::new(args.side / 2, 2).png()))];
    thread::scope(|scope| {
        let all: Vec<_> = (0..4).map(|_| scope.spawn(|| asked(port, &fresh, 0, None))).collect();
        all.into_iter().try_for_each(|one| one.join().map_or_else(|_| bail!("a client panicked"), |one| one.map(drop)))
    })?;
    ensure!(encoder_runs(port)? == runs + 1, "four requests with the same image are one run of the encoder");

    let clip = |first: usize| -> Vec<Value> {
        let frames = (first..first + args.frames).map(|i| Picture::new(args.frame_side, 100 + i as u32));
        let urls: Vec<String> = frames.map(|frame| data_uri("png", &frame.png())).collect();
        vec![json!({ "type": "video", "video": urls })]
    };
    if args.frames > 0 {
        note("video, first", &asked(port, &clip(0), 0, None)?);
        let runs = encoder_runs(port)?;
        note("video, second question", &asked(port, &clip(0), 1, None)?);
        note("video, features only", &asked(port, &clip(0), 1, Some("another"))?);
        ensure!(encoder_runs(port)? == runs, "the video was encoded again");
        note("video, a quarter is new", &asked(port, &clip(args.frames / 4), 1, None)?);
        let new = encoder_runs(port)? - runs;
        ensure!(new <= args.frames as u64 / 4, "{new} runs for {} new frames", args.frames / 4);
    }
    server.stop(Duration::from_secs(60))?;

    let server = start()?;
    let port = server.port;
    note("image, after a restart", &asked(port, &png, 1, None)?);
    note("image, features only, after a restart", &asked(port, &png, 1, Some("a third"))?);
    if args.frames > 0 {
        note("video, after a restart", &asked(port, &clip(0), 1, None)?);
        note("video, features only, after a restart", &asked(port, &clip(0), 1, Some("a third"))?);
    }
    ensure!(encoder_runs(port)? == 0, "something was encoded again after the restart");
    server.stop(Duration::from_secs(60))
}

fn encoder_runs(port: u16) -> Result<u64> {
    vision_stats(port)?["encoder_runs"].as_u64().context("encoder_runs is no number")
}

fn start(args: &VisionArgs, binary: &Path, model: &Path, ssd: &Path) -> Result<Server> {
    let port = free_port()?;
    let mut serve = Command::new(binary);
    serve.arg("serve").arg(model).args(["--served-model-name", MODEL, "--port", &port.to_string()]);
    serve.args(["--allowed-media-domains", "127.0.0.1", "--allow-private-media-hosts", "--log-level", "error"]);
    serve.arg("--ssd-cache-dir").arg(ssd).args(args.ours_flags.split_whitespace()).stderr(Stdio::inherit());
    let mut server = Server::start(&mut serve, port)?;
    server.wait(PATIENCE, |server| server.health() == Some(200))?;
    Ok(server)
}

/// One round of mlx-vlm's server, with its own cache of prefixes switched on.
fn mlx_vlm(args: &VisionArgs, python: &Path, model: &Path, samples: &mut Samples) -> Result<()> {
    let port = free_port()?;
    let name = model.to_string_lossy();
    let mut serve = Command::new(python);
    serve.args(["-m", "mlx_vlm.server", "--model", &name, "--port", &port.to_string()]);
    serve.env("APC_ENABLED", "1").env("HF_HUB_OFFLINE", "1").stdout(Stdio::null()).stderr(Stdio::null());
    let mut server = Server::start(&mut serve, port)?;
    server.wait(PATIENCE, |server| server.health() == Some(200))?;
    let png = [image(&data_uri("png", &Picture::new(args.side, 1).png()))];
    for (name, text) in ["mlx-vlm, image, first", "mlx-vlm, image, second question"].into_iter().zip(QUESTIONS) {
        let answer =
            Question { model: &model.to_string_lossy(), parts: png.to_vec(), text, salt: None }.ask(server.port)?;
        eprintln!("{name}: {:.0} ms, {}", answer.first_token_ms, answer.usage);
        samples.entry(name).or_default().push(answer.first_token_ms);
    }
    Ok(())
}

fn report(args: &VisionArgs, samples: &Samples) -> String {
    let of = |name: &str| samples.get(name).map(|all| median(all.iter().copied()));
    let mut table = format!(
        "Time to the first token, medians of {} rounds; image of {side}×{side}, video of {} frames of {frame}×{frame}\n\n\
         | | ms | times faster than the first |\n|---|---|---|\n",
        args.rounds,
        args.frames,
        side = args.side,
        frame = args.frame_side,
    );
    for name in samples.keys() {
        let kind =
            ["mlx-vlm, image", "video", "image"].into_iter().find(|kind| name.starts_with(kind)).unwrap_or("image");
        let kind = &format!("{kind}, first");
        if let (Some(ms), Some(first)) = (of(name), of(kind)) {
            // Writing to a string cannot fail.
            let _ = writeln!(table, "| {name} | {ms:.0} | {:.1} |", first / ms);
        }
    }
    for kind in ["image", "video"] {
        let ms = |what: &str| of(&format!("{kind}, {what}"));
        if let (Some(first), Some(second), Some(features)) = (ms("first"), ms("second question"), ms("features only")) {
            let share = 100.0 * (first - features) / (first - second);
            let _ = writeln!(
                table,
                "\nOf what the second question about the {kind} saves, features alone save {share:.0} %."
            );
        }
    }
    table
}
