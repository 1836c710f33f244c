//! Downloads through pip, the registry's own client, which knows the user's mirrors, proxies and certificates.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{command, disk, paths, progress, wheel::Wheel};

/// A downloaded file, removed when dropped (pip keeps its own cache).
pub struct Download {
    pub path: PathBuf,
    folder: PathBuf,
}

impl Drop for Download {
    fn drop(&mut self) {
        // A leftover costs space, nothing else.
        let _ = disk::remove(&self.folder);
    }
}

/// Downloads a wheel and checks it by its hash.
pub fn wheel(wheel: &Wheel) -> Result<Download> {
    let mut options = vec!["--only-binary=:all:"];
    if wheel.platform != "any" {
        options.extend(["--platform", wheel.platform]);
    }
    let download = download(wheel.package, wheel.version, &options, wheel.bytes)?;
    let found = disk::sha256_file(&download.path)?;
    if found != wheel.sha256 {
        bail!(
            "{} {}: the file that pip brought has sha256 {found}, wanted {}. If a mirror serves something else under this version, take it \
             out of pip's configuration",
            wheel.package,
            wheel.version,
            wheel.sha256
        );
    }
    Ok(download)
}

/// Downloads a source distribution and checks it by its hash.
pub fn sdist(package: &str, version: &str, bytes: u64, sha256: &str, build_tools: &Path) -> Result<Download> {
    // pip asks the build backend for the metadata even of what it only downloads; without isolation it finds the one in the environment.
    let options = ["--no-binary=:all:", "--no-build-isolation"];
    let download = download_with(command_of(build_tools), package, version, &options, bytes)?;
    let found = disk::sha256_file(&download.path)?;
    if found != sha256 {
        bail!("{package} {version}: the file that pip brought has sha256 {found}, wanted {sha256}");
    }
    Ok(download)
}

fn command_of(python: &Path) -> std::process::Command {
    std::process::Command::new(python)
}

fn download(package: &str, version: &str, options: &[&str], bytes: u64) -> Result<Download> {
    download_with(command::python(), package, version, options, bytes)
}

fn download_with(
    mut python: std::process::Command,
    package: &str,
    version: &str,
    options: &[&str],
    bytes: u64,
) -> Result<Download> {
    let folder = paths::target().join("downloads").join(format!("{package}-{version}"));
    disk::remove(&folder)?;
    let (to, temp) = (folder.join("to"), folder.join("temp"));
    for dir in [&to, &temp] {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    let log = folder.join("log");
    let log_file = fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut download = Download { path: PathBuf::new(), folder };

    let child = python
        .args(["-m", "pip", "download", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--no-deps"])
        .args(options)
        .arg("--dest")
        .arg(&to)
        .arg(format!("{package}=={version}"))
        // pip writes here while it downloads: the only place where its progress can be seen from outside.
        .env("TMPDIR", &temp)
        .stdin(Stdio::null())
        .stdout(log_file.try_clone()?)
        .stderr(log_file)
        .spawn()
        .context("cannot start python3, which is needed with pip to download packages (set PYTHON to another one)")?;
    let what = if bytes == 0 {
        format!("downloading {package} {version}")
    } else {
        format!("downloading {package} {version} ({})", progress::megabytes(bytes))
    };
    let bar = progress::bytes(&what, bytes);
    let succeeded = watch(child, || bar.set_position(disk::tree_bytes(&temp).max(disk::tree_bytes(&to))))?;
    bar.finish_and_clear();
    if !succeeded {
        bail!("{}", explain(package, version, &fs::read_to_string(&log).unwrap_or_default()));
    }
    let mut files = fs::read_dir(&to)?.collect::<Result<Vec<_>, _>>()?;
    match (files.pop(), files.is_empty()) {
        (Some(file), true) => download.path = file.path(),
        _ => bail!("pip downloaded nothing, or several files, for {package}=={version}"),
    }
    Ok(download)
}

/// Waits for a child, calling `look` now and then. Says whether it succeeded.
fn watch(mut child: Child, look: impl Fn()) -> Result<bool> {
    loop {
        if let Some(status) = child.try_wait().context("cannot wait for pip")? {
            look();
            return Ok(status.success());
        }
        look();
        thread::sleep(Duration::from_millis(50));
    }
}

fn explain(package: &str, version: &str, log: &str) -> String {
    let said: Vec<&str> =
        log.lines().filter(|line| line.starts_with("ERROR:") || line.contains("No module named")).take(4).collect();
    let said = if said.is_empty() { log.lines().last().unwrap_or("nothing").to_owned() } else { said.join("\n  ") };
    if said.contains("No module named pip") {
        return "python3 has no pip: install it (python3 -m ensurepip, or your system's python3-pip), or set PYTHON to a Python that has it"
            .to_owned();
    }
    format!(
        "pip could not download {package}=={version}:\n  {said}\nOffline? Put the file into a folder and set PIP_FIND_LINKS to it (and \
         PIP_NO_INDEX=1), or point PIP_INDEX_URL at a mirror. For MLX itself, `cargo xtask setup --mlx /prefix` takes an installed one"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_say_what_to_do() {
        let cases = [
            ("no pip", "/usr/bin/python3: No module named pip\n", "ensurepip"),
            (
                "no such version",
                "WARNING: x\nERROR: No matching distribution found for a==1\n",
                "No matching distribution",
            ),
            ("offline", "ERROR: Could not find a version\n", "PIP_FIND_LINKS"),
            ("silent", "", "PIP_FIND_LINKS"),
        ];
        for (name, log, wanted) in cases {
            let message = explain("a", "1", log);
            assert!(message.contains(wanted), "{name}: {message}");
        }
    }
}
