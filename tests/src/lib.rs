//! What the end-to-end tests share: the binary, the model, and a server that dies with its test.
//!
//! Nothing here is skipped when something is missing: the binary, the weights and the Python environment come from
//! `cargo xtask test`, and a test that doesn't find them says so and fails.

use std::{
    env,
    io::{BufRead, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

/// Longer than any step here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// The target folder: tests run from `target/<profile>/deps`.
///
/// # Panics
/// If the test runs from anywhere else.
#[must_use]
pub fn target_dir() -> PathBuf {
    let exe = env::current_exe().expect("the test's own path");
    exe.ancestors().nth(3).expect("target/<profile>/deps/<test>").to_path_buf()
}

/// The `vllm-mlx` built with the tests.
///
/// # Panics
/// If it isn't built.
#[must_use]
pub fn binary() -> PathBuf {
    let exe = env::current_exe().expect("the test's own path");
    let path = exe.ancestors().nth(2).expect("target/<profile>/deps/<test>").join("vllm-mlx");
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which builds it", path.display());
    path
}

/// SmolLM2-135M-Instruct as GGUF.
///
/// # Panics
/// If it wasn't fetched.
#[must_use]
pub fn smollm2() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models");
    let path = root.join("smollm2/SmolLM2-135M-Instruct.Q4_1.gguf");
    assert!(path.exists(), "{} is missing: run `cargo xtask models fetch smollm2`", path.display());
    path.canonicalize().expect("an existing path")
}

/// all-MiniLM-L6-v2's folder.
///
/// # Panics
/// If it wasn't fetched.
#[must_use]
pub fn minilm() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models/minilm");
    assert!(path.join("config.json").exists(), "{} is missing: run `cargo xtask models fetch minilm`", path.display());
    path.canonicalize().expect("an existing path")
}

/// A folder that `cargo xtask models fetch` makes.
///
/// # Panics
/// If it wasn't fetched.
#[must_use]
pub fn fetched(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/models").join(name);
    assert!(path.is_dir(), "{} is missing: run `cargo xtask models fetch {name}`", path.display());
    path.canonicalize().expect("an existing path").to_str().expect("a UTF-8 path").to_owned()
}

/// A folder of `fixtures`: `seeing` is a tiny model of random weights that sees, `pictures` is what it is shown.
///
/// # Panics
/// If there is none of that name.
#[must_use]
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    assert!(path.is_dir(), "{} is missing", path.display());
    path.to_str().expect("a UTF-8 path").to_owned()
}

/// The Python of the environment that holds the client SDKs.
///
/// # Panics
/// If it wasn't made.
#[must_use]
pub fn python() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/venv/bin/python");
    assert!(path.exists(), "{} is missing: run `cargo xtask test`, which makes it", path.display());
    path
}

/// Runs `vllm-mlx` to its end.
///
/// # Panics
/// If it cannot be started.
#[must_use]
pub fn run(args: &[&str]) -> Output {
    Command::new(binary()).args(args).stdin(Stdio::null()).output().expect("start vllm-mlx")
}

/// A `vllm-mlx serve` on a free port, killed when dropped.
pub struct Server {
    child: Child,
    port: u16,
    log: Arc<Mutex<String>>,
}

impl Server {
    /// Starts one on SmolLM2 and waits until it is ready. `args` follow the model.
    ///
    /// # Panics
    /// If it isn't ready in time.
    #[must_use]
    pub fn smollm2(args: &[&str]) -> Self {
        let server = Self::start(smollm2().to_str().expect("a UTF-8 path"), args);
        server.wait_ready();
        server
    }

    /// Starts one without waiting; without a model of its own if `model` is empty.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(model: &str, args: &[&str]) -> Self {
        let model: &[&str] = if model.is_empty() { &[] } else { &[model] };
        Self::start_with(&[model, args].concat())
    }

    /// The same, for a model that isn't necessarily the first argument.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_with(args: &[&str]) -> Self {
        Self::start_in(&[], args)
    }

    /// The same, with these variables.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start_in(variables: &[(&str, &Path)], args: &[&str]) -> Self {
        let port = free_port();
        let mut child = Command::new(binary())
            .envs(variables.iter().copied())
            .args(["serve", "--host", "127.0.0.1", "--port", &port.to_string()])
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start vllm-mlx serve");
        let stderr = child.stderr.take().expect("a piped stderr");
        let log = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = copy.lock().expect("an unpoisoned log");
                log.push_str(&line);
                log.push('\n');
            }
        });
        Self { child, port, log }
    }

    /// Waits until `/health` says 200.
    ///
    /// # Panics
    /// If it doesn't in time, with the server's log.
    pub fn wait_ready(&self) {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if matches!(self.get("/health"), Ok((200, _))) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the server isn't ready after {PATIENCE:?}:\n{}", self.log());
    }

    /// `http://127.0.0.1:PORT` + `path`.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// The port it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it has written to stderr so far.
    ///
    /// # Panics
    /// If the thread that reads it has panicked.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("an unpoisoned log").clone()
    }

    /// GET: status and JSON body (`null` if it isn't JSON).
    ///
    /// # Errors
    /// If nobody answers.
    pub fn get(&self, path: &str) -> Result<(u16, Value), ureq::Error> {
        let mut response = agent().get(self.url(path)).call()?;
        Ok((response.status().as_u16(), response.body_mut().read_json().unwrap_or_default()))
    }

    /// DELETE: status and JSON body.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn delete(&self, path: &str) -> Result<(u16, Value), ureq::Error> {
        let mut response = agent().delete(self.url(path)).call()?;
        Ok((response.status().as_u16(), response.body_mut().read_json().unwrap_or_default()))
    }

    /// POST of a JSON value: status and JSON body.
    ///
    /// # Panics
    /// If nobody answers, or not in JSON.
    #[must_use]
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        self.post_bytes(path, body.to_string().as_bytes())
    }

    /// POST of anything as `application/json`: status and JSON body.
    ///
    /// # Panics
    /// If nobody answers, or not in JSON.
    #[must_use]
    pub fn post_bytes(&self, path: &str, body: &[u8]) -> (u16, Value) {
        let mut response = agent()
            .post(self.url(path))
            .header("content-type", "application/json")
            .send(body)
            .unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()));
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().expect("a body in UTF-8");
        (status, serde_json::from_str(&text).unwrap_or_else(|e| panic!("POST {path}: {e} in {text:?}")))
    }

    /// POST of a streaming request: the `data:` payloads of the server-sent events, in order.
    ///
    /// # Panics
    /// If nobody answers, or not with 200.
    #[must_use]
    pub fn stream(&self, path: &str, body: &Value) -> Vec<String> {
        let mut response = agent()
            .post(self.url(path))
            .header("content-type", "application/json")
            .send(body.to_string().as_bytes())
            .unwrap_or_else(|e| panic!("POST {path}: {e}\n{}", self.log()));
        assert_eq!(response.status().as_u16(), 200);
        let lines = BufReader::new(response.body_mut().as_reader()).lines().map_while(Result::ok);
        lines.filter_map(|line| line.strip_prefix("data: ").map(Into::into)).collect()
    }

    /// Sends the signal `name`, e.g. `TERM`.
    ///
    /// # Panics
    /// If `kill` cannot be run.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-s", name, &pid]).status().expect("run kill");
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// Waits for the process's end and gives its exit code.
    ///
    /// # Panics
    /// If it is still there after a long while.
    pub fn wait_exit(&mut self) -> Option<i32> {
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().expect("wait for the server") {
                return status.code();
            }
            thread::sleep(Duration::from_millis(10));
        }
        panic!("the server is still running after {PATIENCE:?}:\n{}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which is what some tests are about.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A client that reports every status as it is and reuses no connection.
fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(PATIENCE))
        .max_idle_connections(0)
        .build()
        .into()
}

/// A port that nobody listens on.
///
/// # Panics
/// If there is none.
#[must_use]
pub fn free_port() -> u16 {
    // Between here and the server's own bind another process could take it; nothing else here binds port 0.
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port()
}
