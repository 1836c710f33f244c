//! llama.cpp, built for this machine from the sources that `llama-cpp-python` carries.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::measure::{Run, with_peak_memory};
use crate::{command, disk, paths, pip, progress, venv};

const PACKAGE: &str = "llama-cpp-python";
const VERSION: &str = "0.3.36";
const BYTES: u64 = 76589250;
const SHA256: &str = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e";

/// What its build needs: no compiler comes with these.
const TOOLS: &str = "cmake==4.4.4\nninja==1.13.2\nscikit-build-core==1.1.2\n";

const OPTIONS: [&str; 8] = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DGGML_NATIVE=ON",
];

/// Its programs.
pub struct Programs {
    pub bench: PathBuf,
    pub server: PathBuf,
}

const TARGETS: [&str; 2] = ["llama-bench", "llama-server"];

/// Its programs, built if they aren't there (about 20 minutes on two cores; what is compiled stays compiled if interrupted).
pub fn ready() -> Result<Programs> {
    let place = paths::target().join("peers/llama.cpp");
    let [bench, server] = TARGETS.map(|name| place.join("build/bin").join(name));
    let programs = Programs { bench, server };
    if place.join(COMPLETE).exists() && programs.bench.exists() && programs.server.exists() {
        return Ok(programs);
    }
    let python = venv::ready(&paths::target().join("peers/tools"), TOOLS)?;
    let _lock = disk::Lock::acquire()?;
    let tools = python.parent().context("a Python inside a folder")?.to_path_buf();
    if !place.join("CMakeLists.txt").exists() {
        unpack(&place, &python)?;
    }
    let path = std::env::join_paths(
        std::iter::once(tools.clone()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    )?;
    let mut configure = Command::new(tools.join("cmake"));
    configure.args(["-G", "Ninja", "-B", "build"]).args(OPTIONS).current_dir(&place).env("PATH", &path);
    let spinner = progress::spinner("configuring llama.cpp");
    command::output(&mut configure)?;
    spinner.finish_and_clear();
    build(&place, &tools, &path)?;
    fs::write(place.join(COMPLETE), VERSION)?;
    Ok(programs)
}

const COMPLETE: &str = ".complete";

fn unpack(place: &Path, python: &Path) -> Result<()> {
    let download = pip::sdist(PACKAGE, VERSION, BYTES, SHA256, python)?;
    let spinner = progress::spinner("unpacking llama.cpp");
    let staging = disk::Staging::beside(place)?;
    let mut tar = Command::new("tar");
    tar.arg("-xzf").arg(&download.path).arg("-C").arg(staging.path());
    command::output(&mut tar)?;
    let sources = staging.path().join(format!("{}-{VERSION}/vendor/llama.cpp", PACKAGE.replace('-', "_")));
    fs::rename(&sources, place).with_context(|| format!("{} is not where it was expected", sources.display()))?;
    spinner.finish_and_clear();
    Ok(())
}

/// Runs ninja, whose lines begin with `[done/total]`.
fn build(place: &Path, tools: &Path, path: &std::ffi::OsStr) -> Result<()> {
    let mut child = Command::new(tools.join("ninja"))
        .args(["-C", "build"])
        .args(TARGETS)
        .current_dir(place)
        .env("PATH", path)
        .env("NINJA_STATUS", "[%f/%t] ")
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start ninja")?;
    let bar = progress::steps("building llama.cpp", 0);
    let mut tail = vec![];
    for line in BufReader::new(child.stdout.take().context("ninja's output")?).lines() {
        let line = line?;
        if let Some((done, total)) = ninja_status(&line) {
            bar.set_length(total);
            bar.set_position(done);
        }
        tail.push(line);
        if tail.len() > 40 {
            tail.remove(0);
        }
    }
    if !child.wait()?.success() {
        bail!("building llama.cpp failed:\n{}", tail.join("\n"));
    }
    bar.finish_and_clear();
    Ok(())
}

fn ninja_status(line: &str) -> Option<(u64, u64)> {
    let (done, total) = line.strip_prefix('[')?.split_once(']')?.0.split_once('/')?;
    Some((done.parse().ok()?, total.parse().ok()?))
}

/// One run of `llama-bench`: prompt processing and generation.
pub fn measure(binary: &Path, model: &Path, prompt: usize, generate: usize, threads: usize) -> Result<Run> {
    let mut command = Command::new(binary);
    command.arg("-m").arg(model).args(["-p", &prompt.to_string(), "-n", &generate.to_string()]).args([
        "-t",
        &threads.to_string(),
        "-r",
        "1",
        "-o",
        "json",
    ]);
    let (stdout, peak_bytes) = with_peak_memory(&command)?;
    let (prefill, decode) = figures(&stdout)?;
    Ok(Run { prefill, decode, peak_bytes })
}

/// Tokens a second of prompt processing and of generation.
fn figures(stdout: &str) -> Result<(f64, f64)> {
    let tests: Value = serde_json::from_str(stdout).context("llama-bench wrote something that is not JSON")?;
    let speed = |wanted: &str, unwanted: &str| {
        let is_it = |test: &&Value| test[wanted].as_u64() > Some(0) && test[unwanted].as_u64() == Some(0);
        let test = tests.as_array().into_iter().flatten().find(is_it);
        test.and_then(|test| test["avg_ts"].as_f64())
            .with_context(|| format!("llama-bench wrote no avg_ts for {wanted}"))
    };
    Ok((speed("n_prompt", "n_gen")?, speed("n_gen", "n_prompt")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_of_the_tools_is_understood() {
        let cases = [
            ("[3/216] Building CXX object a.o", Some((3, 216))),
            ("ninja: Entering directory `build'", None),
            ("[x/2] a", None),
        ];
        for (line, wanted) in cases {
            assert_eq!(ninja_status(line), wanted, "{line}");
        }
        let json =
            r#"[{"n_prompt": 512, "n_gen": 0, "avg_ts": 424.5}, {"n_prompt": 0, "n_gen": 64, "avg_ts": 150.25}]"#;
        assert_eq!(figures(json).unwrap(), (424.5, 150.25));
        assert!(figures(r#"[{"n_prompt": 512, "n_gen": 0, "avg_ts": 424.5}]"#).is_err());
    }
}
