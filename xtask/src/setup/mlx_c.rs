//! mlx-c's sources, which stand inside crates.io's `mlx-sys` package. Cargo itself fetches and checks that; we copy what we need.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{command, disk, paths, progress};

/// The package that carries mlx-c 0.7.0.
const PACKAGE: &str = "mlx-sys";
const VERSION: &str = "0.7.0";

/// The hash ([`disk::sha256_tree`]) of its `src/mlx-c/mlx`.
const TREE: &str = "5c0a404f60c885dab5fda45fcf190f160bc749387fc8348d25d8837662d73eb8";

/// Holds the hash, for a later version to see that these are other sources.
const STAMP: &str = ".complete";

fn place() -> PathBuf {
    paths::mlx().join("mlx-c")
}

pub fn is_ready() -> bool {
    place().join("mlx/c/mlx.h").is_file() && fs::read_to_string(place().join(STAMP)).is_ok_and(|stamp| stamp == TREE)
}

/// Makes `target/mlx/mlx-c`, if it isn't there.
pub fn prepare() -> Result<()> {
    if is_ready() {
        return Ok(());
    }
    let spinner = progress::spinner("fetching mlx-c's sources");
    let source = fetch()?.join("src/mlx-c");
    let staging = disk::Staging::beside(&place())?;
    disk::copy_tree(&source.join("mlx"), &staging.path().join("mlx"))?;
    fs::copy(source.join("LICENSE"), staging.path().join("LICENSE")).context("mlx-c has no LICENSE")?;
    let found = disk::sha256_tree(&staging.path().join("mlx"))?;
    if found != TREE {
        bail!("{}: the sources have hash {found}, wanted {TREE}", source.display());
    }
    fs::write(staging.path().join(STAMP), TREE)?;
    staging.publish(&place())?;
    spinner.finish_and_clear();
    Ok(())
}

/// Lets cargo fetch the package, by a manifest that depends on it, and says where it unpacked it.
fn fetch() -> Result<PathBuf> {
    let scratch = disk::Staging::beside(&paths::mlx().join("fetch"))?;
    let manifest = scratch.path().join("Cargo.toml");
    fs::create_dir(scratch.path().join("src"))?;
    fs::write(scratch.path().join("src/lib.rs"), "")?;
    // A workspace of its own: in ours, `mlx-sys` is our crate.
    fs::write(
        &manifest,
        format!(
            "[workspace]\n[package]\nname = \"fetch\"\nedition = \"2024\"\n[dependencies]\n{PACKAGE} = {{ version = \"={VERSION}\", \
             default-features = false }}\n"
        ),
    )?;
    let metadata = command::output(
        command::cargo().args(["metadata", "--format-version=1", "--manifest-path"]).arg(&manifest).current_dir(scratch.path()),
    )
    .with_context(|| {
        format!(
            "cargo could not fetch {PACKAGE} {VERSION}. Offline? Unpack mlx-c 0.7.0 anywhere and set MLX_C_SOURCE to it, or run this once \
             where the registry (or a mirror, by source replacement in cargo's configuration) can be reached"
        )
    })?;
    let metadata: Value = serde_json::from_str(&metadata).context("cargo metadata wrote something that is not JSON")?;
    metadata["packages"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|package| package["name"] == PACKAGE)
        .and_then(|package| PathBuf::from(package["manifest_path"].as_str()?).parent().map(PathBuf::from))
        .with_context(|| format!("cargo metadata does not name {PACKAGE}"))
}
