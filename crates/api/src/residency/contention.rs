//! What happens when models in use fill the memory.

use std::time::Duration;

/// How a model that finds no room gets it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contention {
    /// How long others are waited for; `None`: for as long as it takes.
    pub wait: Option<Duration>,
    /// Whether after that a model in use is unloaded all the same: its requests fail.
    pub preempt: bool,
}

impl Default for Contention {
    fn default() -> Self {
        Self { wait: Some(Duration::from_secs(30)), preempt: false }
    }
}

impl Contention {
    /// The strategy of that name, with `wait` where it waits.
    #[must_use]
    pub fn by_name(name: &str, wait: Duration) -> Option<Self> {
        let (wait, preempt) = match name {
            "fail" => (Some(Duration::ZERO), false),
            "wait" => (None, false),
            "preempt" => (Some(Duration::ZERO), true),
            "wait_then_fail" => (Some(wait), false),
            "wait_then_preempt" => (Some(wait), true),
            _ => return None,
        };
        Some(Self { wait, preempt })
    }
}
