//! What this process has taken of the machine's memory.

/// The most bytes of memory that this process ever held, or `None` where the system doesn't say.
pub(crate) fn peak_rss_bytes() -> Option<u64> {
    #[cfg(target_os = "macos")]
    {
        use nix::sys::resource::{UsageWho, getrusage};
        // Bytes on macOS (kilobytes elsewhere).
        return getrusage(UsageWho::RUSAGE_SELF).ok().map(|usage| usage.max_rss() as u64);
    }
    #[cfg(not(target_os = "macos"))]
    {
        let status = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        Some(kib * 1024)
    }
}
