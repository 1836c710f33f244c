//! Images and videos: fetched, decoded, named by their pixels, and cut into the patches that a model wants.
//!
//! **Invariant:** no tensor and no token is computed here; what comes from outside is bounded in bytes, pixels and time before
//! anything is allocated for it.

#![forbid(unsafe_code)]

mod decode;
mod error;
mod fetch;
mod limits;
mod loader;
mod picture;
mod processor;
mod recent;
mod source;
mod video;

pub use decode::{PictureFormat, decode_picture};
pub use error::{MediaError, MediaErrorKind};
pub use fetch::FetchPolicy;
pub use limits::Limits;
pub use loader::Loader;
pub use picture::{Frame, Picture, Video};
pub use processor::{Detail, ExpandError, Part, PlacedSpan, Prepared, Processor, ProcessorError, Run};
pub use recent::Remembered;
pub use source::Source;
pub use video::{Sampling, Spread, decode_video, sample_indices};
