//! Keys, TLS, the config file and SIGHUP, with the real binary.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::{
    Agent,
    tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig},
};
use vllm_tests::{Server, smollm2};

const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until something holds.
fn wait(server: &Server, what: &str, holds: impl Fn() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < PATIENCE, "no {what}:\n{}", server.log());
        thread::sleep(Duration::from_millis(20));
    }
}

/// A folder with the server's files.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("a UTF-8 path").to_owned()
    }

    fn write(&self, name: &str, text: &str) {
        // As whole as a careful operator's: never half of a file at its place.
        let new = PathBuf::from(self.path("new"));
        fs::write(&new, text).and_then(|()| fs::rename(new, self.path(name))).expect("a written file");
    }
}

/// An agent that reports every status as it is and reuses no connection.
fn agent(tls: TlsConfig) -> Agent {
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
    config.tls_config(tls).max_idle_connections(0).build().into()
}

fn get(agent: &Agent, url: &str, key: &str) -> Result<u16, ureq::Error> {
    Ok(agent.get(url).header("authorization", format!("Bearer {key}")).call()?.status().as_u16())
}

fn complete(server: &Server, key: &str, max_tokens: usize) -> (u16, Value) {
    let body = json!({"model": "smol", "prompt": "Once", "max_tokens": max_tokens, "ignore_eos": true});
    let request = agent(TlsConfig::default()).post(server.url("/v1/completions"));
    let mut response = request.header("x-api-key", key).send(body.to_string().as_bytes()).expect("an answer");
    (response.status().as_u16(), response.body_mut().read_json().unwrap_or_default())
}

#[test]
fn settings_come_from_a_file_and_change_under_load() {
    let files = Files::new();
    let config = |more: &str| {
        let (model, keys) = (smollm2(), files.path("keys"));
        let head = format!("model = {:?}\nserved_model_name = ['smol']\napi-key-file = {keys:?}\n", model.display());
        files.write("serve.toml", &format!("{head}{more}"));
    };
    files.write("keys", "alice sk-one\n");
    config("port = 1\n");
    let server = Server::start_with(&["--config", &files.path("serve.toml")]);
    server.wait_ready();
    let status = |key: &str| get(&agent(TlsConfig::default()), &server.url("/v1/models"), key).expect("an answer");
    assert_eq!([status("sk-one"), status("sk-two")], [200, 401]);

    thread::scope(|scope| {
        // A long answer, which is under way all the time.
        let long = scope.spawn(|| {
            let body = json!({"model": "smol", "prompt": "Once", "max_tokens": 400, "ignore_eos": true, "stream": true,
                "stream_options": {"include_usage": true}});
            let request = agent(TlsConfig::default()).post(server.url("/v1/completions"));
            let mut response =
                request.header("x-api-key", "sk-one").send(body.to_string().as_bytes()).expect("a stream");
            assert_eq!(response.status().as_u16(), 200);
            let lines = BufReader::new(response.body_mut().as_reader()).lines();
            let lines: Vec<String> = lines.map(|line| line.expect("an unbroken stream")).collect();
            assert_eq!(lines.iter().rfind(|line| !line.is_empty()).map(String::as_str), Some("data: [DONE]"));
            let usage = lines.iter().rev().find_map(|line| line.strip_prefix("data: {")).expect("a chunk with usage");
            let usage: Value = serde_json::from_str(&format!("{{{usage}")).expect("JSON");
            usage["usage"]["completion_tokens"].as_u64()
        });
        wait(&server, "stream", || server.get("/health").is_ok_and(|(_, body)| body["requests"]["running"] == 1));
        files.write("keys", "bob sk-two\n");
        config("port = 2\nrate_limit = 2\nlog-level = 'debug'\n");
        server.signal("HUP");
        wait(&server, "new key", || status("sk-two") == 200);
        assert_eq!(status("sk-one"), 401, "the old key is gone");
        assert_eq!([complete(&server, "sk-two", 1).0, complete(&server, "sk-two", 1).0], [200, 200]);
        let (code, body) = complete(&server, "sk-two", 1);
        assert_eq!((code, &body["error"]["code"]), (429, &json!("rate_limit_exceeded")), "{body}");
        assert!(!long.is_finished(), "the stream was to be under way all the time");
        assert_eq!(long.join().expect("a whole stream"), Some(400));
    });
    // A request is logged when its last byte is out.
    wait(&server, "line on the stream", || server.log().contains("client=\"alice\""));
    let log = server.log();
    assert!(log.contains("changed=\"log-level, rate-limit\""), "{log}");
    assert!(!log.contains("need a restart"), "the port is a flag's, whatever the file says: {log}");
    assert!(log.contains("DEBUG"), "{log}");
    assert!(!log.contains("sk-"), "{log}");

    // What can't be right changes nothing, and what can't change is said.
    for (wrong, said) in [
        ("prot = 1\n", "there is no setting \"prot\"; the nearest is \"port\""),
        ("cors-origins = 'x'\n", "\"x\" is no origin"),
        ("rate_limit = = 2\n", "TOML parse error"),
    ] {
        config(wrong);
        server.signal("HUP");
        wait(&server, said, || server.log().lines().any(|line| line.contains("not reloaded") && line.contains(said)));
        assert_eq!([status("sk-one"), status("sk-two")], [401, 200]);
        assert_eq!(complete(&server, "sk-two", 1).0, 429);
    }
    files.write("keys", "# nobody\n");
    config("");
    server.signal("HUP");
    wait(&server, "complaint", || server.log().contains("has no keys"));
    assert_eq!([status(""), status("sk-two")], [401, 200], "an empty file doesn't open the server");
    files.write("keys", "sk-two\n");
    config("max-num-seqs = 3\n");
    server.signal("HUP");
    wait(&server, "word on it", || server.log().contains("need a restart settings=\"max-num-seqs\""));
    assert_eq!(complete(&server, "sk-two", 1).0, 200, "there is no limit any more");
}

/// A certificate for this machine, and its key.
fn made() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    (made.cert.pem(), made.signing_key.serialize_pem())
}

fn trusting(certificate: &str, own: Option<&(String, String)>) -> Agent {
    let parse = |pem: &str| Certificate::from_pem(pem.as_bytes()).expect("a certificate");
    let own = own.map(|(certificate, key)| {
        let key = PrivateKey::from_pem(key.as_bytes()).expect("a key");
        ClientCert::new_with_certs(&[parse(certificate)], key)
    });
    let roots = RootCerts::new_with_certs(&[parse(certificate)]);
    agent(TlsConfig::builder().root_certs(roots).client_cert(own).build())
}

#[test]
fn tls_with_certificates_that_are_renewed() {
    let files = Files::new();
    let (first, second) = (made(), made());
    let write = |(certificate, key): &(String, String)| {
        files.write("cert.pem", certificate);
        files.write("key.pem", key);
    };
    write(&first);
    let (certificate, key) = (files.path("cert.pem"), files.path("key.pem"));
    let model = smollm2();
    let model = model.to_str().expect("a UTF-8 path");
    let server = Server::start(model, &["--ssl-certfile", &certificate, "--ssl-keyfile", &key, "--api-key", "one"]);
    let url = |path: &str| server.url(path).replace("http://", "https://");
    let (old, new) = (trusting(&first.0, None), trusting(&second.0, None));
    wait(&server, "model", || get(&old, &url("/health"), "").is_ok_and(|status| status == 200));
    assert_eq!(get(&old, &url("/v1/models"), "one").expect("an answer"), 200);
    assert_eq!(get(&old, &url("/v1/models"), "two").expect("an answer"), 401);
    assert!(get(&new, &url("/health"), "").is_err(), "another certificate");
    assert!(server.get("/health").is_err(), "no TLS");

    // A key of another certificate: the old ones stay.
    files.write("key.pem", &second.1);
    server.signal("HUP");
    wait(&server, "complaint", || server.log().contains("don't go together"));
    assert_eq!(get(&old, &url("/health"), "").expect("an answer"), 200);
    write(&second);
    server.signal("HUP");
    wait(&server, "new certificate", || get(&new, &url("/health"), "").is_ok());
    assert!(get(&old, &url("/health"), "").is_err());
    assert!(server.log().contains(&format!("listening on {}", url(""))), "{}", server.log());
}

#[test]
fn clients_need_certificates_if_that_is_wanted() {
    let files = Files::new();
    let (own, client, stranger) = (made(), made(), made());
    files.write("server.pem", &format!("{}{}", own.0, own.1));
    files.write("clients.pem", &client.0);
    let (server_pem, clients) = (files.path("server.pem"), files.path("clients.pem"));
    let model = smollm2();
    let model = model.to_str().expect("a UTF-8 path");
    let server = Server::start(model, &["--ssl-certfile", &server_pem, "--ssl-ca-certs", &clients]);
    let url = server.url("/health").replace("http://", "https://");
    let known = trusting(&own.0, Some(&client));
    wait(&server, "model", || get(&known, &url, "").is_ok_and(|status| status == 200));
    for (name, agent) in [("none", trusting(&own.0, None)), ("another", trusting(&own.0, Some(&stranger)))] {
        assert!(get(&agent, &url, "").is_err(), "{name}");
    }
}

#[test]
fn what_is_wrong_is_said_at_the_start() {
    let files = Files::new();
    files.write("empty", "");
    let (empty, model) = (files.path("empty"), "no-model");
    let cases: [(&[&str], &str); 4] = [
        (&["serve", model, "--api-key-file", &empty], "has no keys"),
        (&["serve", model, "--ssl-certfile", &empty], "has no certificate"),
        (&["serve", model, "--config", "/no/such.toml"], "/no/such.toml: No such file"),
        (&["serve", model, "--cors-origins", "example.com"], "is no origin"),
    ];
    for (args, said) in cases {
        let out = vllm_tests::run(args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(1) && stderr.lines().count() == 1 && stderr.contains(said), "{stderr}");
    }
}
