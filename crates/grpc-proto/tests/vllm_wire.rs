//! Our descriptors of vLLM's services against those of the files that the crate `vllm-proto` is made of.

use std::{path::PathBuf, process::Command};

use prost::Message as _;
use prost_types::{FileDescriptorProto, FileDescriptorSet};

#[test]
fn descriptors_are_those_of_the_crate_whose_types_we_use() {
    let output = Command::new(env!("CARGO")).args(["metadata", "--format-version", "1", "--offline"]).output().unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mut packages = metadata["packages"].as_array().unwrap().iter();
    let package = packages.find(|package| package["name"] == "vllm-proto").unwrap();
    let manifest = PathBuf::from(package["manifest_path"].as_str().unwrap());
    let theirs = protox::compile(["inference.proto", "control.proto"], [manifest.parent().unwrap()]).unwrap();
    let ours = FileDescriptorSet::decode(vllm_grpc_proto::VLLM_DESCRIPTORS).unwrap();
    let (ours, theirs) = (bare(ours), bare(theirs));
    assert_eq!(ours.iter().map(FileDescriptorProto::name).collect::<Vec<_>>().len(), 3, "with struct.proto");
    assert_eq!(ours, theirs);
}

/// Without comments, which are no part of the format.
fn bare(set: FileDescriptorSet) -> Vec<FileDescriptorProto> {
    set.file.into_iter().map(|file| FileDescriptorProto { source_code_info: None, ..file }).collect()
}
