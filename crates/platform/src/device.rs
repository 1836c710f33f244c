//! Which device to run on, and what memory it has.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of device that a platform can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// Apple GPU.
    Metal,
    /// NVIDIA GPU.
    Cuda,
    /// The host's processor.
    Cpu,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Metal => "metal",
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        })
    }
}

/// What the user asked for with `--device`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// The best device present: a GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// Apple GPU, or an error.
    Metal,
    /// NVIDIA GPU, or an error.
    Cuda,
    /// The host's processor.
    Cpu,
}

impl DeviceChoice {
    /// Picks from `available`, best first.
    ///
    /// # Errors
    /// [`crate::Error::DeviceAbsent`] if the device asked for isn't there.
    pub fn resolve(self, available: &[DeviceKind]) -> crate::Result<DeviceKind> {
        let wanted = match self {
            Self::Auto => {
                return available
                    .first()
                    .copied()
                    .ok_or(crate::Error::DeviceAbsent { wanted: "any".into(), available: String::new() });
            }
            Self::Metal => DeviceKind::Metal,
            Self::Cuda => DeviceKind::Cuda,
            Self::Cpu => DeviceKind::Cpu,
        };
        if available.contains(&wanted) {
            return Ok(wanted);
        }
        let names: Vec<_> = available.iter().map(ToString::to_string).collect();
        Err(crate::Error::DeviceAbsent { wanted: wanted.to_string(), available: names.join(", ") })
    }
}

/// A device name that isn't one of `auto`, `metal`, `cuda`, `cpu`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown device {0:?}: use auto, metal, cuda or cpu")]
pub struct ParseDeviceError(String);

impl FromStr for DeviceChoice {
    type Err = ParseDeviceError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        match s {
            "auto" => Ok(Self::Auto),
            "metal" => Ok(Self::Metal),
            "cuda" => Ok(Self::Cuda),
            "cpu" => Ok(Self::Cpu),
            other => Err(ParseDeviceError(other.into())),
        }
    }
}

/// Device memory, in bytes. On unified-memory devices this is the host's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct MemoryInfo {
    /// What the device has in all.
    pub total: u64,
    /// What a process may use before it is slowed or killed.
    pub limit: u64,
    /// Held by live arrays and KV storage.
    pub active: u64,
    /// Freed, kept by the allocator for reuse.
    pub cached: u64,
    /// The most that was ever active.
    pub peak: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_the_first_and_absent_devices_are_named() {
        let both = [DeviceKind::Cuda, DeviceKind::Cpu];
        assert_eq!(DeviceChoice::Auto.resolve(&both).unwrap(), DeviceKind::Cuda);
        assert_eq!(DeviceChoice::Cpu.resolve(&both).unwrap(), DeviceKind::Cpu);
        let message = DeviceChoice::Metal.resolve(&both).unwrap_err().to_string();
        assert_eq!(message, "device metal is not present; this build of MLX has: cuda, cpu");
    }
}
