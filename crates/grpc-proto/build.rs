//! Compiles `proto/smg` without a protoc: Rust types and services, and the descriptors for server reflection.

use std::path::PathBuf;

use prost::Message as _;

const FOLDER: &str = "proto/smg";
const FILES: &[&str] = &["common.proto", "mlx_engine.proto", "vllm_engine.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={FOLDER}");
    let descriptors = protox::compile(FILES, [FOLDER])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR: this is run by cargo")?);
    std::fs::write(out.join("smg.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
