//! Dense matmul.
