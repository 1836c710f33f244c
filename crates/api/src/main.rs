//! `vllm-mlx`.

// Linked for what they register with inventory; nothing else names them.
use vllm_models_audio as _;
use vllm_models_embed as _;
use vllm_models_llm as _;
use vllm_models_vlm as _;
use vllm_platform_mlx as _;

fn main() -> std::process::ExitCode {
    vllm_api::cli::main()
}
