//! Where things stand.

use std::path::{Path, PathBuf};

/// The workspace's root folder.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask stands in the workspace's root").to_path_buf()
}

/// What the commands prepare goes here, wherever `CARGO_TARGET_DIR` sends the compiler's output: tests and build scripts look here.
pub fn target() -> PathBuf {
    root().join("target")
}

/// The unpacked MLX, and the link `current` to the one selected.
pub fn mlx() -> PathBuf {
    target().join("mlx")
}

/// Where cargo builds to.
pub fn cargo_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").filter(|dir| !dir.is_empty()).map_or_else(target, PathBuf::from)
}
