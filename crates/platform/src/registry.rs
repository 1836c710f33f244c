//! Platforms announce themselves here.

use crate::{Platform, Result};

/// A platform compiled into the binary. Submit one with `inventory::submit!` (re-exported as
/// [`crate::inventory`]).
pub struct PlatformPlugin {
    /// Name shown to users, e.g. `mlx`.
    pub name: &'static str,
    /// Opens the platform. Cheap: it must not load or allocate anything large.
    pub open: fn() -> Result<Box<dyn Platform>>,
}

inventory::collect!(PlatformPlugin);

/// All platforms linked into this binary.
pub fn platforms() -> impl Iterator<Item = &'static PlatformPlugin> {
    inventory::iter::<PlatformPlugin>()
}
