//! LiteLLM, as a client of the server's OpenAI and Anthropic APIs.

use std::{path::Path, process::Command};

use vllm_tests::{Server, python};

#[test]
fn a_third_client_works_over_both_apis() {
    let server = Server::smollm2(&["--served-model-name", "smollm2"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/litellm_client.py");
    let mut command = Command::new(python());
    // It asks the network for prices otherwise.
    command.arg(script).arg(server.url("")).env("LITELLM_LOCAL_MODEL_COST_MAP", "True");
    let out = command.output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}
