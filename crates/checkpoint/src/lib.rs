//! A model's files, without MLX: Hugging Face folders, MLX-quantized folders, GGUF files, and ids on the hub.
//!
//! [`Checkpoint::open`] gives all of them one face: a `config.json`, named weights in Hugging Face's convention, a
//! tokenizer, a chat template. Weights come as bytes with a description ([`DenseTensor`]) or as quantized codes in MLX's
//! layout ([`QuantizedTensor`]); files are mapped, and what a file already holds in the wanted form is never copied.
//! [`hub::resolve`] turns `org/name` into a local path.
//!
//! *Invariant*: this crate computes nothing with weights. It does file and network IO and rearranges bits; no number
//! changes its value on the way, except that Q6_K, whose groups fit no MLX layout, is rounded to half precision. It knows
//! neither MLX nor tokenizer algorithms nor model mathematics, and it believes nothing that a file says about lengths.
//!
//! ```no_run
//! use vllm_checkpoint::{Checkpoint, hub};
//!
//! let options = hub::HubOptions::from_env();
//! let path = hub::resolve("mlx-community/Qwen3-0.6B-4bit", &options, &mut |_| ())?;
//! let model = Checkpoint::open(&path)?;
//! for name in model.tensor_names() {
//!     println!("{name} {:?}", model.spec(name)?.shape);
//! }
//! # Ok::<(), vllm_checkpoint::Error>(())
//! ```

mod checkpoint;
mod config;
mod directory;
mod error;
mod gguf;
pub mod hub;
mod mapped;
mod safetensors;
mod sentence;
mod tensor;
mod tokenizer;

pub use checkpoint::Checkpoint;
pub use error::{Error, Result};
pub use sentence::{Pooling, SentenceModel};
pub use tensor::{DenseTensor, Dtype, QuantMode, QuantParams, QuantizedTensor, Storage, TensorData, TensorSpec};
pub use tokenizer::{GgufVocab, SpecialToken, SpecialTokens, TokenType, TokenizerSource};
