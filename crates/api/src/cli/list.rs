//! `vllm-mlx list`.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use vllm_checkpoint::hub::{self, CachedModel, HubOptions};

use super::report::mib;

/// Flags of `list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print a JSON array
    #[arg(long)]
    json: bool,
}

/// Prints the models in the hub's cache.
///
/// # Errors
/// One line: the cache.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let options = HubOptions::from_env();
    let models = hub::list(&options)?;
    let mut out = std::io::stdout();
    if args.json {
        let models: Vec<Value> = models.iter().map(model_json).collect();
        writeln!(out, "{}", Value::Array(models))?;
        return Ok(());
    }
    if models.is_empty() {
        let cache = options.cache.map(|path| path.display().to_string()).unwrap_or_default();
        writeln!(out, "no models in {cache}: vllm-mlx pull org/name fetches one")?;
        return Ok(());
    }
    let width = models.iter().map(|model| model.repo.chars().count()).max().unwrap_or(0).max("MODEL".len());
    writeln!(out, "{:<width$}  {:>12}  REVISIONS", "MODEL", "SIZE")?;
    for model in &models {
        let unfinished = if model.unfinished > 0 { "  (unfinished: pull it again)" } else { "" };
        let revisions = model.revisions.join(", ");
        writeln!(out, "{:<width$}  {:>12}  {revisions}{unfinished}", model.repo, mib(model.bytes))?;
    }
    Ok(())
}

fn model_json(model: &CachedModel) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
    json!({
        "model": model.repo,
        "revisions": model.revisions,
        "bytes": model.bytes,
        "unfinished_bytes": model.unfinished,
        "modified": model.modified.and_then(seconds),
    })
}
