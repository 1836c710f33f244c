//! `vllm-mlx`.

// Linked for what they register with inventory; nothing else names them.
use vllm_models_audio as _;
use vllm_models_embed as _;
use vllm_models_llm as _;
use vllm_models_vlm as _;

fn main() -> ! {
    vllm_platform_mlx::ffi::exit(vllm_api::cli::main())
}
