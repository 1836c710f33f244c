//! vllm-scheduler
