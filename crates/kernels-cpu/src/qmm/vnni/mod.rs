//! Packed weights by the byte dot products of AVX-512 VNNI.
//!
//! With `x` in digits (see [`super::digits`]) a lane of four bytes takes four products in one instruction a digit, where a fused
//! multiply-add takes one.

mod tile;

use super::{
    digits::{Record, split},
    kernel::{Kernel, PANELS, ROWS},
};

pub(super) static TWO_DIGITS: Kernel = Kernel {
    record_len: Record::<2>::LEN,
    rows: ROWS,
    panels: PANELS,
    split: split::<2>,
    multiply: |layout, rows, panels| tile::multiply(layout, 2, rows, panels),
};

pub(super) static ONE_DIGIT: Kernel = Kernel {
    record_len: Record::<1>::LEN,
    rows: ROWS,
    panels: PANELS,
    split: split::<1>,
    multiply: |layout, rows, panels| tile::multiply(layout, 1, rows, panels),
};
