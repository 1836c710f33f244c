//! What is said and written down again, and how much of it is wrong then.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::command;

/// Twenty sentences of our own.
pub fn sentences() -> impl Iterator<Item = &'static str> {
    include_str!("../../../../crates/speech/tests/fixtures/round_trip.txt").lines()
}

/// Words that were heard wrongly, in percent, of pairs of what was said and what was heard.
pub fn percent(pairs: &[(&str, String)]) -> Result<f64> {
    let mut example: Command = command::cargo();
    example.args(["run", "--quiet", "--release", "--package", "vllm-speech", "--example", "word_errors"]);
    let mut child = example.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("cannot start cargo")?;
    let mut lines = child.stdin.take().context("a pipe")?;
    for (said, heard) in pairs {
        writeln!(lines, "{said}\t{}", heard.replace(['\t', '\n'], " "))?;
    }
    drop(lines);
    let out = child.wait_with_output()?;
    ensure!(out.status.success(), "word_errors ended with {}", out.status);
    Ok(String::from_utf8_lossy(&out.stdout).trim().parse()?)
}
