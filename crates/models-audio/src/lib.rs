//! Models that hear and models that speak, one file or folder per architecture, each read from top to bottom as the mathematics.
//!
//! Linking this crate makes the families known (they register themselves with `inventory`); nothing in it needs to be named. What is
//! done before a model (spectrograms, phonemes) and after it (which text it wrote, and when) is `vllm-speech`'s.
//!
//! *Invariant*: no file here names a device, and nobody but the binary names this crate.
#![forbid(unsafe_code)]

mod kokoro;
mod parakeet;
mod whisper;
