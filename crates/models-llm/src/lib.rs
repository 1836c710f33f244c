//! vllm-models-llm
