//! How many threads are worth having, and where.

use std::thread;

use core_affinity::CoreId;

/// How many physical cores this process may use: SMT siblings share the vector units, so a second thread on a core
/// only adds contention.
pub(super) fn physical_cores() -> usize {
    let logical = thread::available_parallelism().map_or(1, usize::from);
    smt_width().map_or(logical, |width| logical.div_ceil(width)).max(1)
}

/// Hardware threads of a core, where the system tells.
fn smt_width() -> Option<usize> {
    let list = siblings(0)?;
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.trim().parse::<usize>().ok()? + 1 - first.trim().parse::<usize>().ok()?),
        None => Some(1),
    };
    list.trim().split(',').map(count).sum::<Option<usize>>().filter(|&width| width > 0)
}

/// Why threads cannot be pinned.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PinError {
    /// The system has no such thing, or does not allow it.
    #[error("this system does not let threads be pinned to cores")]
    Unsupported,
    /// More threads than places.
    #[error("{threads} threads cannot have a core each: this process may use {cores}")]
    Cores {
        /// Threads asked for.
        threads: usize,
        /// Physical cores that this process may use.
        cores: usize,
    },
}

/// A place for each of `threads` threads: the first hardware thread of a physical core.
pub(super) fn places(threads: usize) -> Result<Vec<CoreId>, PinError> {
    // Elsewhere affinity is a hint at most.
    if !cfg!(target_os = "linux") {
        return Err(PinError::Unsupported);
    }
    let allowed = core_affinity::get_core_ids().ok_or(PinError::Unsupported)?;
    let width = smt_width().unwrap_or(1);
    let mut cores: Vec<(String, CoreId)> = Vec::new();
    for id in allowed {
        let siblings = siblings(id.id).unwrap_or_else(|| (id.id / width).to_string());
        if cores.iter().all(|(of, _)| *of != siblings) {
            cores.push((siblings, id));
        }
    }
    if threads > cores.len() {
        return Err(PinError::Cores { threads, cores: cores.len() });
    }
    Ok(cores.into_iter().take(threads).map(|(_, id)| id).collect())
}

/// The hardware threads of the core that has thread `cpu`, as the system writes them.
fn siblings(cpu: usize) -> Option<String> {
    std::fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")).ok()
}
