//! Quantized weights in MLX's layouts.
