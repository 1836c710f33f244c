//! What the fuzz targets have in common.
#![forbid(unsafe_code)]

mod events;
mod input;
mod mutate;
mod panics;

pub use events::{check_calls, merged};
pub use input::{Rng, head, pieces};
pub use mutate::{JSON, insert, markers};
pub use panics::allow_contained;
