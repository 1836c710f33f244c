//! The gRPC port of the binary, on real weights, under Google's own Python client.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use vllm_tests::{Server, python};

/// Where it listens for gRPC, as it says.
fn address(server: &Server) -> String {
    let log = server.log();
    let line = log.lines().find_map(|line| line.strip_prefix("listening on grpc://"));
    line.unwrap_or_else(|| panic!("no port for gRPC:\n{log}")).to_owned()
}

#[test]
fn the_official_python_client_gets_what_http_s_gets() {
    let server = Server::smollm2(&["--grpc-port", "0", "--served-model-name", "smollm2"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/grpc_client.py");
    let arguments = [address(&server), server.url(""), "smollm2".to_owned()];
    let out = Command::new(python()).arg(script).args(arguments).output().expect("run Python");
    let (stdout, stderr) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{stdout}{stderr}\nserver:\n{}", server.log());
    assert!(stdout.contains("all cases passed"), "{stdout}");
}

#[test]
fn a_call_under_way_survives_a_sigterm() {
    let mut server = Server::smollm2(&["--grpc-port", "0"]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/grpc_drain.py");
    let mut client = Command::new(python());
    let client = client.arg(script).arg(address(&server)).stdout(Stdio::piped());
    let mut client = client.spawn().expect("run Python");
    let mut said = BufReader::new(client.stdout.take().expect("a piped stdout"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "under way", "server:\n{}", server.log());
    server.signal("TERM");
    line.clear();
    said.read_line(&mut line).expect("a line");
    assert_eq!(line.trim(), "NOT_SERVING, then all 200 tokens", "server:\n{}", server.log());
    assert!(client.wait().expect("its end").success());
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}
