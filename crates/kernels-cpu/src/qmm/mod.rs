//! Quantized matmul.
