//! Compiles `proto/smg` without a protoc: Rust types and services, and the descriptors for server reflection; and of `proto/vllm`,
//! whose types are `vllm_proto`'s, the descriptors alone.

use std::path::PathBuf;

use prost::Message as _;

const FOLDER: &str = "proto/smg";
const FILES: &[&str] = &["common.proto", "mlx_engine.proto", "vllm_engine.proto"];

const VLLM_FOLDER: &str = "proto/vllm";
const VLLM_FILES: &[&str] = &["inference.proto", "control.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed={FOLDER}");
    let descriptors = protox::compile(FILES, [FOLDER])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("no OUT_DIR: this is run by cargo")?);
    std::fs::write(out.join("smg.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    println!("cargo:rerun-if-changed={VLLM_FOLDER}");
    let descriptors = protox::compile(VLLM_FILES, [VLLM_FOLDER])?;
    std::fs::write(out.join("vllm.bin"), descriptors.encode_to_vec())?;
    Ok(())
}
