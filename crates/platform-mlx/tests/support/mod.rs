//! What the tests share.
#![allow(dead_code, reason = "each test file uses a part")]

pub mod sequences;

use mlx_rs::Array;

/// Repeatable numbers in −1..1.
pub fn numbers(seed: u64, shape: &[i32]) -> Array {
    let n = shape.iter().product::<i32>();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let data: Vec<f32> = std::iter::repeat_with(next).take(n as usize).collect();
    Array::from_slice(&data, shape)
}
