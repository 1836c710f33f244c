//! Generates `crates/mlx-sys/src/bindings.rs`, which is committed so that nobody who builds needs libclang.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::{command, disk, paths, pip, setup, wheel, wheel::Wheel};

const BINDGEN: &str = "0.72.1";

const LIBCLANG: Wheel = Wheel {
    package: "libclang",
    version: "18.1.1",
    platform: "manylinux2010_x86_64",
    bytes: 24_515_943,
    sha256: "c533091d8a3bbf7460a00cb6c1a71da93bffe148f172c7d03b1c31fbf8aa2a0b",
};

/// Runs bindgen over mlx-c's headers and our own.
///
/// Declarations of `mlx_*` only, without layouts, comments or anything of libc: the result suits every 64-bit Linux and macOS.
pub fn run() -> Result<()> {
    setup::run(None)?;
    let bindgen = bindgen()?;
    let libclang = libclang()?;
    let crate_dir = paths::root().join("crates/mlx-sys");
    let mut command = Command::new(bindgen);
    command
        .env("LIBCLANG_PATH", libclang)
        .arg(crate_dir.join("src/cpp/bindings.h"))
        .arg("--output")
        .arg(crate_dir.join("src/bindings.rs"))
        .args(["--merge-extern-blocks", "--no-doc-comments", "--no-layout-tests", "--disable-header-comment"])
        .args(["--rust-target=1.85", "--rust-edition=2024"])
        .args(["--allowlist-function=_?mlx_.*", "--allowlist-type=mlx_.*", "--allowlist-var=MLX_.*"])
        // 16-bit floats differ by target: src/half.rs has them. A FILE is never looked into.
        .arg("--blocklist-item=mlx_array_empty|float16_t|bfloat16_t|mlx_array_(item|data)_b?float16")
        .args(["--blocklist-type=_?_?(IO_|s)?FILE|_IO_.*", "--raw-line=use crate::FILE;"])
        .args(["--", "--target=x86_64-unknown-linux-gnu", "-isystem", &compiler_headers()?])
        .arg(format!("-I{}", paths::mlx().join("mlx-c").display()));
    command::run(&mut command)
}

fn bindgen() -> Result<PathBuf> {
    let tools = paths::target().join("tools");
    let binary = tools.join("bin/bindgen");
    if !binary.exists() {
        command::run(
            command::cargo().args(["install", "bindgen-cli", "--locked", "--version", BINDGEN, "--root"]).arg(&tools),
        )?;
    }
    Ok(binary)
}

/// The folder with libclang: `LIBCLANG_PATH`, or PyPI's wheel, unpacked.
fn libclang() -> Result<PathBuf> {
    if let Some(path) = env::var_os("LIBCLANG_PATH") {
        return Ok(path.into());
    }
    let place = paths::target().join("tools/libclang");
    if !place.exists() {
        let _lock = disk::Lock::acquire()?;
        let download = pip::wheel(&LIBCLANG)?;
        let staging = disk::Staging::beside(&place)?;
        wheel::unpack(&download.path, staging.path())?;
        staging.publish(&place)?;
    }
    Ok(place.join("clang/native"))
}

/// The wheel has no `stdbool.h` and its like; the compiler that is there does.
fn compiler_headers() -> Result<String> {
    let path =
        command::output(Command::new("c++").arg("-print-file-name=include")).context("a C++ compiler is needed")?;
    Ok(Path::new(path.trim()).display().to_string())
}
