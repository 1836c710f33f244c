//! Text encoders, one file per architecture, each read from top to bottom as the mathematics.
//!
//! Linking this crate makes the families known (they register themselves with `inventory`); nothing in it needs to be
//! named. Embeddings of decoders (Qwen3-Embedding) and rerankers that answer yes or no (Qwen3-Reranker) need nothing of
//! their own here: their networks are those of `vllm-models-llm`.
//!
//! *Invariant*: no file here names a device, and nobody but the binary names this crate.
#![forbid(unsafe_code)]

mod bert;
mod config;
mod roberta;
