//! Loading the model that finds where somebody speaks.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, bail};
use vllm_checkpoint::hub::HubOptions;
use vllm_speech::vad::Silero;

use crate::model::{LoadObserver, resolve};

/// Loads Silero from its file, from the folder it is in, or from the hub. Blocks.
///
/// # Errors
/// If it isn't there, or is something else.
pub fn load_vad(model: &str, hub: &HubOptions, observer: &LoadObserver) -> anyhow::Result<Silero> {
    let path = Path::new(model);
    let file = if path.is_file() { path.to_owned() } else { weights_in(&resolve(model, hub, observer)?)? };
    Silero::load(&file).with_context(|| file.display().to_string())
}

/// The only file of weights in a folder.
fn weights_in(folder: &Path) -> anyhow::Result<PathBuf> {
    let shown = folder.display();
    let entries = fs::read_dir(folder).with_context(|| shown.to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == "safetensors")).collect();
    match (files.pop(), files.len()) {
        (Some(file), 0) => Ok(file),
        (None, _) => bail!("{shown} has no .safetensors file"),
        (Some(_), _) => bail!("{shown} has several .safetensors files: name one"),
    }
}
