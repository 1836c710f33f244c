//! The wire format that `vllm-grpc-proto` is held against is that of the package which SMG's makers publish.

use std::{path::Path, process::Command};

use vllm_tests::python;

#[test]
fn the_wire_format_written_down_is_the_published_one() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Command::new(python()).arg(root.join("python/smg_wire.py")).output().expect("run Python");
    let published = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{published}{}", String::from_utf8_lossy(&out.stderr));
    let path = root.join("../crates/grpc-proto/tests/smg_wire.txt");
    let written = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let written: Vec<&str> = written.lines().filter(|line| !line.starts_with('#')).collect();
    let differing: Vec<&str> = published.lines().filter(|line| !written.contains(line)).collect();
    assert!(differing.is_empty(), "not written down: {differing:#?}");
    assert_eq!(written.len(), published.lines().count(), "more is written down than is published");
}
