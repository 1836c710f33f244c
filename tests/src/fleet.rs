//! The gateways that fleets have in front of their workers, as their makers publish them: SMG and vLLM Router.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::{Server, agent, free_port, python};

/// Which program stands in front of the workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// Shepherd Model Gateway, PyPI `smg`.
    Smg,
    /// vLLM Router, PyPI `vllm-router`. There is no wheel for Macs.
    VllmRouter,
}

impl Gateway {
    /// Starts one in front of the workers at these addresses (`http://…`, `grpc://…`) and waits until it serves
    /// all of them, as `smollm2`.
    /// `tokenizer` is a folder with `tokenizer.json`, for vLLM Router, which doesn't ask its workers for it. `flags` are more of the gateway's.
    ///
    /// # Panics
    /// If it isn't ready in time, with its log.
    #[must_use]
    pub fn start(self, workers: &[String], policy: &str, tokenizer: Option<&Path>, flags: &[&str]) -> Server {
        let (port, metrics) = (free_port(), free_port());
        let program = match self {
            Self::Smg => "smg",
            Self::VllmRouter => "vllm-router",
        };
        let path = python().with_file_name(program);
        assert!(path.exists(), "{} is missing: run `cargo xtask test`, which installs it", path.display());
        let mut command = Command::new(path);
        if self == Self::Smg {
            command.arg("launch");
        }
        command
            .args(["--host", "127.0.0.1", "--port", &port.to_string()])
            .args(["--prometheus-host", "127.0.0.1", "--prometheus-port", &metrics.to_string()])
            .args(["--policy", policy, "--worker-startup-check-interval", "1", "--health-check-interval-secs", "1"])
            .args(flags)
            .arg("--worker-urls")
            .args(workers);
        if let Some(folder) = tokenizer {
            command.env("VLLM_ROUTER_MODEL", folder);
        }
        if self == Self::Smg {
            // Now and then it sends to a worker that holds little what another one holds, so that it holds more.
            command.args(["--worker-warmup-secs", "0", "--worker-warmup-divert-every", "0"]);
        }
        // Both write their logs to stdout.
        let server = Server::spawn(command.stdout(Stdio::piped()), port);
        server.wait_until("all workers to be known", |server| {
            let listed =
                server.get("/workers").ok().map(|(_, body)| body["workers"].as_array().cloned().unwrap_or_default());
            let healthy = |worker: &Value| worker["is_healthy"] == true;
            listed.is_some_and(|listed| listed.len() == workers.len() && listed.iter().all(healthy))
        });
        // SMG fetches a tokenizer after it has listed the worker that it comes from.
        let hello =
            json!({ "model": "smollm2", "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 1 });
        server.wait_until("an answer", |server| chat(server, &hello).fault.is_none());
        server
    }
}

/// What became of a chat request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Chat {
    /// The answer's text, as far as it came.
    pub text: String,
    /// Why it ended; `None` if it didn't end as it should.
    pub finish: Option<String>,
    /// Tokens of the prompt and of the answer, and how many of the prompt were not computed again.
    pub usage: (u64, u64, u64),
    /// What went wrong: a status, an error in the stream, a broken connection.
    pub fault: Option<String>,
}

/// Asks `/v1/chat/completions`, in whichever form `body` wants, and says what came of it, however it ended.
#[must_use]
pub fn chat(server: &Server, body: &Value) -> Chat {
    let mut told = Chat::default();
    let sent = agent()
        .post(server.url("/v1/chat/completions"))
        .header("content-type", "application/json")
        .send(body.to_string().as_bytes());
    let mut response = match sent {
        Ok(response) => response,
        Err(error) => {
            told.fault = Some(error.to_string());
            return told;
        }
    };
    let status = response.status().as_u16();
    if status != 200 || body["stream"] != true {
        match response.body_mut().read_to_string() {
            Ok(text) if status == 200 => told.take(&text),
            Ok(text) => told.fault = Some(format!("{status}: {text}")),
            Err(error) => told.fault = Some(error.to_string()),
        }
        return told;
    }
    let mut done = false;
    for line in BufReader::new(response.body_mut().as_reader()).lines() {
        match line {
            Ok(line) => match line.strip_prefix("data: ") {
                Some("[DONE]") => done = true,
                Some(event) => told.take(event),
                None => {}
            },
            Err(error) => told.fault = Some(error.to_string()),
        }
    }
    if !done && told.fault.is_none() {
        told.fault = Some("the stream broke off".into());
    }
    told
}

impl Chat {
    /// Adds a whole answer, or one event of it.
    fn take(&mut self, text: &str) {
        let Ok(body) = serde_json::from_str::<Value>(text) else {
            self.fault = Some(format!("not JSON: {text}"));
            return;
        };
        if !body["error"].is_null() {
            self.fault = Some(body["error"].to_string());
        }
        let choice = &body["choices"][0];
        for part in ["message", "delta"] {
            self.text.push_str(choice[part]["content"].as_str().unwrap_or_default());
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            self.finish = Some(reason.into());
        }
        let usage = &body["usage"];
        if usage.is_object() {
            let count = |value: &Value| value.as_u64().unwrap_or_default();
            let cached = count(&usage["prompt_tokens_details"]["cached_tokens"]);
            self.usage = (count(&usage["prompt_tokens"]), count(&usage["completion_tokens"]), cached);
        }
    }
}
