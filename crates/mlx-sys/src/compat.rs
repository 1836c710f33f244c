//! Functions of Apple's libc that mlx-rs calls by name.

/// mlx-rs seeds its random state with this clock: nanoseconds, for want of Apple's ticks.
#[cfg(not(target_vendor = "apple"))]
#[unsafe(no_mangle)]
extern "C" fn mach_approximate_time() -> u64 {
    use std::time::{SystemTime, UNIX_EPOCH};
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_nanos() as u64)
}
