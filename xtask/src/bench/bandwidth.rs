//! How fast the machine reads memory: the limit of every memory-bound kernel.

use std::{hint::black_box, thread, time::Instant};

/// Larger than any cache, together with its twin.
const BYTES: usize = 192 << 20;

/// Bytes a second that `threads` threads read together; the best of several rounds.
///
/// Comparing two equal buffers is the platform's own tuned way of reading all of both, at whatever optimisation we are built.
pub fn read(threads: usize) -> f64 {
    let one = vec![1u8; BYTES];
    let other = vec![1u8; BYTES];
    let part = BYTES / threads.max(1);
    let mut best = 0.0_f64;
    for _ in 0..5 {
        let start = Instant::now();
        thread::scope(|scope| {
            for (a, b) in one.chunks(part).zip(other.chunks(part)) {
                scope.spawn(move || black_box(black_box(a) == black_box(b)));
            }
        });
        best = best.max(2.0 * BYTES as f64 / start.elapsed().as_secs_f64());
    }
    best
}
