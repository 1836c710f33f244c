//! Matmuls of packed weights, on any instruction set with a [`Kernel`].
//!
//! A lane is a row of weights, so that nothing is ever summed across lanes, and activations, as integers (see [`super::digits`]), are
//! broadcast.
//!
//! Of each span `Σ code · X` is an integer; it is rounded to f32 once, and then `sum + scale · u · Σ code · X` and
//! `sum + bias · u · Σ X` once each, span after span from the first column to the last. (Of symmetric weights it is
//! `Σ (code − zero) · X`, and there is no second sum.) So a row of `y` has the same bits in every batch, and on every
//! instruction set that takes activations as the same integers.

use std::ops::Range;

use super::{
    Linear,
    digits::SPAN,
    kernel::{Kernel, PANELS, Panels, Tile},
    packed::LANES,
};
use crate::{
    Activation, Pool, SharedMut, activation,
    scratch::{self, Scratch},
};

/// Bytes of weights in a task: they stay in a core's L2 while a batch goes over them, and claiming them costs nothing.
const TASK_BYTES: usize = 128 << 10;
/// Columns of `x` that are worth splitting on another thread.
const SPLIT_COLUMNS: usize = 8192;

/// `x` as integers.
struct Integers {
    kernel: &'static Kernel,
    words: Scratch,
    /// Words of a row.
    row_len: usize,
    rows: usize,
}

impl Integers {
    /// Of `x` in rows of `cols` columns, for the kernel of `pool`.
    fn new(pool: &Pool, x: &[f32], cols: usize) -> Self {
        let isa = pool.isa();
        let kernel = Kernel::of(isa, pool.activations()).unwrap_or_else(|| panic!("weights are not packed for {isa}"));
        let (rows, row_len) = (x.len() / cols, cols / SPAN * kernel.record_len);
        let mut words = scratch::take(rows * row_len);
        let rows_at_once = SPLIT_COLUMNS.div_ceil(cols);
        pool.run_chunks(&mut words, rows_at_once * row_len, |first, out| {
            let x = x[first / row_len * cols..].chunks_exact(cols);
            for (x, out) in x.zip(out.chunks_exact_mut(row_len)) {
                // SAFETY: any f32 is a word and as large; a pool's instruction set is one that this processor has.
                unsafe { (kernel.split)(x, std::slice::from_raw_parts_mut(out.as_mut_ptr().cast(), row_len)) }
            }
        });
        Self { kernel, words, row_len, rows }
    }

    /// Calls `body` with the rows and the panels of each tile of `panels`.
    fn tiles(&self, panels: &Range<usize>, mut body: impl FnMut(Range<usize>, Range<usize>)) {
        // A single row waits for memory, which gives most to a single stream.
        let width = if self.rows == 1 { 1 } else { self.kernel.panels };
        let mut row = 0;
        while row < self.rows {
            // As many tiles as must be, and of sizes as even as can be.
            let left = self.rows - row;
            let count = left.div_ceil(left.div_ceil(self.kernel.rows));
            for panel in panels.clone().step_by(width) {
                body(row..row + count, panel..panels.end.min(panel + width));
            }
            row += count;
        }
    }

    /// The products of some rows with one or two panels of a layer, biases added.
    ///
    /// # Safety
    /// Rows and panels are there.
    unsafe fn multiply(&self, rows: &Range<usize>, layer: &Linear, panels: &Range<usize>, out: &mut Tile) {
        let w = layer.w;
        let operands = Panels {
            layout: w.layout(),
            groups: w.groups(),
            // Where the second is missing the first stands in, for nothing.
            starts: [panels.start, panels.end - 1].map(|panel| w.panel(panel).as_ptr()),
        };
        let width = if self.rows == 1 { 1 } else { self.kernel.panels };
        let x = self.words[rows.start * self.row_len..].as_ptr().cast();
        // SAFETY: by the caller's promise; a pool's instruction set is one that this processor has.
        unsafe { (self.kernel.multiply)(w.layout(), rows.len(), width)(operands, x, self.row_len, out) }
        if let Some(bias) = layer.bias {
            for row in &mut out.0[..rows.len()] {
                row.iter_mut().zip(&bias[panels.start * LANES..]).for_each(|(y, bias)| *y += bias);
            }
        }
    }
}

/// Runs `body` for parts of `panels` panels of `panel_words` words, on all threads.
fn for_panels(pool: &Pool, panels: usize, panel_words: usize, body: impl Fn(Range<usize>) + Sync) {
    let by_bytes = TASK_BYTES / (4 * panel_words);
    let count = by_bytes.min(panels.div_ceil(4 * pool.threads())).max(1).next_multiple_of(PANELS);
    pool.run(panels.div_ceil(count), |task| body(task * count..panels.min((task + 1) * count)));
}

/// What [`super::packed_matmul`] does.
///
/// # Safety
/// `x` and `ys` have as many rows, of the layers' shapes; the layers have columns.
pub(super) unsafe fn matmul(pool: &Pool, x: &[f32], layers: &[Linear], ys: &mut [&mut [f32]]) {
    let x = Integers::new(pool, x, layers[0].w.cols());
    let ys: Vec<_> = ys.iter_mut().map(|y| SharedMut::new(y)).collect();
    let panels = layers.iter().map(|layer| layer.w.panels()).sum();
    for_panels(pool, panels, layers[0].w.panel_words(), |range| {
        let mut before = 0;
        for (layer, y) in layers.iter().zip(&ys) {
            let count = layer.w.panels();
            let part = range.start.max(before) - before..range.end.min(before + count).saturating_sub(before);
            before += count;
            if !part.is_empty() {
                // SAFETY: by the caller's promise; no other task has these panels.
                unsafe { columns(&x, layer, &part, y) }
            }
        }
    });
}

/// The columns of `y` that belong to some panels.
///
/// # Safety
/// As [`matmul`]; nobody else touches these columns of `y`.
unsafe fn columns(x: &Integers, layer: &Linear, panels: &Range<usize>, y: &SharedMut<f32>) {
    let stride = layer.w.rows();
    let mut tile = Tile::default();
    x.tiles(panels, |rows, panels| {
        let columns = panels.start * LANES..stride.min(panels.end * LANES);
        // SAFETY: by the caller's promise; rows and columns lie in y.
        unsafe {
            x.multiply(&rows, layer, &panels, &mut tile);
            store(&tile, rows.len(), columns.len(), y.as_ptr().add(rows.start * stride + columns.start), stride);
        }
    });
}

/// What [`super::gated_matmul`] does.
///
/// # Safety
/// As [`matmul`]; both layers have one shape.
pub(super) unsafe fn gated(pool: &Pool, x: &[f32], layers: [Linear; 2], activation: Activation, y: &mut [f32]) {
    let w = layers[0].w;
    let x = Integers::new(pool, x, w.cols());
    let y = SharedMut::new(y);
    for_panels(pool, w.panels(), 2 * w.panel_words(), |range| {
        let mut tiles = [Tile::default(); 2];
        x.tiles(&range, |rows, panels| {
            let columns = panels.start * LANES..w.rows().min(panels.end * LANES);
            for (layer, tile) in layers.iter().zip(&mut tiles) {
                // SAFETY: by the caller's promise.
                unsafe { x.multiply(&rows, layer, &panels, tile) }
            }
            for (i, row) in rows.enumerate() {
                // SAFETY: no other task has these columns of y.
                let y = unsafe { y.slice(row * w.rows() + columns.start..row * w.rows() + columns.end) };
                let [gate, up] = tiles.each_ref().map(|tile| &tile.0[i][..columns.len()]);
                activation::apply_here(pool, activation, gate, Some(up), y);
            }
        });
    });
}

/// Writes the first `lanes` numbers of a tile's first `rows` rows to as many rows at `y`, `stride` apart.
///
/// # Safety
/// These numbers of `y` are writable.
unsafe fn store(tile: &Tile, rows: usize, lanes: usize, y: *mut f32, stride: usize) {
    for (i, row) in tile.0[..rows].iter().enumerate() {
        for (panel, numbers) in row[..lanes].chunks(LANES).enumerate() {
            // SAFETY: by the caller's promise.
            unsafe {
                let y = y.add(i * stride + panel * LANES);
                // Most are whole, and a length that is known makes a few instructions of a call.
                match <&[f32; LANES]>::try_from(numbers) {
                    Ok(numbers) => y.cast::<[f32; LANES]>().write_unaligned(*numbers),
                    Err(_) => y.copy_from_nonoverlapping(numbers.as_ptr(), numbers.len()),
                }
            }
        }
    }
}
