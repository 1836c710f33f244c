//! Where the file lies if nobody says.

use std::path::{Path, PathBuf};

/// `~/.config/vllm-mlx/mcp.json`, or `mcp.yaml`, or `mcp.yml`: the first that exists.
#[must_use]
pub fn default_path() -> Option<PathBuf> {
    first_in(&std::env::home_dir()?)
}

fn first_in(home: &Path) -> Option<PathBuf> {
    let folder = home.join(".config/vllm-mlx");
    let mut there =
        ["mcp.json", "mcp.yaml", "mcp.yml"].map(|name| folder.join(name)).into_iter().filter(|p| p.is_file());
    let first = there.next()?;
    for other in there {
        tracing::warn!(used = %first.display(), other = %other.display(), "two MCP configurations: only the first counts");
    }
    Some(first)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn json_comes_before_yaml() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join(".config/vllm-mlx");
        assert_eq!(first_in(home.path()), None);
        fs::create_dir_all(&folder).unwrap();
        for name in ["mcp.yml", "mcp.yaml", "mcp.json"] {
            fs::write(folder.join(name), "").unwrap();
            assert_eq!(first_in(home.path()), Some(folder.join(name)));
        }
    }
}
