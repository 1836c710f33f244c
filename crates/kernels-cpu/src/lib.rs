//! vllm-kernels-cpu
