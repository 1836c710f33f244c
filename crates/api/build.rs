//! Tells the binary where to find MLX: beside itself when installed, else where it was built against.

fn main() {
    let here = if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("macos") { "@loader_path" } else { "$ORIGIN" };
    println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{here}/../lib");
    if let Ok(lib) = std::env::var("DEP_MLX_LIB") {
        println!("cargo::rustc-link-arg-bins=-Wl,-rpath,{lib}");
    }
    println!("cargo::rerun-if-changed=build.rs");
}
