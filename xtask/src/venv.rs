//! Python environments for tools and tests, made from pinned requirements.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use crate::{command, disk, progress};

/// Makes `folder` a virtual environment that holds what `requirements` names, and returns its Python. Does nothing if it is one already.
pub fn ready(folder: &Path, requirements: &str) -> Result<PathBuf> {
    if is_ready(folder, requirements) {
        return Ok(python_of(folder));
    }
    let _lock = disk::Lock::acquire()?;
    ready_locked(folder, requirements)
}

fn python_of(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

fn is_ready(folder: &Path, requirements: &str) -> bool {
    let made_from = fs::read_to_string(folder.join("requirements.txt"));
    made_from.is_ok_and(|made_from| made_from == requirements) && python_of(folder).exists()
}

/// [`ready`] for somebody who holds the [`disk::Lock`].
pub fn ready_locked(folder: &Path, requirements: &str) -> Result<PathBuf> {
    let python = python_of(folder);
    if is_ready(folder, requirements) {
        return Ok(python);
    }
    let spinner = progress::spinner(&format!("making the Python environment {}", folder.display()));
    // In its own place from the start: the paths inside an environment are absolute. The marker, written last, says that it is whole.
    disk::remove(folder)?;
    fs::create_dir_all(folder.parent().context("a folder inside another")?)?;
    command::output(command::python().args(["-m", "venv"]).arg(folder))
        .context("python3 cannot make virtual environments (on Debian: apt install python3-venv)")?;
    let wanted = folder.join("requirements.wanted");
    fs::write(&wanted, requirements)?;
    let mut pip = std::process::Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--quiet", "--requirement"])
        .arg(&wanted);
    command::output(&mut pip).context(
        "pip could not install the environment's packages. Offline? Set PIP_FIND_LINKS to a folder that holds them",
    )?;
    fs::rename(&wanted, folder.join("requirements.txt"))?;
    spinner.finish_and_clear();
    Ok(python)
}
