//! llama.cpp, built for this machine from the sources that `llama-cpp-python` carries.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

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
    pub batched_bench: PathBuf,
    pub server: PathBuf,
}

const TARGETS: [&str; 3] = ["llama-bench", "llama-batched-bench", "llama-server"];

/// Its programs, built if they aren't there (about 20 minutes on two cores; what is compiled stays compiled if interrupted).
pub fn ready() -> Result<Programs> {
    let place = paths::target().join("peers/llama.cpp");
    let places = TARGETS.map(|name| place.join("build/bin").join(name));
    let are_there = places.iter().all(|program| program.exists());
    let [bench, batched_bench, server] = places;
    let programs = Programs { bench, batched_bench, server };
    if place.join(COMPLETE).exists() && are_there {
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
    }
}
