//! Compiles mlx-c and our C++ shim against a prebuilt MLX and links its library.
//!
//! Where that MLX stands (the *prefix*) is decided here, first hit wins:
//! 1. `MLX_PREFIX`;
//! 2. `<target dir>/mlx/current`, for the target folder this build writes to;
//! 3. `<workspace>/target/mlx/current`.
//!
//! The last two are what `cargo xtask setup` makes. The build fetches nothing.

use std::{
    env, fmt, fs,
    path::{Path, PathBuf},
    process::exit,
};

fn main() {
    for var in ["MLX_PREFIX", "MLX_C_SOURCE", "CXX", "CXXFLAGS"] {
        println!("cargo::rerun-if-env-changed={var}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=src/cpp");
    if let Err(message) = build() {
        println!("cargo::error={message}");
        exit(1);
    }
}

fn build() -> Result<(), String> {
    let prefix = Prefix::find()?;
    compile(&prefix);
    link(&prefix)?;
    // Direct dependants see these as DEP_MLX_PREFIX, DEP_MLX_LIB, ... in their build scripts.
    println!("cargo::metadata=prefix={}", prefix.root.display());
    println!("cargo::metadata=include={}", prefix.include.display());
    println!("cargo::metadata=lib={}", prefix.lib.display());
    println!("cargo::metadata=mlx_c={}", prefix.mlx_c.display());
    println!("cargo::metadata=version={}", prefix.version);
    Ok(())
}

/// A prebuilt MLX with its headers, and the mlx-c sources that go with it.
struct Prefix {
    root: PathBuf,
    include: PathBuf,
    lib: PathBuf,
    mlx_c: PathBuf,
    version: Version,
}

impl Prefix {
    fn find() -> Result<Self, String> {
        let mut tried = Vec::new();
        for root in candidates() {
            if root.join("include/mlx/mlx.h").is_file() {
                return Self::open(&root);
            }
            tried.push(root.display().to_string());
        }
        Err(format!(
            "no MLX found (no include/mlx/mlx.h in {}). Run `cargo xtask setup`, or set MLX_PREFIX to a folder with include/mlx and lib/libmlx",
            tried.join(", ")
        ))
    }

    fn open(root: &Path) -> Result<Self, String> {
        // Setup touches this file when it selects another MLX: the link behind `current` may well point to files older than this build.
        if let Some(parent) = root.parent() {
            let selected = parent.join("selected");
            if selected.is_file() {
                println!("cargo::rerun-if-changed={}", selected.display());
            }
        }
        println!("cargo::rerun-if-changed={}", root.join("include/mlx/version.h").display());
        let root = root.canonicalize().map_err(|error| format!("{}: {error}", root.display()))?;
        let lib = root.join("lib");
        let name = if target_os() == "macos" { "libmlx.dylib" } else { "libmlx.so" };
        if !lib.join(name).is_file() {
            return Err(format!(
                "{} is not there: MLX_PREFIX must hold a shared MLX (a wheel of PyPI, Homebrew's or Nix's mlx), or run `cargo xtask setup`",
                lib.join(name).display()
            ));
        }
        let version = Version::read(&root.join("include/mlx/version.h"))?;
        if (version.major, version.minor) != (0, 32) {
            println!("cargo::warning=MLX {version} at {}: mlx-c 0.7.0 was written for MLX 0.32", root.display());
        }
        Ok(Self { include: root.join("include"), lib, mlx_c: mlx_c_source(&root)?, version, root })
    }
}

fn candidates() -> Vec<PathBuf> {
    if let Some(prefix) = env::var_os("MLX_PREFIX").filter(|value| !value.is_empty()) {
        return vec![PathBuf::from(prefix)];
    }
    // OUT_DIR is <target dir>/[<triple>/]<profile>/build/<package>/out.
    let mut found: Vec<PathBuf> = out_dir().ancestors().skip(4).take(2).map(|dir| dir.join("mlx/current")).collect();
    found.push(manifest_dir().join("../../target/mlx/current"));
    found
}

/// mlx-c stands in the prefix that setup makes; for a foreign prefix (Homebrew, Nix), setup puts it under `target/mlx/mlx-c`.
fn mlx_c_source(root: &Path) -> Result<PathBuf, String> {
    let mut places = Vec::new();
    if let Some(source) = env::var_os("MLX_C_SOURCE").filter(|value| !value.is_empty()) {
        places.push(PathBuf::from(source));
    } else {
        places.push(root.join("mlx-c"));
        places.extend(out_dir().ancestors().skip(4).take(2).map(|dir| dir.join("mlx/mlx-c")));
        places.push(manifest_dir().join("../../target/mlx/mlx-c"));
    }
    places.iter().find(|place| place.join("mlx/c/mlx.h").is_file()).cloned().ok_or_else(|| {
        let places: Vec<String> = places.iter().map(|place| place.display().to_string()).collect();
        format!("no mlx-c sources (no mlx/c/mlx.h in {}). Run `cargo xtask setup`", places.join(", "))
    })
}

fn compile(prefix: &Prefix) {
    let own = manifest_dir().join("src/cpp");
    let mut common = cc::Build::new();
    common
        .cpp(true)
        .std("c++20")
        // Thin wrappers: unoptimised they would cost as much as the calls they wrap.
        .opt_level(2)
        .debug(false)
        .include(&own);
    // System folders: their warnings are not ours.
    for folder in [&prefix.mlx_c, &prefix.include] {
        common.flag("-isystem").flag(folder);
    }

    common.flag("-include").flag(own.join("prelude.h"));

    common.clone().warnings(true).files(cpp_files(&own)).compile("mlxshim");

    // A minute's work that depends on the prefix alone: a change to our own sources must not repeat it.
    let stamp = out_dir().join("mlxc.stamp");
    let prelude = fs::read_to_string(own.join("prelude.h")).unwrap_or_default();
    let key = format!("{} {} {:?}\n{prelude}", prefix.root.display(), prefix.version, env::var_os("CXX"));
    if fs::read_to_string(&stamp).is_ok_and(|built| built == key) {
        println!("cargo::rustc-link-search=native={}", out_dir().display());
        println!("cargo::rustc-link-lib=static=mlxc");
        return;
    }
    common.warnings(false).files(cpp_files(&prefix.mlx_c.join("mlx/c"))).compile("mlxc");
    // Without the stamp the next build compiles again, which is slower and no worse.
    let _ = fs::write(&stamp, key);
}

fn cpp_files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "cpp"))
        .collect();
    files.sort();
    files
}

fn link(prefix: &Prefix) -> Result<(), String> {
    // Cargo puts link-search folders on the library path of `cargo run` and `cargo test`, but only those inside its own output folder.
    // A link there to the real folder is enough, and the loader's $ORIGIN still reaches what stands beside the real one.
    let inside = out_dir().join("lib");
    if inside.symlink_metadata().is_ok() {
        fs::remove_file(&inside).map_err(|error| format!("{}: {error}", inside.display()))?;
    }
    symlink(&prefix.lib, &inside).map_err(|error| format!("{}: {error}", inside.display()))?;
    println!("cargo::rustc-link-search=native={}", inside.display());
    println!("cargo::rustc-link-lib=dylib=mlx");
    // This crate's own tests and examples; a binary says the same in its own build script (README).
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", prefix.lib.display());
    Ok(())
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("mlx-sys builds on Linux and macOS only"))
}

struct Version {
    major: u32,
    minor: u32,
    patch: u32,
}

impl Version {
    fn read(header: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(header).map_err(|error| format!("{}: {error}", header.display()))?;
        let part = |name: &str| {
            text.lines()
                .filter_map(|line| line.trim().strip_prefix("#define"))
                .filter_map(|line| line.trim().strip_prefix(name))
                .find_map(|value| value.trim().parse().ok())
                .ok_or_else(|| format!("{}: no {name}; is this an MLX header?", header.display()))
        };
        Ok(Self {
            major: part("MLX_VERSION_MAJOR")?,
            minor: part("MLX_VERSION_MINOR")?,
            patch: part("MLX_VERSION_PATCH")?,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

fn out_dir() -> PathBuf {
    PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"))
}

fn manifest_dir() -> PathBuf {
    PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR"))
}

fn target_os() -> String {
    env::var("CARGO_CFG_TARGET_OS").expect("cargo sets CARGO_CFG_TARGET_OS")
}
