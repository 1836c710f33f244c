//! One model over several processes on loopback: the tokens of one process; clear errors where ranks don't go together; and what
//! happens when one dies.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vllm_tests::{Server, binary, free_port, smollm2};

const PATIENCE: Duration = Duration::from_secs(120);

/// A `vllm-mlx follow`, killed when dropped.
struct Follower {
    child: Child,
    port: u16,
    log: Arc<Mutex<String>>,
}

impl Follower {
    fn start(model: &Path, port: u16, variables: &[(&str, &Path)], args: &[&str]) -> Self {
        let mut child = Command::new(binary())
            .envs(variables.iter().copied())
            .arg("follow")
            .arg(model)
            .args(["--listen", &format!("127.0.0.1:{port}"), "--device", "cpu", "--threads", "1"])
            .args(["--kv-cache-memory", "256M"])
            .args(args)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start vllm-mlx follow");
        let stderr = child.stderr.take().expect("a piped stderr");
        let log = Arc::new(Mutex::new(String::new()));
        let copy = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                copy.lock().expect("an unpoisoned log").push_str(&(line + "\n"));
            }
        });
        Self { child, port, log }
    }

    fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn log(&self) -> String {
        self.log.lock().expect("an unpoisoned log").clone()
    }

    /// As if its machine had lost power.
    fn kill(&mut self) {
        self.child.kill().expect("a process to kill");
        self.child.wait().expect("its end");
    }

    fn wait_exit(&mut self) -> Option<i32> {
        let mut code = None;
        until("the follower ends", || {
            code = self.child.try_wait().expect("its status").map(|status| status.code());
            code.is_some()
        });
        code.flatten()
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "in vain: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// How a server ends, and the error it ends with.
fn ended(server: &mut Server) -> (Option<i32>, String) {
    let code = server.wait_exit();
    let mut error = None;
    until("it says why", || {
        error = server.log().lines().rfind(|line| line.starts_with("error: ")).map(Into::into);
        error.is_some()
    });
    (code, error.unwrap_or_default())
}

const OPTIONS: [&str; 8] =
    ["--device", "cpu", "--threads", "1", "--kv-cache-memory", "256M", "--served-model-name", "m"];

fn server(pipeline: &str, variables: &[(&str, &Path)], args: &[&str]) -> Server {
    let model = smollm2();
    let model = model.to_str().expect("a UTF-8 path");
    Server::start_in(variables, &[&[model, "--pipeline", pipeline][..], &OPTIONS, args].concat())
}

fn ask(prompt: &str, max_tokens: usize) -> Value {
    json!({ "model": "m", "prompt": prompt, "max_tokens": max_tokens, "temperature": 0, "logprobs": 1, "ignore_eos": true })
}

/// The answers' tokens to prompts that arrive together, the last two of which begin alike.
fn tokens(server: &Server) -> Vec<Value> {
    let long = "The sea is deep and the ship is old. ".repeat(24);
    let (sails, sinks) = (format!("{long}It sails"), format!("{long}It sinks"));
    let prompts = ["The capital of France is", "def add(a, b):", sails.as_str(), sinks.as_str()];
    let answer = |prompt: &str| {
        let (status, body) = server.post("/v1/completions", &ask(prompt, 24));
        assert_eq!(status, 200, "{body}\n{}", server.log());
        let tokens = body["choices"][0]["logprobs"]["tokens"].clone();
        assert_eq!(tokens.as_array().map(Vec::len), Some(24), "{body}");
        tokens
    };
    thread::scope(|scope| {
        let answers: Vec<_> = prompts.iter().map(|prompt| scope.spawn(|| answer(prompt))).collect();
        answers.into_iter().map(|answer| answer.join().expect("an answer")).collect()
    })
}

/// What one process answers.
fn wanted() -> Vec<Value> {
    tokens(&Server::smollm2(&OPTIONS))
}

/// An answer that is under way when `interrupt` is called: the error that ends it.
fn interrupted(server: &Server, interrupt: impl FnOnce()) -> String {
    let mut body = ask("Once upon a time", 1500);
    body["stream"] = true.into();
    thread::scope(|scope| {
        let answer = scope.spawn(|| server.stream("/v1/completions", &body));
        until("an answer is under way", || {
            server.get("/health").is_ok_and(|(_, health)| health["requests"]["running"] == 1)
        });
        thread::sleep(Duration::from_millis(300));
        interrupt();
        let events = answer.join().expect("an end of the stream");
        let error = events.iter().find(|event| event.contains("\"error\"")).cloned();
        error.unwrap_or_else(|| panic!("no error in {events:?}\n{}", server.log()))
    })
}

#[test]
fn two_and_three_processes_answer_as_one() {
    let (model, wanted) = (smollm2(), wanted());
    let token = tempfile::NamedTempFile::new().unwrap();
    fs::write(token.path(), "a secret\n").unwrap();
    let secret = ["--dist-token-file", token.path().to_str().unwrap()];
    for (ranks, split) in [(2, &[][..]), (3, &["--pipeline-split", "4,20,6"])] {
        let followers: Vec<_> = (1..ranks).map(|_| Follower::start(&model, free_port(), &[], &secret)).collect();
        let pipeline: Vec<_> = followers.iter().map(Follower::address).collect();
        let server = server(&pipeline.join(","), &[], &[&secret, split].concat());
        server.wait_ready();
        assert_eq!(tokens(&server), wanted, "{ranks} ranks");
        // Prefixes are found again.
        assert_eq!(tokens(&server), wanted, "{ranks} ranks, once more");
        if ranks == 3 {
            let log = server.log();
            for (rank, layers) in [("0 here", "26 to 29"), ("1 at ", "6 to 25"), ("2 at ", "0 to 5")] {
                let line = log.lines().find(|line| line.starts_with(&format!("rank {rank}")));
                assert!(line.is_some_and(|line| line.contains(&format!("layers {layers}"))), "{log}");
            }
        }
    }
}

#[test]
fn a_rank_that_dies_fails_its_requests_and_may_come_back() {
    let model = smollm2();
    let mut followers = [(); 2].map(|()| Follower::start(&model, free_port(), &[], &[]));
    let pipeline: Vec<_> = followers.iter().map(Follower::address).collect();
    let server = server(&pipeline.join(","), &[], &[]);
    server.wait_ready();
    let wanted = tokens(&server);
    // The last rank first, then rank 1: the one whose hidden states rank 0 waits for.
    for dies in [1, 0] {
        let (rank, address) = (dies + 1, followers[dies].address());
        let gone = format!("rank {rank} at {address}");
        let error = interrupted(&server, || followers[dies].kill());
        assert!(error.contains(&format!("{gone} is gone")), "{error}");

        let (status, ready) = server.get("/ready").unwrap();
        assert_eq!((status, &ready["status"]), (503, &json!("incomplete")), "{ready}");
        assert!(ready["reason"].as_str().is_some_and(|why| why.contains(&gone)), "{ready}");
        assert_eq!(server.get("/live").unwrap().0, 200);
        let (status, body) = server.post("/v1/completions", &ask("Too early", 4));
        assert!(status >= 500 && body.to_string().contains("is gone"), "{status} {body}");

        let port = followers[dies].port;
        followers[dies] = Follower::start(&model, port, &[], &[]);
        server.wait_ready();
        // Nothing of what the dead one knew is taken for granted.
        assert_eq!(tokens(&server), wanted, "after rank {rank} came back");
    }
}

#[test]
fn a_server_that_comes_back_finds_its_follower() {
    let follower = Follower::start(&smollm2(), free_port(), &[], &[]);
    let mut answers = Vec::new();
    for _ in 0..2 {
        let mut server = server(&follower.address(), &[], &[]);
        server.wait_ready();
        answers.push(tokens(&server));
        server.signal("KILL");
        server.wait_exit();
    }
    assert_eq!(answers[0], answers[1]);
    until("the follower waits", || follower.log().trim_end().ends_with("waiting for rank 0"));
    let loads = follower.log().matches("rank 1 of 2: layers").count();
    assert_eq!(loads, 1, "what was loaded is kept: {}", follower.log());
}

#[test]
fn ranks_that_do_not_go_together_say_why() {
    let (model, other) = (smollm2(), Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/models-llm/tests/fixtures"));
    let tokens = [tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap()];
    for (token, text) in tokens.iter().zip(["one", "two"]) {
        fs::write(token.path(), text).unwrap();
    }
    let [one, two] = [0, 1].map(|i| ["--dist-token-file", tokens[i].path().to_str().unwrap()]);
    let quickly = ["--pipeline-timeout", "1"];
    // (name, the follower's model and flags if there is one, the server's flags, what it says)
    type Case<'a> = (&'a str, Option<(PathBuf, &'a [&'a str])>, Vec<&'a str>, &'a str);
    let cases: [Case<'_>; 6] = [
        ("nobody there", None, quickly.to_vec(), ": nobody listens there"),
        ("other weights", Some((other.join("llama"), &[])), vec![], "has another model ("),
        ("another token", Some((model.clone(), &one)), two.to_vec(), ": the tokens differ"),
        ("no token", Some((model.clone(), &one)), vec![], ": the tokens differ"),
        (
            "too many layers",
            Some((model.clone(), &[])),
            vec!["--pipeline-split", "20,20"],
            "--pipeline-split adds up to 40 layers, each rank at least 1: the model has 30",
        ),
        (
            "two KV stores",
            Some((model.clone(), &[])),
            vec!["--kv-cache-memory", "1K"],
            "KV storage of 1024 bytes is too small",
        ),
    ];
    for (name, follower, args, wanted) in cases {
        let follower = follower.map(|(model, args)| Follower::start(&model, free_port(), &[], args));
        let address = follower.as_ref().map_or_else(|| format!("127.0.0.1:{}", free_port()), Follower::address);
        // The last of two flags would be refused: those of the case replace the usual ones.
        let usual = OPTIONS.chunks(2).filter(|flag| !args.contains(&flag[0])).flatten().copied();
        let all: Vec<&str> = [model.to_str().unwrap(), "--pipeline", &address]
            .into_iter()
            .chain(usual)
            .chain(args.iter().copied())
            .collect();
        let mut server = Server::start_with(&all);
        let (code, error) = ended(&mut server);
        assert_eq!(code, Some(1), "{name}: {error}");
        assert!(error.contains(wanted), "{name}: {error}");
        let is_about_another = name != "too many layers" && name != "two KV stores";
        assert!(!is_about_another || error.contains(&format!("rank 1 at {address}")), "{name}: {error}");
    }
}

#[test]
fn what_no_pipeline_takes_is_refused() {
    let gemma = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/models-llm/tests/fixtures/gemma3");
    let (gemma, smollm2) = (gemma.to_str().unwrap().to_owned(), smollm2().to_str().unwrap().to_owned());
    let seeing = vllm_tests::fixture("seeing");
    let minilm = vllm_tests::minilm().to_str().unwrap().to_owned();
    for (args, wanted) in [
        (
            vec![gemma.as_str(), "--pipeline", "127.0.0.1:1"],
            "Gemma3ForCausalLM can't be spread over machines; these can: Llama",
        ),
        (vec![&seeing, "--pipeline", "127.0.0.1:1"], "the language part of a model that sees: no pipeline takes it"),
        (vec![&minilm, "--pipeline", "127.0.0.1:1"], "--pipeline is for models that generate"),
        (vec![&smollm2, "--pipeline", "127.0.0.1"], "an address is HOST:PORT"),
        (vec![&smollm2, "--pipeline", "a:1", "--dist-backend", "pigeons"], "use tcp, ring, jaccl, nccl"),
        (vec![&smollm2, "--pipeline", "a:1", "--ssd-cache-dir", "/tmp/x"], "cannot be used with"),
        (
            vec![&smollm2, "--pipeline", "a:1", "--auto-unload-idle-seconds", "9"],
            "--auto-unload-idle-seconds must be 0",
        ),
        (vec![&smollm2, "--pipeline-split", "1,2"], "--pipeline"),
    ] {
        let mut server = Server::start_with(&args);
        let (code, error) = ended(&mut server);
        assert_eq!(code, Some(1), "{args:?}: {error}");
        assert!(error.contains(wanted), "{args:?}: {error}");
    }
}

/// MLX's ring has no deadlines: when a rank is gone the processes end, with a code that says "start me again".
#[test]
fn over_the_ring_of_mlx_two_processes_answer_as_one_and_end_together() {
    let (model, folder) = (smollm2(), tempfile::tempdir().unwrap());
    let hosts = folder.path().join("hosts.json");
    let ring: Vec<_> = (0..2).map(|_| json!([format!("127.0.0.1:{}", free_port())])).collect();
    fs::write(&hosts, json!(ring).to_string()).unwrap();
    let variables = |rank: &'static str| [("MLX_RANK", Path::new(rank)), ("MLX_HOSTFILE", hosts.as_path())];
    let mut follower = Follower::start(&model, free_port(), &variables("1"), &[]);
    let mut server = server(&follower.address(), &variables("0"), &["--dist-backend", "ring"]);
    server.wait_ready();
    assert_eq!(tokens(&server), wanted());
    let error = interrupted(&server, || follower.kill());
    assert!(error.contains(&format!("rank 1 at {} is gone", follower.address())), "{error}");
    let (code, error) = ended(&mut server);
    assert_eq!(code, Some(75), "{error}");
    assert!(error.contains("over ring ranks can't join again: all have to be started anew"), "{error}");

    // The other way round.
    let mut follower = Follower::start(&model, free_port(), &variables("1"), &[]);
    let mut server = self::server(&follower.address(), &variables("0"), &["--dist-backend", "ring"]);
    server.wait_ready();
    server.signal("KILL");
    server.wait_exit();
    assert_eq!(follower.wait_exit(), Some(75), "{}", follower.log());

    // Nobody said who takes part.
    let follower = Follower::start(&model, free_port(), &[], &[]);
    let mut server = self::server(&follower.address(), &[], &["--dist-backend", "ring"]);
    let (code, error) = ended(&mut server);
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("ring: the environment has no MLX_RANK"), "{error}");
}
