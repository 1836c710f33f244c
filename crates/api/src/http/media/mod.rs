//! Images and videos of requests.
//!
//! A route's body becomes messages whose content has `{"type": "image", "media": 0}` where an image stands, and [`Media`],
//! the list of what stands there: where each is to be had, as the client said. [`Media::load`] fetches and decodes them all,
//! on async workers; [`ChatRequest::prepare`](super::chat::ChatRequest::prepare) then puts tokens in their places.

mod load;
mod options;
mod part;
mod taken;
#[cfg(test)]
mod tests;

pub use options::{MediaLimits, MediaOptions, Sampling};
pub use part::{Given, MediaPart, read_base64, read_source, take_detail};
#[cfg(test)]
pub use taken::Takes;
pub use taken::{Kind, Media, place};
