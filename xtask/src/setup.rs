//! Prepares MLX under `target/mlx`:
//!
//! ```text
//! target/mlx/cpu-0.32.2/        the unpacked wheel, laid out as an installer would: libmlx finds its neighbours by relative paths
//!   mlx/{include,lib}           … of which this is the prefix
//! target/mlx/mlx-c              mlx-c's sources
//! target/mlx/current            link to the prefix in use
//! target/mlx/selected           the choice; written when it changes, which makes crates/mlx-sys build again
//! ```

mod mlx_c;
mod wheels;

use std::{
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::{Context, Result, bail};

use crate::{disk, paths, pip, wheel};

/// Which MLX to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Cpu,
    Cuda13,
    Metal,
    /// An installed MLX: Homebrew's, Nix's, one's own.
    Prefix(PathBuf),
}

impl Choice {
    /// What the wheels of this choice are listed under, and their folder is named after.
    fn kind(&self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda13 => "cuda13",
            Self::Metal => "metal",
            Self::Prefix(_) => "prefix",
        }
    }
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "cuda13" => Ok(Self::Cuda13),
            "metal" => Ok(Self::Metal),
            path if path.contains('/') => Ok(Self::Prefix(path.into())),
            _ => Err("expected cpu, cuda13, metal, or a folder with include/mlx and lib/libmlx".to_owned()),
        }
    }
}

/// Makes `target/mlx/current` a usable MLX. Without a choice, the last one stays.
pub fn run(choice: Option<Choice>) -> Result<()> {
    let choice = match choice.or_else(last_choice).unwrap_or_else(default_choice) {
        Choice::Prefix(path) => Choice::Prefix(std::path::absolute(path)?),
        official => official,
    };
    if is_ready(&choice) {
        return Ok(());
    }
    let _lock = disk::Lock::acquire()?;
    let prefix = match &choice {
        Choice::Prefix(path) => {
            let path = path.canonicalize().with_context(|| format!("no folder {}", path.display()))?;
            if !is_prefix(&path) {
                bail!("{} has no include/mlx/mlx.h and lib/libmlx.so or libmlx.dylib", path.display());
            }
            path
        }
        official => unpacked(official)?,
    };
    mlx_c::prepare()?;
    select(&choice, &prefix)?;
    eprintln!("MLX is ready: {}", prefix.display());
    Ok(())
}

fn is_ready(choice: &Choice) -> bool {
    is_prefix(&current()) && mlx_c::is_ready() && fs::read_to_string(selected()).is_ok_and(|text| text == memo(choice))
}

fn current() -> PathBuf {
    paths::mlx().join("current")
}

fn selected() -> PathBuf {
    paths::mlx().join("selected")
}

/// What `selected` says of a choice: the choice, and for a wheel its version.
fn memo(choice: &Choice) -> String {
    match choice {
        Choice::Prefix(path) => format!("{}\n", path.display()),
        official => format!("{} {}\n", official.kind(), wheels::MLX_VERSION),
    }
}

fn last_choice() -> Option<Choice> {
    choice_of(&fs::read_to_string(selected()).ok()?)
}

fn choice_of(memo: &str) -> Option<Choice> {
    let line = memo.trim_end();
    let official = line.split_once(' ').map(|(kind, _)| kind).filter(|kind| !kind.contains('/'));
    official.unwrap_or(line).parse().ok()
}

fn default_choice() -> Choice {
    if cfg!(target_os = "macos") { Choice::Metal } else { Choice::Cpu }
}

/// The prefix of an unpacked wheel, made if it isn't there.
fn unpacked(choice: &Choice) -> Result<PathBuf> {
    let kind = choice.kind();
    let place = paths::mlx().join(format!("{kind}-{}", wheels::MLX_VERSION));
    let prefix = place.join("mlx");
    if place.join(COMPLETE).is_file() {
        return Ok(prefix);
    }
    let list = wheels::find(kind, std::env::consts::OS, std::env::consts::ARCH, macos_major())?;
    let staging = disk::Staging::beside(&place)?;
    for pinned in &list {
        let download = pip::wheel(pinned)?;
        wheel::unpack(&download.path, staging.path())?;
    }
    if !is_prefix(&staging.path().join("mlx")) {
        bail!("{} {} has no mlx/include/mlx/mlx.h and mlx/lib/libmlx", list[0].package, list[0].version);
    }
    let contents: String =
        list.iter().map(|pinned| format!("{} {} {}\n", pinned.package, pinned.version, pinned.sha256)).collect();
    fs::write(staging.path().join(COMPLETE), contents)?;
    staging.publish(&place)?;
    Ok(prefix)
}

/// Written last into an unpacked folder.
const COMPLETE: &str = ".complete";

fn is_prefix(path: &Path) -> bool {
    path.join("include/mlx/mlx.h").is_file()
        && ["libmlx.so", "libmlx.dylib"].iter().any(|name| path.join("lib").join(name).is_file())
}

/// Points `current` at the prefix.
fn select(choice: &Choice, prefix: &Path) -> Result<()> {
    let (current, selected) = (current(), selected());
    // A link is replaced by renaming another one over it, so that there is always one or the other.
    let fresh = paths::mlx().join(".current.part");
    disk::remove(&fresh)?;
    let target = prefix.strip_prefix(paths::mlx()).unwrap_or(prefix);
    symlink(target, &fresh).with_context(|| format!("cannot link {}", fresh.display()))?;
    if current.symlink_metadata().is_ok_and(|found| found.is_dir()) {
        disk::remove(&current)?;
    }
    fs::rename(&fresh, &current).with_context(|| format!("cannot replace {}", current.display()))?;
    fs::write(&selected, memo(choice)).with_context(|| format!("cannot write {}", selected.display()))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("vllm-mlx builds on Linux and macOS only"))
}

/// The major version of macOS, which decides the wheel; 0 elsewhere.
fn macos_major() -> u32 {
    if !cfg!(target_os = "macos") {
        return 0;
    }
    let mut command = std::process::Command::new("sw_vers");
    crate::command::output(command.arg("-productVersion"))
        .ok()
        .and_then(|version| version.trim().split('.').next()?.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_named_or_folders() {
        let cases = [
            ("cpu", Some(Choice::Cpu)),
            ("cuda13", Some(Choice::Cuda13)),
            ("metal", Some(Choice::Metal)),
            ("/opt/homebrew/opt/mlx", Some(Choice::Prefix("/opt/homebrew/opt/mlx".into()))),
            ("./mlx", Some(Choice::Prefix("./mlx".into()))),
            ("cuda", None),
        ];
        for (text, wanted) in cases {
            assert_eq!(text.parse::<Choice>().ok(), wanted, "{text}");
        }
    }

    #[test]
    fn the_last_choice_is_remembered_across_versions() {
        let cases = [
            ("cpu 0.32.2\n", Some(Choice::Cpu)),
            ("metal 0.31.0\n", Some(Choice::Metal)),
            ("/opt/my mlx\n", Some(Choice::Prefix("/opt/my mlx".into()))),
            ("", None),
            ("nonsense", None),
        ];
        for (memo, wanted) in cases {
            assert_eq!(choice_of(memo), wanted, "{memo:?}");
        }
        for choice in [Choice::Cpu, Choice::Cuda13, Choice::Metal, Choice::Prefix("/a/b".into())] {
            assert_eq!(choice_of(&memo(&choice)), Some(choice));
        }
    }
}
