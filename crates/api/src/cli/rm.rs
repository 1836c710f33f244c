//! `vllm-mlx rm`.

use std::io::Write as _;

use vllm_checkpoint::hub::{self, HubOptions};

use super::report::mib;

/// Flags of `rm`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Models in the hub's cache: org/name
    #[arg(required = true, value_name = "MODEL")]
    models: Vec<String>,
}

/// Removes models from the hub's cache, all of their revisions.
///
/// # Errors
/// One line: the first that isn't there or can't be removed. Those before it are gone.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = HubOptions::from_env();
    for model in &args.models {
        let removed = hub::remove(model, &options)?;
        writeln!(std::io::stdout(), "removed {} ({})", removed.repo, mib(removed.bytes))?;
    }
    Ok(())
}
