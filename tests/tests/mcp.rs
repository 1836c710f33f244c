//! MCP servers made with the official SDK, behind the real server.

use std::{
    env, fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vllm_tests::{Server, python, run};

const PATIENCE: Duration = Duration::from_secs(120);

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("python/mcp_server.py")
}

/// The SDK's server over HTTP, killed in the end.
struct Tools {
    process: Child,
    url: String,
}

impl Tools {
    fn start(flag: &[&str]) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let process = Command::new(python())
            .arg(script())
            .arg(port.to_string())
            .args(flag)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("run Python");
        let tools = Self { process, url: format!("http://127.0.0.1:{port}/mcp") };
        let start = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "the SDK's server does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        tools
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A file for this test, gone with it.
struct File(PathBuf);

impl File {
    fn new(name: &str, text: &str) -> Self {
        let path = env::temp_dir().join(format!("vllm-mlx-{}-{name}", std::process::id()));
        fs::write(&path, text).expect("a temporary file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("a UTF-8 path")
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

#[test]
fn servers_of_the_official_sdk_are_used() {
    let (streams, whole) = (Tools::start(&[]), Tools::start(&["--json"]));
    let config = json!({ "mcpServers": {
        "process": { "command": python(), "args": [script()] },
        "streams": { "type": "http", "url": streams.url },
        "whole": { "url": whole.url },
        "missing": { "command": "no-such-program-anywhere" },
    } });
    let file = File::new("mcp.json", &config.to_string());
    let mut server = Server::smollm2(&["--mcp-config", file.path()]);

    let start = Instant::now();
    let servers = loop {
        let (_, body) = server.get("/v1/mcp/servers").expect("an answer");
        let connecting = |server: &Value| server["state"] == "connecting" && server["error"].is_null();
        if !body["servers"].as_array().expect("servers").iter().any(connecting) {
            break body;
        }
        assert!(start.elapsed() < PATIENCE, "{body}");
        thread::sleep(Duration::from_millis(50));
    };
    for (name, state, transport, tools) in [
        ("missing", "error", "stdio", 0),
        ("process", "connected", "stdio", 2),
        ("streams", "connected", "http", 2),
        ("whole", "connected", "http", 2),
    ] {
        let found = servers["servers"].as_array().expect("servers").iter().find(|server| server["name"] == name);
        let found = found.unwrap_or_else(|| panic!("no {name}: {servers}"));
        // The one that is missing is tried again and again.
        let state_fits = found["state"] == state || (state == "error" && found["state"] == "connecting");
        assert!(state_fits && found["transport"] == transport && found["tools_count"] == tools, "{found}");
    }

    let (_, tools) = server.get("/v1/mcp/tools").expect("an answer");
    assert_eq!(tools["count"], 6, "{tools}");
    for name in ["process", "streams", "whole"] {
        let execute = |tool: &str, arguments: Value| {
            server.post("/v1/mcp/execute", &json!({ "tool_name": format!("{name}__{tool}"), "arguments": arguments }))
        };
        let (status, sum) = execute("add", json!({ "a": 2, "b": 40 }));
        assert_eq!((status, &sum["content"], &sum["is_error"]), (200, &json!("42"), &json!(false)), "{name}: {sum}");
        let (status, failed) = execute("broken", json!({}));
        assert_eq!((status, &failed["is_error"]), (200, &json!(true)), "{name}: {failed}");
        assert!(failed["error_message"].as_str().is_some_and(|text| text.contains("broken")), "{failed}");
        let (status, body) = execute("add", json!({ "a": 2 }));
        assert_eq!((status, &body["error"]["param"]), (400, &json!("arguments")), "{name}: {body}");
        assert_eq!(execute("none", json!({})).0, 404, "{name}");
    }

    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn a_configuration_with_a_fault_is_refused_at_once() {
    let cases = [
        (r#"{ "servers": { "s": { "comand": "x" } } }"#, "unknown field `comand`"),
        (r#"{ "servers": { "s": { "command": "x", "env": { "LD_PRELOAD": "y" } } } }"#, "LD_PRELOAD is refused"),
    ];
    for (text, wanted) in cases {
        let file = File::new("faulty.json", text);
        let out = run(&["serve", "no-such-model", "--port", "0", "--mcp-config", file.path()]);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(!out.status.success() && stderr.lines().count() == 1 && stderr.contains(wanted), "{stderr}");
    }
}
