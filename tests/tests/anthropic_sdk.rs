//! Anthropic's own Python SDK against the server.

use std::{path::Path, process::Command};

use vllm_tests::{Server, python};

#[test]
fn the_official_python_sdk_works_unchanged() {
    let server = Server::smollm2(&["--served-model-name", "smollm2"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/anthropic_sdk.py");
    let out = Command::new(python()).arg(script).arg(server.url("")).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}
