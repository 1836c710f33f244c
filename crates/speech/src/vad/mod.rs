//! Where in a sound somebody speaks.
//!
//! [`Silero`] is a network of 300,000 weights that says of every 32 ms how probable it is; [`speech`] makes stretches of that, [`windows`]
//! packs them for a model that hears 30 seconds at once, and [`TurnDetector`] follows a sound that is still being spoken.

mod layers;
mod silero;
mod stretches;
mod turns;
mod windows;

pub use silero::{CHUNK, LoadError, SAMPLE_RATE, Silero, Stream};
pub use stretches::{VadOptions, speech, stretches};
pub use turns::{TurnDetector, TurnEvent, TurnOptions};
pub use windows::{SpeechWindow, windows};
