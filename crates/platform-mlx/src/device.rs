//! Which devices the linked MLX has, and their memory.

use std::fs;

use mlx_rs::{Device, Stream, memory};
use vllm_platform::{DeviceKind, MemoryInfo};

use crate::{Result, cgroup, ffi};

/// Devices of the MLX that is linked, best first. The CPU is always there.
pub(crate) fn available() -> Vec<DeviceKind> {
    let mut devices = Vec::new();
    if ffi::metal_is_available() {
        devices.push(DeviceKind::Metal);
    }
    if ffi::cuda_is_available() {
        devices.push(DeviceKind::Cuda);
    }
    devices.push(DeviceKind::Cpu);
    devices
}

/// The calling thread's stream on `device`. MLX streams belong to their thread.
pub(crate) fn stream(device: DeviceKind) -> Result<Stream> {
    let device = match device {
        DeviceKind::Metal | DeviceKind::Cuda => Device::gpu(),
        DeviceKind::Cpu => Device::cpu(),
    };
    Ok(Stream::try_default_on_device(&device)?)
}

/// Memory of `device`; `unaccounted` bytes are held in memory that MLX doesn't know of.
pub(crate) fn memory(device: DeviceKind, unaccounted: u64) -> Result<MemoryInfo> {
    let total = match device {
        DeviceKind::Metal | DeviceKind::Cuda => ffi::gpu_memory_size().unwrap_or_else(|| host_memory().total),
        DeviceKind::Cpu => host_memory().total,
    };
    let limit = match device {
        // Metal: what the GPU may wire without the system swapping, which MLX sets as its own limit.
        DeviceKind::Metal | DeviceKind::Cuda => match memory::memory_limit()? as u64 {
            0 => total,
            limit => limit.min(total),
        },
        DeviceKind::Cpu => host_memory().available,
    };
    Ok(MemoryInfo {
        total,
        limit,
        active: memory::active_memory()? as u64 + unaccounted,
        cached: memory::cache_memory()? as u64,
        peak: memory::peak_memory()? as u64 + unaccounted,
    })
}

/// Bytes that `device` grants to a model that is about to be loaded: of a GPU what this process doesn't hold yet, of the
/// host what the kernel calls available and the control group allows.
pub(crate) fn granted(device: DeviceKind) -> Result<u64> {
    let memory = memory(device, 0)?;
    Ok(match device {
        DeviceKind::Metal | DeviceKind::Cuda => memory.limit.saturating_sub(memory.active),
        DeviceKind::Cpu => memory.limit,
    })
}

struct HostMemory {
    total: u64,
    available: u64,
}

/// The host's memory as the kernel and the control group grant it.
fn host_memory() -> HostMemory {
    if cfg!(target_os = "macos") {
        let total = std::process::Command::new("/usr/sbin/sysctl")
            .args(["-n", "hw.memsize"])
            .output()
            .ok()
            .and_then(|out| String::from_utf8(out.stdout).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(0);
        return HostMemory { total, available: total / 4 * 3 };
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (total, available) = (meminfo_bytes(&meminfo, "MemTotal:"), meminfo_bytes(&meminfo, "MemAvailable:"));
    match cgroup::memory() {
        Some(grant) => HostMemory { total: total.min(grant.limit), available: available.min(grant.available) },
        None => HostMemory { total, available },
    }
}

/// A line of `/proc/meminfo`, e.g. `MemTotal:  24574984 kB`, in bytes; 0 if it isn't there.
fn meminfo_bytes(meminfo: &str, key: &str) -> u64 {
    meminfo
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .and_then(|rest| rest.trim().strip_suffix("kB"))
        .and_then(|kib| kib.trim().parse::<u64>().ok())
        .map_or(0, |kib| kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_lines_are_kibibytes() {
        let text = "MemTotal:       24574984 kB\nMemAvailable:   12 kB\n";
        assert_eq!(meminfo_bytes(text, "MemTotal:"), 24_574_984 * 1024);
        assert_eq!(meminfo_bytes(text, "MemAvailable:"), 12 * 1024);
        assert_eq!(meminfo_bytes(text, "SwapTotal:"), 0);
    }

    #[test]
    fn the_cpu_is_always_there() {
        assert_eq!(available().last(), Some(&DeviceKind::Cpu));
    }
}
