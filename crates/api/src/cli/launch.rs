//! `vllm-mlx launch`: coding agents with a local model.

use std::{
    io::Write as _,
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// Flags of `launch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The agent
    client: Client,
    /// The server
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Model to use [default: the first that the server lists]
    #[arg(long)]
    model: Option<String>,
    /// The server's key, if it wants one
    #[arg(long, env = "VLLM_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// Print what would be set and run, instead of running it
    #[arg(long)]
    print: bool,
    /// Arguments for the agent
    #[arg(last = true)]
    args: Vec<String>,
}

/// An agent.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Client {
    /// Claude Code, over /v1/messages
    Claude,
    /// OpenCode, over /v1/chat/completions
    Opencode,
    /// Codex, over /v1/responses
    Codex,
}

/// Servers without keys take any; clients want one.
const NO_KEY: &str = "none";
/// Name of the provider in the configurations of OpenCode and Codex.
const PROVIDER: &str = "vllm-mlx";
/// Holds the key for Codex.
const KEY_VARIABLE: &str = "VLLM_API_KEY";

/// What is run, and with which variables.
#[derive(Debug, PartialEq)]
struct Launch {
    program: &'static str,
    variables: Vec<(&'static str, String)>,
    args: Vec<String>,
}

/// Runs an agent with its variables set, or prints them.
///
/// # Errors
/// The server does not answer; the agent isn't installed, or fails.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let url = args.url.trim_end_matches('/').trim_end_matches("/v1");
    let model = match &args.model {
        Some(model) => model.clone(),
        None => first_model(url, args.api_key.as_deref())?,
    };
    let mut launch = Launch::new(args.client, url, &model, args.api_key.as_deref().unwrap_or(NO_KEY));
    launch.args.extend(args.args.iter().cloned());
    if args.print {
        write!(std::io::stdout(), "{}", launch.script())?;
        return Ok(());
    }
    let status = launch.run()?;
    if !status.success() {
        bail!("{} ended with {status}", launch.program);
    }
    Ok(())
}

impl Launch {
    fn new(client: Client, url: &str, model: &str, key: &str) -> Self {
        match client {
            Client::Claude => Self {
                program: "claude",
                variables: vec![
                    ("ANTHROPIC_BASE_URL", url.to_owned()),
                    ("ANTHROPIC_AUTH_TOKEN", key.to_owned()),
                    // All of its sizes of model are the one there is.
                    ("ANTHROPIC_MODEL", model.to_owned()),
                    ("ANTHROPIC_DEFAULT_OPUS_MODEL", model.to_owned()),
                    ("ANTHROPIC_DEFAULT_SONNET_MODEL", model.to_owned()),
                    ("ANTHROPIC_DEFAULT_HAIKU_MODEL", model.to_owned()),
                    ("CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC", "1".to_owned()),
                ],
                args: Vec::new(),
            },
            Client::Opencode => {
                let provider = json!({
                    "npm": "@ai-sdk/openai-compatible",
                    "name": PROVIDER,
                    "options": { "baseURL": format!("{url}/v1"), "apiKey": key },
                    "models": { model: {} },
                });
                let config = json!({ "model": format!("{PROVIDER}/{model}"), "provider": { PROVIDER: provider } });
                Self {
                    program: "opencode",
                    variables: vec![("OPENCODE_CONFIG_CONTENT", config.to_string())],
                    args: Vec::new(),
                }
            }
            Client::Codex => {
                // The values are TOML; JSON's strings are TOML's, too.
                let settings = [
                    ("model", model.to_owned()),
                    ("model_provider", PROVIDER.to_owned()),
                    ("model_providers.vllm-mlx.name", PROVIDER.to_owned()),
                    ("model_providers.vllm-mlx.base_url", format!("{url}/v1")),
                    ("model_providers.vllm-mlx.env_key", KEY_VARIABLE.to_owned()),
                    ("model_providers.vllm-mlx.wire_api", "responses".to_owned()),
                ];
                let flags = settings.map(|(name, value)| ["-c".to_owned(), format!("{name}={}", json!(value))]);
                Self {
                    program: "codex",
                    variables: vec![(KEY_VARIABLE, key.to_owned())],
                    args: flags.into_iter().flatten().collect(),
                }
            }
        }
    }

    fn run(&self) -> anyhow::Result<ExitStatus> {
        let mut command = Command::new(self.program);
        command.args(&self.args).envs(self.variables.iter().cloned());
        command.status().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                anyhow::anyhow!("{} is not installed, or not on PATH (--print shows what to set)", self.program)
            }
            _ => anyhow::anyhow!("{} can't be run: {error}", self.program),
        })
    }

    /// For a POSIX shell.
    fn script(&self) -> String {
        let variables = self.variables.iter().map(|(name, value)| format!("export {name}={}\n", quoted(value)));
        let words = self.args.iter().map(|word| format!(" {}", quoted(word)));
        format!("{}{}{}\n", variables.collect::<String>(), self.program, words.collect::<String>())
    }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

fn first_model(url: &str, key: Option<&str>) -> anyhow::Result<String> {
    let agent: ureq::Agent = ureq::Agent::config_builder().timeout_global(Some(Duration::from_secs(10))).build().into();
    let mut request = agent.get(format!("{url}/v1/models"));
    if let Some(key) = key {
        request = request.header("authorization", format!("Bearer {key}"));
    }
    let mut response =
        request.call().with_context(|| format!("{url} does not answer: start it with vllm-mlx serve MODEL"))?;
    let models: Value = serde_json::from_str(&response.body_mut().read_to_string()?)
        .with_context(|| format!("{url}/v1/models answers something that is not JSON"))?;
    let first = models["data"][0]["id"].as_str();
    first.map(str::to_owned).with_context(|| format!("{url}/v1/models lists none: give --model"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_is_pointed_at_the_server() {
        let url = "http://127.0.0.1:8000";
        let claude = Launch::new(Client::Claude, url, "a/b", "k").script();
        assert!(claude.starts_with("export ANTHROPIC_BASE_URL=http://127.0.0.1:8000\n"), "{claude}");
        assert!(claude.contains("export ANTHROPIC_DEFAULT_HAIKU_MODEL=a/b\n") && claude.ends_with("\nclaude\n"));

        let opencode = Launch::new(Client::Opencode, url, "a/b", "k");
        let config: Value = serde_json::from_str(&opencode.variables[0].1).unwrap();
        assert_eq!(config["model"], "vllm-mlx/a/b");
        assert_eq!(config["provider"]["vllm-mlx"]["options"]["baseURL"], "http://127.0.0.1:8000/v1");

        let codex = Launch::new(Client::Codex, url, "a b", "it's").script();
        assert!(codex.starts_with("export VLLM_API_KEY='it'\\''s'\n"), "{codex}");
        assert!(codex.contains(" -c 'model=\"a b\"'") && codex.contains("wire_api=\"responses\"'"), "{codex}");
    }
}
