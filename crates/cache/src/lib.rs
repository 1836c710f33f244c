//! vllm-cache
