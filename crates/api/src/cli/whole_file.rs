//! Files that are there as a whole or not at all.

use std::{io::Write as _, path::Path};

use anyhow::Context as _;

/// Writes a file: under another name first, so that nobody ever sees a part of it, and nothing is left of it if that fails.
///
/// # Errors
/// If its folder isn't there, or is full.
pub fn write(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        // As any other file: less what the user's mask takes away.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let shown = || format!("cannot write {}", path.display());
    let mut file = builder.prefix(".vllm-mlx-").tempfile_in(folder).with_context(shown)?;
    file.write_all(bytes).with_context(shown)?;
    file.persist(path).with_context(shown)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn all_or_nothing() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("a.txt");
        write(&path, b"one").unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        // A folder can't be written over.
        assert!(write(folder.path(), b"x").is_err());
        assert!(write(&folder.path().join("none/a.txt"), b"x").unwrap_err().to_string().contains("none/a.txt"));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
    }
}
