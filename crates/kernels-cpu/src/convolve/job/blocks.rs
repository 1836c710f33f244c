//! A task: the integers of its frames, and tile after tile.

use std::ops::Range;

use super::{
    Job,
    emit::{Groups, Place, Plain, Row},
};
use crate::{
    Pool, SharedMut,
    convolve::{
        integers::Quantize,
        kernel::{Numbers, PANELS, ROWS, Reads, Tile},
        packed::{LANES, Packed},
        toom::{Frames, POINTS, TOGETHER, Values},
    },
    scratch,
    simd::kernel::run,
};

/// Frames of a batch entry, where a stretch of the padded input begins in the middle.
struct Stretch<'a> {
    /// Frames of padding before them.
    before: usize,
    frames: &'a [f32],
}

impl Job<'_> {
    /// The frames among `count` from `first` on of the padded input.
    fn stretch(&self, entry: usize, first: usize, count: usize) -> Stretch<'_> {
        let (channels, padding) = (self.weights.parts()[0].channels, self.conv.padding);
        let before = padding.saturating_sub(first).min(count);
        let begin = (first + before).saturating_sub(padding).min(self.length);
        let end = self.length.min(begin + count - before);
        let entry = &self.x[entry * self.length * channels..][..self.length * channels];
        Stretch { before, frames: &entry[begin * channels..end * channels] }
    }

    /// The results `places` of a batch entry, of the panels in `columns`, each as many as a tile takes.
    pub(super) fn plain(
        &self,
        pool: &Pool,
        packed: &Packed,
        entry: usize,
        places: Range<usize>,
        columns: Range<usize>,
        y: SharedMut<'_, f32>,
    ) {
        let (conv, numbers, channels) = (self.conv, self.kernel.numbers, packed.channels);
        let row_words = packed.row_words();
        let count = (places.len() - 1) * conv.stride + (packed.kernel - 1) * conv.dilation + 1;
        let mut scratch = scratch::take(count * row_words + count + channels);
        let (integers, rest) = scratch.split_at_mut(count * row_words);
        let (units, room) = rest.split_at_mut(count);
        let integers = as_words(integers);
        let Stretch { before, frames } = self.stretch(entry, places.start * conv.stride, count);
        let after = before + frames.len() / channels;
        for range in [0..before, after..count] {
            let zero = if numbers == Numbers::Unsigned { 0x8080_8080 } else { 0 };
            integers[range.start * row_words..range.end * row_words].fill(zero);
            units[range].fill(0.0);
        }
        if before < after {
            let rows = &mut integers[before * row_words..after * row_words];
            let units = &mut units[before..after];
            run(pool, Quantize { x: frames, channels, inlet: self.inlet, numbers, room, rows, units });
        }
        let mut tile = Tile([[0.0; PANELS * LANES]; ROWS]);
        for column in columns {
            let panel = column * self.kernel.panels;
            let place = Place { job: self, entry, panel, y };
            self.tiles(places.len(), |at, count, multiply| {
                let first = at * conv.stride;
                let (x, units) = (integers[first * row_words..].as_ptr(), units[first..].as_ptr());
                let reads = reads(packed, panel, x, units, [conv.stride, conv.dilation]);
                // SAFETY: the kernel was chosen for this processor; the last row that the last tap of the last result sees is the
                // last of `count`, and the panels are a multiple of what a tile takes.
                unsafe { multiply(&reads, &mut tile) };
                run(pool, Plain { place, packed, first: places.start + at, rows: &tile.0[..count] });
            });
        }
    }

    /// The results of the groups `groups` of a batch entry, whole cycles of the dilation, of the panels in `columns`.
    pub(super) fn points(
        &self,
        pool: &Pool,
        points: &[Packed; POINTS],
        entry: usize,
        groups: Range<usize>,
        columns: Range<usize>,
        y: SharedMut<'_, f32>,
    ) {
        let (dilation, channels, row_words) = (self.conv.dilation, points[0].channels, points[0].row_words());
        let rows = groups.len() + (points[0].kernel - 1) * dilation;
        let start = |group: usize| group / dilation * TOGETHER * dilation + group % dilation;
        let first = start(groups.start);
        let seen = start(groups.start + rows - 1) - first + (POINTS - 1) * dilation + 1;
        let mut scratch = scratch::take(POINTS * rows * (row_words + 1) + (seen + POINTS) * channels);
        let (integers, rest) = scratch.split_at_mut(POINTS * rows * row_words);
        let (units, rest) = rest.split_at_mut(POINTS * rows);
        let (frames, room) = rest.split_at_mut(seen * channels);
        let integers = as_words(integers);
        let Stretch { before, frames: x } = self.stretch(entry, first, seen);
        run(pool, Frames { x, channels, inlet: self.inlet, before, out: &mut *frames });
        // The first group is one of the first of its cycle: blocks are whole cycles.
        let values = Values {
            frames,
            channels,
            dilation,
            numbers: self.kernel.numbers,
            room,
            rows: &mut *integers,
            units: &mut *units,
        };
        run(pool, values);
        // The products of each point, with room for a whole tile at the last.
        let apart = groups.len() + ROWS;
        let mut products = scratch::take(POINTS * apart * PANELS * LANES);
        let (products, _) = products.as_chunks_mut::<{ PANELS * LANES }>();
        for column in columns {
            let panel = column * self.kernel.panels;
            for (point, packed) in points.iter().enumerate() {
                self.tiles(groups.len(), |at, _, multiply| {
                    let row = point * rows + at;
                    let (x, units) = (integers[row * row_words..].as_ptr(), units[row..].as_ptr());
                    let reads = reads(packed, panel, x, units, [1, dilation]);
                    let out: &mut [Row] = &mut products[point * apart + at..][..ROWS];
                    // SAFETY: as above: the last tap of the last group sees the last of the point's `rows`. A tile is as many rows
                    // at the alignment of scratch memory, of which rows are multiples.
                    unsafe { multiply(&reads, &mut *out.as_mut_ptr().cast::<Tile>()) };
                });
            }
            let place = Place { job: self, entry, panel, y };
            run(pool, Groups { place, points, first: groups.start, rows: products, apart, count: groups.len() });
        }
    }

    /// Cuts so many rows into tiles: calls `body` with the first row of each, how many it has, and the function for them.
    fn tiles(&self, rows: usize, mut body: impl FnMut(usize, usize, crate::convolve::kernel::Multiply)) {
        let mut at = 0;
        while at < rows {
            let fits = |tile: &&(usize, _)| tile.0 <= rows - at;
            let &(count, multiply) = self.kernel.tiles.iter().find(fits).expect("the last has one row");
            body(at, count, multiply);
            at += count;
        }
    }
}

fn reads(packed: &Packed, panel: usize, x: *const u32, units: *const f32, [stride, dilation]: [usize; 2]) -> Reads {
    Reads {
        panel: packed.panels_from(panel).as_ptr(),
        panel_words: packed.panel_words(),
        x,
        units,
        row_words: packed.row_words(),
        stride,
        dilation,
        taps: packed.kernel,
        segments: packed.segments,
        segment_words: packed.segment_words,
    }
}

/// The same memory.
fn as_words(numbers: &mut [f32]) -> &mut [u32] {
    // SAFETY: f32 and u32 are alike in size and alignment, and any bits are either.
    unsafe { std::slice::from_raw_parts_mut(numbers.as_mut_ptr().cast(), numbers.len()) }
}
