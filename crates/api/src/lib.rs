//! vllm-api
