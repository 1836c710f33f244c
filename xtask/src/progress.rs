//! Progress on standard error: bars on a terminal, a line a step anywhere else.

use std::{
    io::{IsTerminal, stderr},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over bytes. `total` 0 means that it is unknown.
pub fn bytes(what: &str, total: u64) -> ProgressBar {
    let template = if total == 0 {
        "{spinner} {msg} {bytes} ({bytes_per_sec})"
    } else {
        "{msg} [{bar:30}] {bytes}/{total_bytes} ({bytes_per_sec}, {eta})"
    };
    start(ProgressBar::new(total), what, template)
}

/// A bar over steps.
pub fn steps(what: &str, total: u64) -> ProgressBar {
    start(ProgressBar::new(total), what, "{msg} [{bar:30}] {pos}/{len} ({elapsed}, {eta} left)")
}

/// A sign of life for what has no measure.
pub fn spinner(what: &str) -> ProgressBar {
    start(ProgressBar::new_spinner(), what, "{spinner} {msg} ({elapsed})")
}

fn start(bar: ProgressBar, what: &str, template: &str) -> ProgressBar {
    if !stderr().is_terminal() {
        eprintln!("{what} …");
    }
    bar.set_style(ProgressStyle::with_template(template).expect("a valid template"));
    bar.set_message(what.to_owned());
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// Bytes as people read them.
pub fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
