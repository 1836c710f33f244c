//! Images and videos: fetched, decoded, named by their pixels, and cut into the patches that a model wants.
//!
//! **Invariant:** no tensor and no token is computed here; what comes from outside is bounded in bytes, pixels and time before
//! anything is allocated for it.

#![forbid(unsafe_code)]

mod error;
mod picture;
mod processor;

pub use error::{MediaError, MediaErrorKind};
pub use picture::{Frame, Picture, Video};
pub use processor::{Detail, ExpandError, Part, PlacedSpan, Prepared, Processor, ProcessorError, Run};
