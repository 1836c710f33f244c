//! Two workers behind the gateways that fleets use, SMG and vLLM Router, as PyPI has them.
#![cfg(target_os = "linux")]

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use vllm_tests::{Chat, Gateway, Server, chat, free_port, python, smollm2};

/// Two workers on SmolLM2 and a gateway before them.
struct Fleet {
    workers: [Server; 2],
    gateway: Server,
    /// Files that belong to it.
    _files: TempDir,
}

impl Fleet {
    fn http(gateway: Gateway, policy: &str) -> Self {
        let workers = [worker(&[]), worker(&[])];
        let urls = workers.each_ref().map(|worker| worker.url(""));
        let gateway = gateway.start(&urls, policy, None, &[]);
        Self { workers, gateway, _files: tempfile::tempdir().expect("a folder") }
    }

    fn grpc(gateway: Gateway, policy: &str) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let ports = [free_port(), free_port()];
        let workers = ports.map(|port| worker(&["--grpc-port", &port.to_string()]));
        let tokenizer = (gateway == Gateway::VllmRouter).then(|| {
            let script = concat!(env!("CARGO_MANIFEST_DIR"), "/python/tokenizer.py");
            let address = format!("127.0.0.1:{}", ports[0]);
            let out = Command::new(python()).args([script, &address]).arg(files.path()).output().expect("run Python");
            assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
            files.path()
        });
        let urls = ports.map(|port| format!("grpc://127.0.0.1:{port}"));
        let gateway = gateway.start(&urls, policy, tokenizer, &[]);
        Self { workers, gateway, _files: files }
    }

    /// A worker that wants to see a certificate, behind a gateway that has one, and another to compare it with. Over HTTP: SMG 1.13
    /// doesn't use its certificates for workers that it speaks gRPC with.
    fn mutual_tls(gateway: Gateway, policy: &str) -> Self {
        let files = tempfile::tempdir().expect("a folder");
        let path = |name: &str| files.path().join(name).to_str().expect("a UTF-8 path").to_owned();
        for (name, of) in [("worker", "127.0.0.1"), ("gateway", "gateway")] {
            let made = rcgen::generate_simple_self_signed([of.to_owned()]).expect("a certificate");
            fs::write(path(&format!("{name}.pem")), made.cert.pem()).expect("write a certificate");
            fs::write(path(&format!("{name}.key")), made.signing_key.serialize_pem()).expect("write a key");
        }
        let [certificate, key, client, client_key] =
            ["worker.pem", "worker.key", "gateway.pem", "gateway.key"].map(path);
        let tls = ["--ssl-certfile", &certificate, "--ssl-keyfile", &key, "--ssl-ca-certs", &client];
        let model = smollm2();
        let name = ["--served-model-name", "smollm2", "--threads", "1"];
        let guarded = Server::start(model.to_str().expect("a UTF-8 path"), &[&name, &tls[..]].concat());
        let url = guarded.url("").replace("http://", "https://");
        let tls = ["--client-cert-path", &client, "--client-key-path", &client_key, "--ca-cert-paths", &certificate];
        let gateway = gateway.start(&[url], policy, None, &tls);
        Self { workers: [worker(&[]), guarded], gateway, _files: files }
    }

    /// What each worker's `/v1/status` says under this name.
    fn status(&self, name: &str) -> [u64; 2] {
        [0, 1].map(|i| {
            let (_, status) = self.workers[i].get("/v1/status").expect("a status");
            status[name].as_u64().unwrap_or_else(|| panic!("no {name} in {status}"))
        })
    }

    /// A sum of one of the counters in each worker's `/metrics`.
    fn counted(&self, counter: &str) -> [u64; 2] {
        [0, 1].map(|i| {
            let text = self.workers[i].text("/metrics");
            let of = |line: &str| line.strip_prefix(counter)?.rsplit(' ').next()?.parse::<f64>().ok();
            text.lines().filter_map(of).sum::<f64>() as u64
        })
    }
}

fn worker(flags: &[&str]) -> Server {
    Server::smollm2(&[&["--served-model-name", "smollm2", "--threads", "1"], flags].concat())
}

fn ask(about: &str, max_tokens: usize, stream: bool) -> Value {
    let mut body = json!({ "model": "smollm2", "messages": [{ "role": "user", "content": about }],
        "max_tokens": max_tokens, "temperature": 0, "stream": stream });
    if stream {
        body["stream_options"] = json!({ "include_usage": true });
    }
    body
}

/// The same, told from the cache's luck.
fn uncached(told: Chat) -> Chat {
    Chat { usage: (told.usage.0, told.usage.1, 0), ..told }
}

fn answers_are_those_of_a_worker_asked_directly(fleet: &Fleet) {
    let questions =
        ["Name three colours.", "What is the capital of France?", "Was ist 2+2? Grüße 🙂", "Count to twenty."];
    for question in questions {
        for stream in [false, true] {
            let body = ask(question, 24, stream);
            let direct = chat(&fleet.workers[0], &body);
            assert!(
                direct.fault.is_none() && direct.finish.is_some() && !direct.text.is_empty(),
                "{question}: {direct:?}"
            );
            for _ in 0..2 {
                let through = chat(&fleet.gateway, &body);
                assert_eq!(uncached(through), uncached(direct.clone()), "{question} (stream: {stream})");
            }
        }
    }
}

/// Conversations that grow: whoever has the beginning should get the rest. The workers say what they found, for vLLM Router doesn't pass
/// it on over gRPC.
fn repeated_prefixes_go_to_the_worker_that_holds_them(fleet: &Fleet) {
    let system =
        |i: usize| format!("You are number {i}. ") + &format!("Rule {i}: answer in {i} words, never more. ").repeat(12);
    let mut talks: Vec<Vec<Value>> =
        (1..=4).map(|i| vec![json!({ "role": "system", "content": system(i * 37) })]).collect();
    let found = || fleet.counted("vllm:prefix_cache_hits_total").iter().sum::<u64>();
    for turn in 0..4 {
        let before = found();
        let told: Vec<Chat> = thread::scope(|scope| {
            // All turns together, so that load spreads the first over the workers.
            let asked = talks.iter_mut().enumerate().map(|(i, talk)| {
                talk.push(json!({ "role": "user", "content": format!("Question {turn} of {i}?") }));
                let body = json!({ "model": "smollm2", "messages": talk, "max_tokens": 8, "temperature": 0 });
                let gateway = &fleet.gateway;
                scope.spawn(move || chat(gateway, &body))
            });
            let asked: Vec<_> = asked.collect();
            asked.into_iter().map(|asked| asked.join().expect("an answer")).collect()
        });
        let cached = found() - before;
        let mut prompts = 0;
        for (i, (told, talk)) in told.into_iter().zip(&mut talks).enumerate() {
            assert_eq!((&told.fault, told.usage.1), (&None, 8), "turn {turn} of {i}: {told:?}");
            prompts += told.usage.0;
            talk.push(json!({ "role": "assistant", "content": told.text }));
        }
        // All but the newest turns, and what the last blocks have of them. Of four conversations one at the wrong worker is too many.
        assert!(turn == 0 || cached * 100 > prompts * 85, "turn {turn}: {cached} of {prompts} tokens were cached");
    }
}

/// Requests under way at both workers, and more that come in until `until` has returned; what each was told, and what it
/// should have been.
fn under_load(fleet: &Fleet, until: impl FnOnce()) -> Vec<(Chat, Chat)> {
    let bodies: Vec<Value> =
        (0..6).map(|i| ask(&format!("{i} is a number. Tell me a story."), 64, i % 2 == 1)).collect();
    let right: Vec<Chat> = bodies.iter().map(|body| uncached(chat(&fleet.workers[0], body))).collect();
    assert!(right.iter().all(|told| told.fault.is_none() && told.finish.is_some()), "{right:?}");
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let clients: Vec<_> = (bodies.iter().zip(&right))
            .map(|(body, right)| {
                scope.spawn(|| {
                    let mut told = Vec::new();
                    loop {
                        let last = over.load(Ordering::SeqCst);
                        told.push((uncached(chat(&fleet.gateway, body)), right.clone()));
                        if last {
                            return told;
                        }
                    }
                })
            })
            .collect();
        fleet.gateway.wait_until("both workers to be busy", |_| fleet.status("num_running").iter().all(|&n| n > 0));
        until();
        over.store(true, Ordering::SeqCst);
        clients.into_iter().flat_map(|client| client.join().expect("a client that ends")).collect()
    })
}

fn a_killed_worker_costs_only_what_it_was_writing(mut fleet: Fleet) {
    let told = under_load(&fleet, || {
        fleet.workers[1].signal("KILL");
        // More requests come in while the gateway finds out.
        thread::sleep(Duration::from_secs(2));
    });
    let failed: Vec<&Chat> = told.iter().map(|(told, _)| told).filter(|told| told.fault.is_some()).collect();
    // At most one of each client was at the worker when it died.
    assert!(failed.len() <= 6, "{failed:#?}\n{}", fleet.gateway.log());
    for (told, right) in &told {
        if told.fault.is_none() {
            assert_eq!(told, right);
        } else {
            assert!(right.text.starts_with(&told.text), "{told:?} instead of {right:?}");
        }
    }
    assert!(told.len() - failed.len() >= 6, "{told:#?}");
    for i in 0..4 {
        let body = ask(&format!("And now {i}?"), 8, i % 2 == 0);
        assert_eq!(uncached(chat(&fleet.gateway, &body)), uncached(chat(&fleet.workers[0], &body)));
    }
    assert_eq!(fleet.workers[1].wait_exit(), None, "it was killed");
}

fn a_drained_worker_loses_no_request(mut fleet: Fleet) {
    let told = under_load(&fleet, || {
        fleet.workers[1].signal("TERM");
        thread::sleep(Duration::from_secs(2));
    });
    for (told, right) in &told {
        assert_eq!(told, right, "{}\n{}", fleet.workers[1].log(), fleet.gateway.log());
    }
    assert_eq!(fleet.workers[1].wait_exit(), Some(0), "{}", fleet.workers[1].log());
}

/// Tests of a gateway over a protocol.
macro_rules! fleet {
    ($name:ident, $start:path, $gateway:expr) => {
        mod $name {
            use super::*;

            #[test]
            fn answers_are_those_of_a_worker_asked_directly() {
                super::answers_are_those_of_a_worker_asked_directly(&$start($gateway, "round_robin"));
            }

            #[test]
            fn repeated_prefixes_go_to_the_worker_that_holds_them() {
                super::repeated_prefixes_go_to_the_worker_that_holds_them(&$start($gateway, "cache_aware"));
            }

            #[test]
            fn a_killed_worker_costs_only_what_it_was_writing() {
                super::a_killed_worker_costs_only_what_it_was_writing($start($gateway, "round_robin"));
            }

            #[test]
            fn a_drained_worker_loses_no_request() {
                super::a_drained_worker_loses_no_request($start($gateway, "round_robin"));
            }
        }
    };
}

fleet!(smg_over_http, Fleet::http, Gateway::Smg);
fleet!(vllm_router_over_http, Fleet::http, Gateway::VllmRouter);
fleet!(smg_over_grpc, Fleet::grpc, Gateway::Smg);
fleet!(vllm_router_over_grpc, Fleet::grpc, Gateway::VllmRouter);

#[test]
fn smg_and_a_worker_show_each_other_certificates() {
    answers_are_those_of_a_worker_asked_directly(&Fleet::mutual_tls(Gateway::Smg, "round_robin"));
}
