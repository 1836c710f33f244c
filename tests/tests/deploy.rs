//! What lies under `deploy/`: manifests against schemas and the real programs, units against their readers, the script by running it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use vllm_tests::{Server, binary, chat, free_port, get, python, smollm2};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy").canonicalize().expect("deploy/")
}

/// What `python/deploy.py` found, after its own checks.
fn checked() -> Value {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("python/deploy.py");
    let out = Command::new(python()).arg(script).arg(folder()).output().expect("run Python");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

fn texts(value: &Value) -> Vec<String> {
    let texts = value.as_array().expect("a list").iter().map(|text| text.as_str().expect("a text").to_owned());
    texts.collect()
}

/// Settings for a server on a free port, in a file of `place`.
fn settings(place: &Path) -> (PathBuf, u16) {
    let (path, port) = (place.join("serve.toml"), free_port());
    let text = format!("model = {:?}\nserved-model-name = [\"smollm2\"]\nport = {port}\n", smollm2());
    fs::write(&path, text).expect("write the settings");
    (path, port)
}

/// Runs a command line of a unit with the program and the settings of this test in their places; stops it as a service manager does.
fn serves_until_told_to_stop(command: &[String]) {
    let place = tempfile::tempdir().expect("a folder");
    let (path, port) = settings(place.path());
    assert!(
        command[0].ends_with("/vllm-mlx") && command.last().is_some_and(|last| last.ends_with("/serve.toml")),
        "{command:?}"
    );
    let mut server = Server::spawn(Command::new(binary()).args(&command[1..command.len() - 1]).arg(path), port);
    server.wait_ready();
    server.signal("HUP");
    let (status, body) =
        server.post("/v1/completions", &json!({ "model": "smollm2", "prompt": "1, 2,", "max_tokens": 4 }));
    assert_eq!(status, 200, "{body}\n{}", server.log());
    server.signal("TERM");
    assert_eq!(server.wait_exit(), Some(0), "{}", server.log());
}

#[test]
fn manifests_are_valid_and_say_what_the_server_understands() {
    let told = checked();
    let (port, grpc) = (free_port(), free_port());
    let args = texts(&told["worker"]["args"]).into_iter().map(|arg| match arg.as_str() {
        "/models/model" => smollm2().to_str().expect("a UTF-8 path").to_owned(),
        "--host=0.0.0.0" => "--host=127.0.0.1".to_owned(),
        "--port=8000" => format!("--port={port}"),
        "--grpc-port=50051" => format!("--grpc-port={grpc}"),
        _ => arg,
    });
    let server = Server::spawn(Command::new(binary()).args(args), port);
    let probes = told["worker"]["probes"].as_object().expect("probes");
    assert_eq!(probes.keys().collect::<Vec<_>>(), ["startupProbe", "readinessProbe", "livenessProbe"]);
    server.wait_ready();
    for (probe, path) in probes {
        let path = path.as_str().expect("a path");
        assert_eq!(server.get(path).expect("an answer").0, 200, "{probe}: {path}");
    }
    let pool = fs::read_to_string(folder().join("kubernetes/inference-pool.yaml")).expect("the pool");
    let metrics = server.text(told["worker"]["metrics"].as_str().expect("a path"));
    let named: Vec<&str> = pool.split('`').filter(|word| word.starts_with("vllm:")).collect();
    assert_eq!(named.len(), 6, "{named:?}");
    for name in named {
        assert!(metrics.lines().any(|line| line.starts_with(&format!("{name}{{"))), "no {name} in\n{metrics}");
    }
}

#[test]
fn the_mac_s_unit_starts_and_stops_the_server() {
    serves_until_told_to_stop(&texts(&checked()["launchd"]));
}

#[cfg(target_os = "linux")]
#[test]
fn the_systemd_unit_is_valid_and_starts_and_stops_the_server() {
    let text = fs::read_to_string(folder().join("systemd/vllm-mlx.service")).expect("the unit");
    let setting = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).expect(name);
    let command: Vec<String> = setting("ExecStart=").split(' ').map(str::to_owned).collect();
    assert_eq!((setting("KillSignal="), setting("ExecReload=")), ("SIGTERM", "/bin/kill -HUP $MAINPID"));
    // Only systems that run systemd have its own reader.
    let place = tempfile::tempdir().expect("a folder");
    let unit = place.path().join("vllm-mlx.service");
    fs::write(&unit, text.replace(&command[0], binary().to_str().expect("a UTF-8 path"))).expect("write the unit");
    if let Ok(out) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output() {
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success() && !said.contains("vllm-mlx.service"), "{said}");
    }
    serves_until_told_to_stop(&command);
}

/// A port with free ones above it, for the script.
fn ports(count: u16) -> u16 {
    (0..100)
        .map(|_| free_port())
        .find(|&first| {
            (first..first.saturating_add(count)).all(|port| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok())
        })
        .expect("free ports in a row")
}

/// Processes whose command line has both texts.
fn processes(first: &str, second: &str) -> Vec<String> {
    let out = Command::new("ps").args(["-eo", "pid=,args="]).output().expect("run ps");
    let lines = String::from_utf8_lossy(&out.stdout).into_owned();
    let found = lines.lines().filter(|line| line.contains(first) && line.contains(second));
    found.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

/// The script. If a check fails, it is told to stop all the same: what it has started would outlive it otherwise.
struct Fleet(Server);

impl Drop for Fleet {
    fn drop(&mut self) {
        if thread::panicking() && self.0.is_running() {
            self.0.signal("TERM");
            thread::sleep(Duration::from_secs(5));
        }
    }
}

fn is_busy(port: u16) -> bool {
    get(&format!("http://127.0.0.1:{port}/v1/status")).is_ok_and(|(_, status)| status["num_running"].as_u64() > Some(0))
}

#[test]
fn the_script_keeps_a_fleet_over_http_and_takes_it_down_in_order() {
    keeps_a_fleet_and_takes_it_down_in_order("http");
}

#[test]
fn the_script_keeps_a_fleet_over_grpc_and_takes_it_down_in_order() {
    keeps_a_fleet_and_takes_it_down_in_order("grpc");
}

fn keeps_a_fleet_and_takes_it_down_in_order(wire: &str) {
    let port = ports(8);
    let logs = tempfile::tempdir().expect("a folder");
    let smg = python().with_file_name("smg");
    let mut command = Command::new(folder().join("fleet.sh"));
    command.env("VLLM_MLX", binary()).env("GATEWAY", smg).env("GATEWAY_FLAGS", "--worker-stall-secs 1");
    command.args(["-n", "2", "-p", &port.to_string(), "-g", "smg", "-w", wire, "-l"]).arg(logs.path());
    command.arg(smollm2()).args(["--served-model-name", "smollm2", "--threads", "1"]);
    let mut script = Fleet(Server::spawn(&mut command, port));
    let fleet = &mut script.0;
    let log = |name: &str| fs::read_to_string(logs.path().join(name)).unwrap_or_default();
    let all = || format!("{}\n{}\n{}", log("worker-1.log"), log("worker-2.log"), log("gateway.log"));
    fleet.wait_until("the fleet", |fleet| fleet.log().contains("2 workers behind smg"));
    let known = |count: usize| {
        move |fleet: &Server| {
            let workers =
                fleet.get("/workers").map(|(_, body)| body["workers"].as_array().cloned().unwrap_or_default());
            workers.is_ok_and(|workers| workers.iter().filter(|worker| worker["is_healthy"] == true).count() == count)
        }
    };
    fleet.wait_until("two healthy workers", known(2));
    for path in texts(&json!(checked()["gateway"]["probes"].as_object().expect("probes").values().collect::<Vec<_>>()))
    {
        assert_eq!(fleet.get(&path).expect("an answer").0, 200, "{path}");
    }
    let body = |max_tokens: usize| {
        json!({ "model": "smollm2", "messages": [{ "role": "user", "content": "Count to a hundred." }], "temperature": 0,
            "max_tokens": max_tokens, "ignore_eos": true })
    };
    // SMG fetches a tokenizer after it has listed the worker that it comes from.
    fleet.wait_until("an answer", |fleet| chat(fleet, &body(1)).fault.is_none());
    let short = chat(fleet, &body(8));
    assert_eq!((&short.fault, short.usage.1), (&None, 8), "{}", all());

    // A worker that dies comes back.
    let second = format!("--port {}", port + 4);
    let worker = processes("vllm-mlx", &second);
    assert_eq!(worker.len(), 1, "{worker:?}");
    assert!(Command::new("kill").args(["-s", "KILL", &worker[0]]).status().expect("run kill").success());
    fleet.wait_until("another in its place", |fleet| {
        fleet.log().contains("worker-2 ended with")
            && processes("vllm-mlx", &second).iter().any(|pid| *pid != worker[0])
    });
    let ready = format!("http://127.0.0.1:{}/ready", port + 4);
    fleet.wait_until("its model", |_| matches!(get(&ready), Ok((200, _))));
    fleet.wait_until("two healthy workers again", known(2));

    // What runs when it is told to stop is answered.
    let long = thread::scope(|scope| {
        let long = scope.spawn(|| chat(fleet, &body(200)));
        fleet.wait_until("a running request", |_| [port + 2, port + 4].into_iter().any(is_busy));
        fleet.signal("TERM");
        long.join().expect("an answer")
    });
    assert_eq!((&long.fault, long.usage.1), (&None, 200), "{long:?}\n{}", all());
    assert_eq!(fleet.wait_exit(), Some(0), "{}\n{}", fleet.log(), all());
    assert_eq!(processes("vllm-mlx", &format!("--port {}", port + 2)), [""; 0], "{}", all());
    assert_eq!(processes("vllm-mlx", &second), [""; 0], "{}", all());
    assert!(log("worker-1.log").contains("finishing the requests under way"), "{}", all());
}
