//! Which servers there are: the file, and what it may say.

mod environment;
mod expand;
mod file;
mod find;
mod secret;
mod server;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

pub(crate) use environment::INHERITED;
pub use environment::is_refused_variable;
pub use find::default_path;
pub use secret::Secret;
pub use server::{Endpoint, ServerConfig};

/// What the file says, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct McpConfig {
    /// The servers by name.
    pub servers: BTreeMap<String, ServerConfig>,
    /// Most calls that one chat may make.
    pub max_tool_calls: usize,
    /// High-risk tools that may be called, as `tool` or `server__tool`.
    pub allowed_high_risk_tools: Vec<String>,
}

impl McpConfig {
    /// Longest time of a call, and most calls of a chat, when the file doesn't say.
    const DEFAULTS: (Duration, usize) = (Duration::from_secs(30), 10);

    /// Reads and checks a file: YAML if it is named `.yaml` or `.yml`, else JSON.
    ///
    /// # Errors
    /// What is wrong with it, and where. A file that every user may write is refused: it names commands.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let fail = |problem| ConfigError { path: path.to_owned(), problem };
        let text = file::read(path).map_err(fail)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let syntax = file::Syntax::of(path);
        Self::parse(&text, syntax == file::Syntax::Yaml, folder, &|name| std::env::var(name).ok()).map_err(fail)
    }

    /// Checks a configuration: `folder` is what relative working directories start from, `variables` the environment.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(
        text: &str,
        yaml: bool,
        folder: &Path,
        variables: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, String> {
        let file = if yaml { file::yaml(text)? } else { file::json(text)? };
        let timeout = file.default_timeout.map(|seconds| server::timeout("default_timeout", seconds)).transpose()?;
        let defaults = server::Defaults { timeout: timeout.unwrap_or(Self::DEFAULTS.0), folder, variables };
        let max_tool_calls = file.max_tool_calls.unwrap_or(Self::DEFAULTS.1);
        if max_tool_calls == 0 {
            return Err("max_tool_calls is 0: it must be at least 1".into());
        }
        let allowed_high_risk_tools = file.allowed_high_risk_tools.clone();
        let mut servers = BTreeMap::new();
        for (name, entry) in file.servers()? {
            let checked = server::check_name(&name).and_then(|()| ServerConfig::new(entry, &defaults));
            servers.insert(name.clone(), checked.map_err(|problem| format!("server {name:?}: {problem}"))?);
        }
        Ok(Self { servers, max_tool_calls, allowed_high_risk_tools })
    }
}

/// A configuration that can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {problem}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problem: String,
}

#[cfg(test)]
mod tests;
