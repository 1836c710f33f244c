//! Sums and products of equally long lists: the residual stream's additions, mostly.
//!
//! The compiler vectorises these for the baseline instruction set, and memory is what limits them: what is left for
//! us is to use all threads where the lists are long.

use crate::{
    Pool, SharedMut,
    rows::{for_numbers, for_rows},
};

/// `y = a + b`.
///
/// # Panics
/// If the lists differ in length.
pub fn add(pool: &Pool, a: &[f32], b: &[f32], y: &mut [f32]) {
    zip(pool, a, b, y, |a, b| a + b);
}

/// `y = a · b`.
///
/// # Panics
/// If the lists differ in length.
pub fn mul(pool: &Pool, a: &[f32], b: &[f32], y: &mut [f32]) {
    zip(pool, a, b, y, |a, b| a * b);
}

/// `y += x`.
///
/// # Panics
/// If the lists differ in length.
pub fn add_assign(pool: &Pool, y: &mut [f32], x: &[f32]) {
    assert_eq!(x.len(), y.len(), "elementwise: x has {} numbers, y {}", x.len(), y.len());
    let y = SharedMut::new(y);
    for_numbers(pool, x.len(), |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        y.iter_mut().zip(&x[range]).for_each(|(y, x)| *y += x);
    });
}

/// `y += row` for each row of `y`, `[rows, row.len()]`: a bias.
///
/// # Panics
/// If `y` is not whole rows.
pub fn add_row_assign(pool: &Pool, y: &mut [f32], row: &[f32]) {
    let width = row.len();
    assert!(
        y.is_empty() || width > 0 && y.len().is_multiple_of(width),
        "elementwise: {} numbers are not whole rows of {width}",
        y.len()
    );
    let rows = y.len().checked_div(width).unwrap_or(0);
    let y = SharedMut::new(y);
    for_rows(pool, rows, width, |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.start * width..range.end * width) };
        y.chunks_exact_mut(width).for_each(|y| y.iter_mut().zip(row).for_each(|(y, x)| *y += x));
    });
}

/// `y = factor · x`.
///
/// # Panics
/// If the lists differ in length.
pub fn scale(pool: &Pool, x: &[f32], factor: f32, y: &mut [f32]) {
    zip(pool, x, x, y, |x, _| factor * x);
}

fn zip(pool: &Pool, a: &[f32], b: &[f32], y: &mut [f32], f: impl Fn(f32, f32) -> f32 + Sync) {
    let (n, m) = (a.len(), b.len());
    assert!(n == m && n == y.len(), "elementwise: a has {n} numbers, b {m}, y {}", y.len());
    let y = SharedMut::new(y);
    for_numbers(pool, n, |range| {
        // SAFETY: the ranges do not overlap.
        let y = unsafe { y.slice(range.clone()) };
        y.iter_mut().zip(a[range.clone()].iter().zip(&b[range])).for_each(|(y, (&a, &b))| *y = f(a, b));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::random;

    #[test]
    fn every_number_is_computed_once() {
        for threads in [1, 2] {
            let pool = Pool::new(threads);
            for n in [0, 1, 17, 100_003] {
                let (a, b) = (random(n, 1), random(n, 2));
                let mut y = vec![f32::NAN; n];
                let check = |name: &str, y: &[f32], f: fn(f32, f32) -> f32| {
                    for i in 0..n {
                        assert_eq!(y[i], f(a[i], b[i]), "{name}, number {i} of {n}");
                    }
                };
                add(&pool, &a, &b, &mut y);
                check("add", &y, |a, b| a + b);
                mul(&pool, &a, &b, &mut y);
                check("mul", &y, |a, b| a * b);
                scale(&pool, &a, 0.3, &mut y);
                check("scale", &y, |a, _| 0.3 * a);
                y.copy_from_slice(&a);
                add_assign(&pool, &mut y, &b);
                check("add_assign", &y, |a, b| a + b);
            }
        }
    }

    #[test]
    fn a_bias_is_added_to_every_row() {
        let pool = Pool::new(2);
        for (rows, width) in [(0, 5), (3, 1), (7, 33), (300, 200)] {
            let (x, bias) = (random(rows * width, 1), random(width, 2));
            let mut y = x.clone();
            add_row_assign(&pool, &mut y, &bias);
            for i in 0..y.len() {
                assert_eq!(y[i], x[i] + bias[i % width], "{rows} rows of {width}, number {i}");
            }
        }
    }

    #[test]
    #[should_panic(expected = "a has 2 numbers, b 3, y 2")]
    fn unequal_lists_are_refused() {
        add(&Pool::new(1), &[0.0; 2], &[0.0; 3], &mut [0.0; 2]);
    }
}
