//! What a change has to pass.

mod layers;
mod licences;
mod workspace;

use std::time::Instant;

use anyhow::{Result, bail};

use crate::{command, setup, test};

type Check = fn() -> Result<()>;

/// Runs every check and then says which failed: one round shows all there is to mend.
pub fn run() -> Result<()> {
    setup::run(None)?;
    let checks: [(&str, Check); 6] = [
        ("format", format),
        ("layers", || layers::check(&workspace::load()?)),
        ("licences", || licences::check(&workspace::load()?)),
        ("clippy", clippy),
        ("docs", docs),
        ("tests", || test::run(&[])),
    ];
    let mut failed = vec![];
    let mut summary = String::new();
    for (name, check) in checks {
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
    command::run(command::cargo().args(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
}

fn docs() -> Result<()> {
    let mut doc = command::cargo();
    command::run(doc.args(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
}
