//! How many threads are worth having.

use std::thread;

/// How many physical cores this process may use: SMT siblings share the vector units, so a second thread on a core
/// only adds contention.
pub(super) fn physical_cores() -> usize {
    let logical = thread::available_parallelism().map_or(1, usize::from);
    smt_width().map_or(logical, |width| logical.div_ceil(width)).max(1)
}

/// Hardware threads of a core, where the system tells.
fn smt_width() -> Option<usize> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/topology/thread_siblings_list").ok()?;
    let count = |part: &str| match part.split_once('-') {
        Some((first, last)) => Some(last.trim().parse::<usize>().ok()? + 1 - first.trim().parse::<usize>().ok()?),
        None => Some(1),
    };
    list.trim().split(',').map(count).sum::<Option<usize>>().filter(|&width| width > 0)
}
