//! `vllm-mlx pull`.

use std::io::Write as _;

use super::{args::ModelArgs, progress};
use crate::model::resolve;

/// Flags of `pull`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    model: ModelArgs,
}

/// Fetches a model into the hub's cache, or goes on where that broke off, and prints where it is.
///
/// # Errors
/// One line: name, network, disk.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let path = resolve(&args.model.model, &args.model.source.hub(), &progress::bars())?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}
