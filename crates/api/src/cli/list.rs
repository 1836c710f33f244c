//! `vllm-mlx list`.

use std::{
    io::Write as _,
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};
use vllm_checkpoint::hub::{self, CachedModel, HubOptions};

use super::report::mib;
use crate::vision::{modalities, processor};

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
        let models: Vec<Value> = models.iter().map(|model| model_json(model, &options)).collect();
        writeln!(out, "{}", Value::Array(models))?;
        return Ok(());
    }
    if models.is_empty() {
        let cache = options.cache.map(|path| path.display().to_string()).unwrap_or_default();
        writeln!(out, "no models in {cache}: vllm-mlx pull org/name fetches one")?;
        return Ok(());
    }
    let width = models.iter().map(|model| model.repo.chars().count()).max().unwrap_or(0).max("MODEL".len());
    writeln!(out, "{:<width$}  {:>12}  {:<18}  REVISIONS", "MODEL", "SIZE", "TAKES")?;
    for model in &models {
        let unfinished = if model.unfinished > 0 { "  (unfinished: pull it again)" } else { "" };
        let revisions = model.revisions.join(", ");
        let takes = takes(model, &options).map_or_else(|| "unknown".to_owned(), |takes| takes.join(", "));
        writeln!(out, "{:<width$}  {:>12}  {takes:<18}  {revisions}{unfinished}", model.repo, mib(model.bytes))?;
    }
    Ok(())
}

/// What may stand in a model's prompts; `None` if its files don't say, or are not all here.
fn takes(model: &CachedModel, options: &HubOptions) -> Option<Vec<&'static str>> {
    let revision = options.revision.clone().or_else(|| model.revisions.first().cloned());
    let offline = HubOptions { offline: true, revision, ..options.clone() };
    let path = hub::resolve(&model.repo, &offline, &mut |_| {}).ok()?;
    Some(modalities(processor(&path).ok()?.as_ref()))
}

fn model_json(model: &CachedModel, options: &HubOptions) -> Value {
    let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map(|since| since.as_secs()).ok();
    json!({
        "model": model.repo,
        "revisions": model.revisions,
        "modalities": takes(model, options),
        "bytes": model.bytes,
        "unfinished_bytes": model.unfinished,
        "modified": model.modified.and_then(seconds),
    })
}
