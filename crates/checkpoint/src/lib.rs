//! vllm-checkpoint
