//! vllm-text
