//! Vision encoders, one file per architecture, each read from top to bottom as the mathematics.
//!
//! Linking this crate makes the families known (they register themselves with `inventory`); nothing in it needs to be named. The
//! language models that read the features are those of `vllm-models-llm`: a family says which.
//!
//! *Invariant*: no file here names a device, and nobody but the binary names this crate.
#![forbid(unsafe_code)]

mod clip;
mod config;
mod gemma3;
mod idefics3;
mod language;
mod llava;
mod mistral3;
mod pixtral;
mod qwen2_5_vl;
mod qwen2_vl;
mod qwen3_vl;
mod qwen_vision;
mod rows;
mod siglip;
mod vit;
