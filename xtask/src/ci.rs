//! What a change has to pass.

mod layers;
mod licences;
mod workspace;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{command, setup, test};

type Check = fn() -> Result<()>;

/// Runs the checks named, or all, and then says which failed: one round shows all there is to mend.
pub fn run(wanted: &[String]) -> Result<()> {
    let checks: [(&str, Check); 6] = [
        ("format", format),
        ("layers", || layers::check(&workspace::load()?)),
        ("licences", || licences::check(&workspace::load()?)),
        ("clippy", clippy),
        ("docs", docs),
        ("tests", || test::run(&[])),
    ];
    if let Some(unknown) = wanted.iter().find(|name| !checks.iter().any(|(known, _)| known == name)) {
        bail!("no check {unknown}; there is {}", checks.map(|(name, _)| name).join(", "));
    }
    let mut failed = vec![];
    let mut summary = String::new();
    for (name, check) in
        checks.into_iter().filter(|(name, _)| wanted.is_empty() || wanted.iter().any(|want| want == name))
    {
        eprintln!("\n== {name}");
        let start = Instant::now();
        let outcome = check();
        let seconds = start.elapsed().as_secs_f64();
        if let Err(error) = outcome {
            eprintln!("error: {error:#}");
            failed.push(name);
            summary += &format!("  {name:10} {seconds:6.1} s  FAILED\n");
        } else {
            summary += &format!("  {name:10} {seconds:6.1} s\n");
        }
    }
    eprint!("\n{summary}");
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

fn format() -> Result<()> {
    command::run(command::cargo().args(["fmt", "--all", "--check"]))
}

fn clippy() -> Result<()> {
    setup::run(None)?;
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    setup::run(None)?;
    let mut doc = command::cargo();
    command::run(doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
