//! Results on their way out.

use super::Job;
use crate::{
    SharedMut,
    convolve::{
        kernel::PANELS,
        packed::{LANES, Packed},
        toom::{POINTS, TOGETHER, results},
    },
    simd::{Simd, kernel::Kernel},
};

/// A row of results of a tile.
pub(super) type Row = [f32; PANELS * LANES];

/// Where tiles' results belong.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub job: &'a Job<'a>,
    pub entry: usize,
    /// The first of the tiles' panels.
    pub panel: usize,
    pub y: SharedMut<'a, f32>,
}

/// Stores the results of consecutive places.
pub(super) struct Plain<'a> {
    pub place: Place<'a>,
    pub packed: &'a Packed,
    pub first: usize,
    pub rows: &'a [Row],
}

impl Kernel for Plain<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { place, packed, first, rows } = self;
        for (i, row) in rows.iter().enumerate() {
            for p in 0..place.job.kernel.panels {
                let units = &packed.units[(place.panel + p) * LANES..][..LANES];
                let mut values = [0.0; LANES];
                // SAFETY: by the caller's promise; whole vectors of 16 lanes.
                unsafe {
                    for v in (0..LANES).step_by(S::LANES) {
                        let unit = S::load(units.as_ptr().add(v));
                        let value = S::mul(S::load(row.as_ptr().add(p * LANES + v)), unit);
                        S::store(values.as_mut_ptr().add(v), value);
                    }
                    place.emit::<S>(first + i, p, &values);
                }
            }
        }
    }
}

/// Makes results of groups' products at all points, and stores them.
pub(super) struct Groups<'a> {
    pub place: Place<'a>,
    pub points: &'a [Packed; POINTS],
    pub first: usize,
    /// For each point a row for each group, the rows of the points so far apart.
    pub rows: &'a [Row],
    pub apart: usize,
    pub count: usize,
}

impl Kernel for Groups<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { place, points, first, rows, apart, count } = self;
        let dilation = place.job.conv.dilation;
        for i in 0..count {
            let group = first + i;
            let start = group / dilation * TOGETHER * dilation + group % dilation;
            for p in 0..place.job.kernel.panels {
                let mut values = [[0.0; LANES]; TOGETHER];
                // SAFETY: by the caller's promise; whole vectors of 16 lanes.
                unsafe {
                    for v in (0..LANES).step_by(S::LANES) {
                        let mut products = [S::splat(0.0); POINTS];
                        for (point, product) in products.iter_mut().enumerate() {
                            let unit = S::load(points[point].units[(place.panel + p) * LANES + v..].as_ptr());
                            *product = S::mul(S::load(rows[point * apart + i][p * LANES + v..].as_ptr()), unit);
                        }
                        for (values, result) in values.iter_mut().zip(results::<S>(products)) {
                            S::store(values.as_mut_ptr().add(v), result);
                        }
                    }
                    for (t, values) in values.iter().enumerate() {
                        if start + t * dilation < place.job.places {
                            place.emit::<S>(start + t * dilation, p, values);
                        }
                    }
                }
            }
        }
    }
}

impl Place<'_> {
    /// Adds what is to be added to a panel's results of the place `t`, and stores them.
    ///
    /// # Safety
    /// The processor has `S`; nobody else has the results of that place and panel.
    #[inline(always)]
    unsafe fn emit<S: Simd>(&self, t: usize, panel: usize, values: &[f32; LANES]) {
        let (job, outputs) = (self.job, self.job.weights.parts()[0].outputs);
        let first = (self.panel + panel) * LANES;
        let lanes = LANES.min(outputs.saturating_sub(first));
        let flat = t * outputs + first;
        // Lanes that are kept: those within the entry.
        let from = job.target.skipped.saturating_sub(flat).min(lanes);
        let to = (job.target.len + job.target.skipped).saturating_sub(flat).min(lanes);
        if from >= to {
            return;
        }
        let start = self.entry * job.target.len + flat + from - job.target.skipped;
        // SAFETY: by the caller's promise.
        let y = unsafe { self.y.slice(start..start + to - from) };
        let residual = job.outlet.residual.map(|residual| &residual[start..start + y.len()]);
        for at in (0..y.len()).step_by(S::LANES) {
            let lanes = S::LANES.min(y.len() - at);
            // SAFETY: so many numbers from `at` on are in all of these slices.
            unsafe {
                let mut v = S::load_first(values[from + at..].as_ptr(), lanes);
                if !job.bias.is_empty() {
                    v = S::add(v, S::load_first(job.bias[first + from + at..].as_ptr(), lanes));
                }
                if let Some(residual) = residual {
                    v = S::add(v, S::load_first(residual[at..].as_ptr(), lanes));
                }
                S::store_first(y[at..].as_mut_ptr(), S::mul(v, S::splat(job.outlet.factor)), lanes);
            }
        }
    }
}
