//! Where logs go and how they look.

use std::{io::IsTerminal as _, sync::OnceLock};

use clap::{Args, ValueEnum};
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, filter::LevelFilter, fmt, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

/// How a line of the log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What the running log lets through.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Flags of the log.
#[derive(Debug, Clone, Args)]
pub struct LogArgs {
    /// How log lines are written
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug or trace (RUST_LOG and VLLM_MLX_LOG say it in more detail)
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log_level: LevelFilter,
}

impl LogArgs {
    /// What commands have that take no flags of the log: warnings, as text.
    #[must_use]
    pub fn quiet() -> Self {
        Self { log_format: LogFormat::Text, log_level: LevelFilter::WARN }
    }

    /// Starts the log, to stderr. `VLLM_MLX_LOG` or `RUST_LOG`, in the syntax of [`EnvFilter`], win over the level.
    /// Only the first call counts.
    pub fn init(&self) {
        let (filter, handle) = reload::Layer::new(self.wanted());
        let lines = fmt::layer().with_writer(std::io::stderr);
        let lines = match self.log_format {
            LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        // A log that is there already is left alone: tests start several servers in one process.
        if tracing_subscriber::registry().with(filter).with(lines).try_init().is_ok() {
            let _ = FILTER.set(handle);
        }
    }

    /// From now on, the running log is at this level.
    pub fn set_level(&self) {
        if let Some(filter) = FILTER.get() {
            // Only a log that is gone refuses.
            let _ = filter.reload(self.wanted());
        }
    }

    fn wanted(&self) -> EnvFilter {
        let wanted = ["VLLM_MLX_LOG", "RUST_LOG"].into_iter().find_map(|name| std::env::var(name).ok());
        wanted.and_then(|wanted| EnvFilter::try_new(wanted).ok()).unwrap_or_else(|| self.filter())
    }

    /// Our own crates at the level asked for; of others, what is wrong.
    fn filter(&self) -> EnvFilter {
        let others = self.log_level.min(LevelFilter::WARN);
        EnvFilter::new(format!("{others},vllm={}", self.log_level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_crates_follow_the_level_and_others_only_warn() {
        let filter = |log_level| LogArgs { log_format: LogFormat::Json, log_level }.filter().to_string();
        assert_eq!(filter(LevelFilter::DEBUG), "vllm=debug,warn");
        assert_eq!(filter(LevelFilter::ERROR), "vllm=error,error");
    }
}
