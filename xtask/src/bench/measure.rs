//! Running a program for its figures and its peak memory.

use std::{
    env, fs,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Result, bail};

use crate::{command, disk};

/// Runs a program; returns its standard output and its peak resident memory in bytes.
///
/// Python asks the kernel (`wait4`), which knows it to the page; nothing in the standard library of Rust does.
pub fn with_peak_memory(program: &Command) -> Result<(String, f64)> {
    const WAIT: &str = "import os, sys\n\
        pid = os.posix_spawnp(sys.argv[2], sys.argv[2:], os.environ)\n\
        _, status, usage = os.wait4(pid, 0)\n\
        unit = 1 if sys.platform == 'darwin' else 1024\n\
        open(sys.argv[1], 'w').write(str(usage.ru_maxrss * unit))\n\
        sys.exit(os.waitstatus_to_exitcode(status) != 0)\n";
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let report = env::temp_dir().join(format!(
        "vllm-mlx-peak-memory.{}.{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    ));
    let mut python = command::python();
    python.args(["-c", WAIT]).arg(&report).arg(program.get_program()).args(program.get_args());
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => python.env(name, value),
            None => python.env_remove(name),
        };
    }
    let stdout = command::output(&mut python);
    let peak = fs::read_to_string(&report).ok().and_then(|text| text.parse().ok());
    disk::remove(&report)?;
    match (stdout, peak) {
        (Ok(stdout), Some(peak)) => Ok((stdout, peak)),
        (Ok(_), None) => bail!("no peak memory was reported for {}", program.get_program().to_string_lossy()),
        (Err(error), _) => Err(error),
    }
}

/// The middle value; the mean of the two middle ones of an even number.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        let cases: [(&[f64], f64); 4] =
            [(&[3.0], 3.0), (&[1.0, 9.0, 2.0], 2.0), (&[4.0, 1.0], 2.5), (&[5.0, 1.0, 3.0, 100.0], 4.0)];
        for (values, wanted) in cases {
            assert_eq!(median(values.iter().copied()), wanted, "{values:?}");
        }
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn peak_memory_counts_what_the_program_held() {
        let hold = |bytes: usize| {
            let mut program = command::python();
            program.args(["-c", &format!("x = b'x' * {bytes}; print('done')")]);
            with_peak_memory(&program).unwrap()
        };
        let (small, large) = (hold(1), hold(200 << 20));
        assert_eq!((small.0.trim(), large.0.trim()), ("done", "done"));
        assert!(large.1 - small.1 > 150e6, "{} {}", small.1, large.1);
    }

    #[test]
    fn a_failing_program_is_an_error() {
        let mut program = command::python();
        program.args(["-c", "import sys; sys.exit('out of luck')"]);
        let error = with_peak_memory(&program).unwrap_err().to_string();
        assert!(error.contains("out of luck"), "{error}");
    }
}
