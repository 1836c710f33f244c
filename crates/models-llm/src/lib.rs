//! Text models, one file per architecture.
//!
//! Each file reads from top to bottom as the mathematics: configuration, attention, block, model. What is not
//! mathematics is elsewhere: devices, weights, layers and KV storage in `vllm-platform-mlx`, batching in its
//! [`Batch`](vllm_platform_mlx::Batch), sampling in `vllm-platform`. A family registers itself with `inventory` and is
//! found by the name that `config.json` gives under `architectures`; nothing names it except the binary that links it:
//!
//! ```
//! use vllm_models_llm as _; // links the families into this binary
//!
//! let known: Vec<_> = vllm_platform_mlx::model::families().iter().map(|family| family.architecture).collect();
//! assert!(known.contains(&"Qwen3ForCausalLM"));
//! ```
//!
//! | Architecture | File | Models |
//! |---|---|---|
//! | `LlamaForCausalLM`, `MistralForCausalLM` | `llama.rs` | Llama 1 to 3.3, SmolLM2, Mistral 7B, … |
//! | `Qwen2ForCausalLM` | `qwen2.rs` | Qwen2, Qwen2.5, QwQ |
//! | `Qwen3ForCausalLM` | `qwen3.rs` | Qwen3, dense |
//! | `Qwen3MoeForCausalLM` | `qwen3_moe.rs` | Qwen3 with experts: 30B-A3B, 235B-A22B |
//! | `Gemma3ForCausalLM` | `gemma3.rs` | Gemma 3, text |
//!
//! *Invariant*: this crate does no IO, holds no state between steps, and never asks which device it runs on.

#![deny(unsafe_code)]

mod config;
mod gemma3;
mod llama;
mod output;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod stage;
