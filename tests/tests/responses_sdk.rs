//! The Responses API through OpenAI's own Python SDK.

use std::{path::Path, process::Command};

use vllm_tests::{Server, python};

#[test]
fn the_official_python_sdk_gets_responses() {
    let server = Server::smollm2(&["--served-model-name", "smollm2"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/responses_sdk.py");
    let out = Command::new(python()).arg(script).arg(server.url("/v1")).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}
