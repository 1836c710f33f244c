//! `vllm-mlx doctor`.

use std::{
    env, fs,
    io::Write as _,
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use vllm_checkpoint::hub::{self, HubOptions};
use vllm_platform::Platform;

use super::report::mib;
use crate::model::open_platform;

/// Flags of `doctor`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address that `serve` is to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Port that `serve` is to listen on
    #[arg(long, default_value_t = 8000)]
    port: u16,
}

/// A finding: fine, or what to do about it.
struct Finding {
    what: &'static str,
    result: Result<String, String>,
}

/// Looks at everything that a server needs, and says what it finds.
///
/// # Errors
/// If something is wrong.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut findings = vec![Finding { what: "program", result: Ok(program()) }];
    match open_platform() {
        Ok(platform) => findings.extend(platform_findings(&*platform)),
        Err(error) => findings.push(Finding { what: "platform", result: Err(error.to_string()) }),
    }
    findings.push(Finding { what: "videos", result: Ok(videos()) });
    findings.push(Finding { what: "port", result: port(SocketAddr::new(args.host, args.port)) });
    findings.extend(cache_findings(&HubOptions::from_env()));

    let mut out = std::io::stdout();
    for Finding { what, result } in &findings {
        let (mark, text) = match result {
            Ok(text) => ("ok", text),
            Err(text) => ("!!", text),
        };
        writeln!(out, "{mark}  {what:<14}{text}")?;
    }
    match findings.iter().filter(|finding| finding.result.is_err()).count() {
        0 => Ok(()),
        wrong => anyhow::bail!("{wrong} of {} are not as they should be", findings.len()),
    }
}

/// Which videos can be read. Not having ffmpeg is no fault.
fn videos() -> String {
    let program = env::var_os("VLLM_FFMPEG").unwrap_or_else(|| "ffmpeg".into());
    let version = Command::new(&program).arg("-version").stdin(Stdio::null()).output();
    let version = version.ok().filter(|out| out.status.success());
    match version.as_ref().and_then(|out| str::from_utf8(&out.stdout).ok()?.lines().next()) {
        Some(line) => {
            format!("animations and, with {}, all that it reads", line.split(" Copyright").next().unwrap_or(line))
        }
        None => "animated GIF, WebP and PNG only: there is no ffmpeg (VLLM_FFMPEG may name one)".into(),
    }
}

fn program() -> String {
    format!("vllm-mlx {} on {} {}", env!("CARGO_PKG_VERSION"), env::consts::OS, env::consts::ARCH)
}

fn platform_findings(platform: &dyn Platform) -> Vec<Finding> {
    let devices = platform.devices();
    let names = devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let mut findings = vec![Finding {
        what: "devices",
        result: if devices.is_empty() { Err("none: MLX finds no device".into()) } else { Ok(names) },
    }];
    findings.extend(platform.facts().into_iter().map(|(what, text)| Finding { what, result: Ok(text) }));
    for device in devices {
        let result = match platform.memory(device) {
            Ok(memory) if memory.limit == 0 => Err(format!("{device}: nothing of {} is free", mib(memory.total))),
            Ok(memory) => Ok(format!("{device}: {} of {} may be used", mib(memory.limit), mib(memory.total))),
            Err(error) => Err(format!("{device}: {error}")),
        };
        findings.push(Finding { what: "memory", result });
    }
    let count = platform.architectures().len();
    findings.push(Finding { what: "architectures", result: Ok(format!("{count} (vllm-mlx info names them)")) });
    findings
}

fn port(address: SocketAddr) -> Result<String, String> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("{address} is free")),
        Err(error) => Err(format!("{address}: {error}: another server runs there, or give --port")),
    }
}

fn cache_findings(options: &HubOptions) -> Vec<Finding> {
    let Some(cache) = &options.cache else {
        let missing = "there is no home folder: set HF_HUB_CACHE".to_owned();
        return vec![Finding { what: "cache", result: Err(missing) }];
    };
    let writable = writable(cache).map(|()| cache.display().to_string());
    let models = hub::list(options).map(|models| {
        let bytes = models.iter().map(|model| model.bytes).sum();
        format!("{} in the cache, {}", models.len(), mib(bytes))
    });
    let token = if options.token.is_some() { "there is one" } else { "none: private models can't be fetched" };
    let mode = if options.offline { "offline: only what the cache has" } else { "online" };
    vec![
        Finding { what: "cache", result: writable },
        Finding { what: "models", result: models.map_err(|error| error.to_string()) },
        Finding { what: "hub token", result: Ok(token.into()) },
        Finding { what: "hub", result: Ok(mode.into()) },
    ]
}

/// Whether files can be made in a folder, or in the one where it would be made.
fn writable(folder: &Path) -> Result<(), String> {
    let there: PathBuf = folder.ancestors().find(|path| path.is_dir()).unwrap_or(folder).to_owned();
    let probe = there.join(format!(".vllm-mlx-doctor-{}", std::process::id()));
    fs::write(&probe, b"").map_err(|error| format!("{} can't be written to: {error}", there.display()))?;
    let _ = fs::remove_file(probe);
    Ok(())
}
