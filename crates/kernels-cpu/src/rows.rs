//! How kernels that go over rows (or over plain lists of numbers) share the work.

use std::ops::Range;

use crate::Pool;

/// Numbers below which starting threads costs more than it saves (about 2 µs of work).
const TASK: usize = 16 * 1024;

/// Calls `body` with ranges that cover `0..rows`, on all threads of `pool` if there is enough to do: a row has `width`
/// numbers. The split depends on the pool, so a row's result must not depend on its range.
pub(crate) fn for_rows(pool: &Pool, rows: usize, width: usize, body: impl Fn(Range<usize>) + Sync) {
    let per_task = TASK.div_ceil(width.max(1)).max(rows.div_ceil(pool.threads() * 8)).max(1);
    pool.run(rows.div_ceil(per_task), |task| {
        let first = task * per_task;
        body(first..rows.min(first + per_task));
    });
}

/// As [`for_rows`] for `len` numbers in a list; all ranges but the last begin and end at multiples of a cache line.
pub(crate) fn for_numbers(pool: &Pool, len: usize, body: impl Fn(Range<usize>) + Sync) {
    const LINE: usize = 16;
    for_rows(pool, len.div_ceil(LINE), LINE, |lines| body(lines.start * LINE..len.min(lines.end * LINE)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn ranges_cover_every_row_once() {
        let pool = Pool::new(2);
        for (rows, width) in [(0, 8), (1, 8), (1000, 1), (7, 100_000), (4097, 576), (5, 0)] {
            let seen = Mutex::new(vec![0u8; rows]);
            for_rows(&pool, rows, width, |range| range.for_each(|i| seen.lock().unwrap()[i] += 1));
            assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1), "{rows} rows of {width}");
        }
        for len in [0, 1, 15, 16, 17, 100_003] {
            let seen = Mutex::new(vec![0u8; len]);
            for_numbers(&pool, len, |range| range.for_each(|i| seen.lock().unwrap()[i] += 1));
            assert!(seen.into_inner().unwrap().iter().all(|&n| n == 1), "{len} numbers");
        }
    }
}
