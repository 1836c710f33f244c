//! vllm-platform-mlx
