//! Convolutions in one and two dimensions, channels last, as vision and audio encoders begin with.
//!
//! A convolution is a matmul whose left operand has, for each place of the output, the numbers under the kernel
//! (Chellapilla, Puri & Simard, 2006). That operand is never made as a whole: a panel of a few rows is gathered where the
//! matmul packs it. Where a kernel has one input channel, one output channel, there is nothing to multiply as a matrix;
//! that (depthwise) case has channels in the lanes.

use crate::{
    DenseError, Floats, Pool, SharedMut,
    gemm::panels::{self, Source, Target},
    rows::for_rows,
    simd::{
        Simd,
        kernel::{self, Kernel},
    },
    with_scratch,
};

/// A convolution in two dimensions; every pair is (height, width).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv2d {
    /// Steps from one place of the kernel to the next.
    pub stride: [usize; 2],
    /// Zeros on either side.
    pub padding: [usize; 2],
    /// Distance of neighbours under the kernel: 1 for next to each other.
    pub dilation: [usize; 2],
    /// Parts of the channels that don't mix.
    pub groups: usize,
}

impl Default for Conv2d {
    fn default() -> Self {
        Self { stride: [1; 2], padding: [0; 2], dilation: [1; 2], groups: 1 }
    }
}

/// A convolution in one dimension; see [`Conv2d`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv1d {
    /// Steps from one place of the kernel to the next.
    pub stride: usize,
    /// Zeros on either side.
    pub padding: usize,
    /// Distance of neighbours under the kernel.
    pub dilation: usize,
    /// Parts of the channels that don't mix.
    pub groups: usize,
}

impl Default for Conv1d {
    fn default() -> Self {
        Self { stride: 1, padding: 0, dilation: 1, groups: 1 }
    }
}

impl Conv1d {
    fn as_2d(self) -> Conv2d {
        Conv2d {
            stride: [1, self.stride],
            padding: [0, self.padding],
            dilation: [1, self.dilation],
            groups: self.groups,
        }
    }

    /// The output's length for an input of `length` and a kernel of `kernel`; 0 where the kernel does not fit.
    #[must_use]
    pub fn output(&self, length: usize, kernel: usize) -> usize {
        self.as_2d().output([1, length], [1, kernel])[1]
    }
}

impl Conv2d {
    /// The output's height and width for an input of `size` and a kernel of `kernel`; 0 where the kernel does not fit.
    #[must_use]
    pub fn output(&self, size: [usize; 2], kernel: [usize; 2]) -> [usize; 2] {
        std::array::from_fn(|i| {
            let reach = self.dilation[i] * (kernel[i].max(1) - 1) + 1;
            let room = size[i] + 2 * self.padding[i];
            if room < reach { 0 } else { (room - reach) / self.stride[i] + 1 }
        })
    }
}

/// The weights of a convolution: `[outputs, height, width, inputs / groups]`, as MLX has them.
#[derive(Clone, Copy, Debug)]
pub struct Filters<'a> {
    data: &'a [f32],
    outputs: usize,
    kernel: [usize; 2],
    inputs: usize,
}

impl<'a> Filters<'a> {
    /// Filters of shape `[outputs, height, width, inputs / groups]`; in one dimension the height is 1.
    ///
    /// # Errors
    /// If `data` has another length.
    pub fn new(data: &'a [f32], [outputs, height, width, inputs]: [usize; 4]) -> Result<Self, DenseError> {
        crate::DenseMatrix::new(Floats::F32(data), [outputs, height * width * inputs])?;
        Ok(Self { data, outputs, kernel: [height, width], inputs })
    }

    /// Numbers of one filter.
    fn columns(&self) -> usize {
        self.kernel[0] * self.kernel[1] * self.inputs
    }
}

/// `x` `[batch, length, inputs]` → `y` `[batch, conv.output(length, kernel), outputs]`.
///
/// # Panics
/// As [`conv2d`]; or if the filters' height is not 1.
pub fn conv1d(pool: &Pool, x: &[f32], [batch, length]: [usize; 2], w: &Filters, conv: Conv1d, y: &mut [f32]) {
    assert_eq!(w.kernel[0], 1, "conv1d: filters of one dimension have the height 1");
    conv2d(pool, x, [batch, 1, length], w, conv.as_2d(), y);
}

/// `x` `[batch, height, width, inputs]` → `y` `[batch, output height, output width, outputs]` by [`Conv2d::output`].
///
/// Adds in f32; which kernel it takes, and with it the last bits, is a function of the shapes alone.
///
/// # Panics
/// If the lengths of `x` and `y` don't fit the shapes, the channels not the groups, or a stride or dilation is 0.
pub fn conv2d(pool: &Pool, x: &[f32], [batch, height, width]: [usize; 3], w: &Filters, conv: Conv2d, y: &mut [f32]) {
    let groups = conv.groups;
    assert!(conv.stride.iter().chain(&conv.dilation).all(|&n| n > 0), "conv: a stride or dilation of 0");
    assert!(groups > 0 && w.outputs.is_multiple_of(groups), "conv: {} outputs in {groups} groups", w.outputs);
    let (channels, size) = (w.inputs * groups, [height, width]);
    let output = conv.output(size, w.kernel);
    let places = batch * output[0] * output[1];
    assert_eq!(x.len(), batch * height * width * channels, "conv: x of [{batch}, {height}, {width}, {channels}]");
    assert_eq!(y.len(), places * w.outputs, "conv: y of [{batch}, {}, {}, {}]", output[0], output[1], w.outputs);
    if y.is_empty() {
        return;
    }
    if w.columns() == 0 {
        return y.fill(0.0);
    }
    let input = Input { x, size, channels, output, kernel: w.kernel, conv };
    if w.inputs == 1 && w.outputs == groups {
        return depthwise(pool, &input, w, y);
    }
    let (columns, outputs) = (w.columns(), w.outputs / groups);
    let y = SharedMut::new(y);
    for group in 0..groups {
        let source = Patches { input, first: group * w.inputs, inputs: w.inputs };
        let weights = &w.data[group * outputs * columns..(group + 1) * outputs * columns];
        let target = Target { y, start: group * outputs, stride: w.outputs };
        panels::matmul(pool, &source, places, columns, weights, target);
    }
}

/// The left side of a convolution.
#[derive(Clone, Copy)]
struct Input<'a> {
    x: &'a [f32],
    size: [usize; 2],
    channels: usize,
    output: [usize; 2],
    kernel: [usize; 2],
    conv: Conv2d,
}

impl Input<'_> {
    /// Where in `x` the channels under `tap` of the kernel are for place `place` of the output; `None` in the padding.
    #[inline(always)]
    fn channels_at(&self, place: usize, tap: [usize; 2]) -> Option<usize> {
        let [height, width] = self.output;
        let at = [place / width % height, place % width];
        let mut index = place / (width * height);
        for i in 0..2 {
            let padded = at[i] * self.conv.stride[i] + tap[i] * self.conv.dilation[i];
            let inside = padded.checked_sub(self.conv.padding[i]).filter(|&inside| inside < self.size[i])?;
            index = index * self.size[i] + inside;
        }
        Some(index * self.channels)
    }
}

/// Rows of the matmul: the `inputs` channels from `first` on under the kernel, at each place of the output.
struct Patches<'a> {
    input: Input<'a>,
    first: usize,
    inputs: usize,
}

impl Source for Patches<'_> {
    #[inline(always)]
    fn row<'a>(&'a self, i: usize, room: &'a mut [f32]) -> &'a [f32] {
        let (input, width) = (&self.input, self.input.kernel[1]);
        let whole = self.inputs == input.channels && input.conv.dilation[1] == 1;
        for (p, out) in room.chunks_exact_mut(width * self.inputs).enumerate() {
            // A row of the kernel within the input lies there as it is wanted here.
            if let (true, Some(at), Some(_)) =
                (whole, input.channels_at(i, [p, 0]), input.channels_at(i, [p, width - 1]))
            {
                out.copy_from_slice(&input.x[at..at + out.len()]);
                continue;
            }
            for (q, out) in out.chunks_exact_mut(self.inputs).enumerate() {
                match input.channels_at(i, [p, q]) {
                    Some(at) => out.copy_from_slice(&input.x[at + self.first..][..self.inputs]),
                    None => out.fill(0.0),
                }
            }
        }
        room
    }
}

/// A filter for each channel.
fn depthwise(pool: &Pool, input: &Input<'_>, w: &Filters, y: &mut [f32]) {
    let (taps, channels) = (w.columns(), input.channels);
    let places = y.len() / channels;
    with_scratch(taps * channels, |turned| {
        // Taps first, so that neighbouring channels lie side by side.
        for (channel, filter) in w.data.chunks_exact(taps).enumerate() {
            filter.iter().enumerate().for_each(|(tap, &v)| turned[tap * channels + channel] = v);
        }
        let (filters, y) = (&*turned, SharedMut::new(y));
        for_rows(pool, places, taps * channels, |range| {
            for place in range {
                // SAFETY: each place is visited once.
                let y = unsafe { y.slice(place * channels..(place + 1) * channels) };
                y.fill(0.0);
                for (tap, filter) in filters.chunks_exact(channels).enumerate() {
                    if let Some(at) = input.channels_at(place, [tap / w.kernel[1], tap % w.kernel[1]]) {
                        kernel::run(pool, MulAdd { x: &input.x[at..at + channels], filter, y: &mut *y });
                    }
                }
            }
        });
    });
}

/// `y += x · filter`, of one length.
struct MulAdd<'a> {
    x: &'a [f32],
    filter: &'a [f32],
    y: &'a mut [f32],
}

impl Kernel for MulAdd<'_> {
    type Output = ();

    #[inline(always)]
    unsafe fn run<S: Simd>(self) {
        let Self { x, filter, y } = self;
        for i in (0..y.len()).step_by(S::LANES) {
            let lanes = S::LANES.min(y.len() - i);
            // SAFETY: `lanes` numbers from i on are in all three slices.
            unsafe {
                let (x, w) = (S::load_first(x.as_ptr().add(i), lanes), S::load_first(filter.as_ptr().add(i), lanes));
                let sum = S::mul_add(x, w, S::load_first(y.as_ptr().add(i), lanes));
                S::store_first(y.as_mut_ptr().add(i), sum, lanes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    /// By the definition, in f64: every number of the padded input under every number of the kernel.
    fn reference(x: &[f32], [batch, height, width]: [usize; 3], w: &Filters, conv: Conv2d) -> Vec<f64> {
        let [rows, columns] = conv.output([height, width], w.kernel);
        let (channels, outputs) = (w.inputs * conv.groups, w.outputs / conv.groups);
        let mut y = Vec::new();
        for (n, i, j, o) in (0..batch).flat_map(|n| {
            (0..rows).flat_map(move |i| (0..columns).flat_map(move |j| (0..w.outputs).map(move |o| (n, i, j, o))))
        }) {
            let mut sum = 0.0;
            for p in 0..w.kernel[0] {
                for q in 0..w.kernel[1] {
                    let a = (i * conv.stride[0] + p * conv.dilation[0]).wrapping_sub(conv.padding[0]);
                    let b = (j * conv.stride[1] + q * conv.dilation[1]).wrapping_sub(conv.padding[1]);
                    if a < height && b < width {
                        for c in 0..w.inputs {
                            let channel = o / outputs * w.inputs + c;
                            let x = x[((n * height + a) * width + b) * channels + channel];
                            let w = w.data[((o * w.kernel[0] + p) * w.kernel[1] + q) * w.inputs + c];
                            sum += f64::from(x) * f64::from(w);
                        }
                    }
                }
            }
            y.push(sum);
        }
        y
    }

    #[test]
    fn convolutions_match_f64() {
        let plain = Conv2d::default();
        // (name, [batch, height, width], [outputs, height, width, inputs of a group], convolution)
        let cases = [
            ("pointwise", [1, 5, 7], [33, 1, 1, 17], plain),
            ("3 × 3, same", [2, 9, 8], [20, 3, 3, 5], Conv2d { padding: [1; 2], ..plain }),
            ("patches", [1, 28, 42], [40, 14, 14, 3], Conv2d { stride: [14; 2], ..plain }),
            ("patches that don't fill", [2, 17, 20], [9, 4, 5, 3], Conv2d { stride: [4, 5], ..plain }),
            (
                "uneven",
                [2, 11, 13],
                [7, 2, 5, 4],
                Conv2d { stride: [3, 2], padding: [1, 4], dilation: [2, 3], groups: 1 },
            ),
            ("groups", [2, 6, 6], [12, 3, 3, 4], Conv2d { padding: [1; 2], groups: 3, ..plain }),
            ("depthwise", [2, 9, 9], [37, 3, 3, 1], Conv2d { padding: [1; 2], groups: 37, ..plain }),
            (
                "depthwise, strided",
                [1, 9, 9],
                [16, 3, 2, 1],
                Conv2d { stride: [2, 3], dilation: [1, 2], groups: 16, ..plain },
            ),
            ("two outputs a channel", [1, 5, 5], [10, 3, 3, 1], Conv2d { groups: 5, ..plain }),
            ("many places", [1, 30, 31], [50, 3, 3, 8], Conv2d { padding: [1; 2], ..plain }),
            ("only padding", [1, 1, 1], [3, 3, 3, 2], Conv2d { padding: [1; 2], ..plain }),
        ];
        for (name, input, shape, conv) in cases {
            let x = random(input.iter().product::<usize>() * shape[3] * conv.groups, 1);
            let weights = random(shape.iter().product(), 2);
            let w = Filters::new(&weights, shape).unwrap();
            let wanted = reference(&x, input, &w, conv);
            for pool in every_isa() {
                let mut y = vec![f32::NAN; wanted.len()];
                conv2d(&pool, &x, input, &w, conv, &mut y);
                // Sums of so many products of at most 1, which scalar code rounds once for each: half a unit in the last place of
                // each partial sum, and some luck.
                let tolerance = 6e-8 * w.columns().max(64) as f64;
                assert_close(&y, wanted.iter().copied(), tolerance, format_args!("{name}, {:?}", pool.isa()));
            }
        }
    }

    /// Whisper's two: 3 wide, the second with stride 2.
    #[test]
    fn one_dimension_is_two_of_height_one() {
        for stride in [1, 2] {
            let (x, weights) = (random(2 * 50 * 8, 1), random(24 * 3 * 8, 2));
            let w = Filters::new(&weights, [24, 1, 3, 8]).unwrap();
            let conv = Conv1d { stride, padding: 1, ..Conv1d::default() };
            assert_eq!(conv.output(50, 3), 50 / stride);
            let wanted = reference(&x, [2, 1, 50], &w, conv.as_2d());
            let mut y = vec![f32::NAN; wanted.len()];
            conv1d(&Pool::new(2), &x, [2, 50], &w, conv, &mut y);
            assert_close(&y, wanted, 2e-6, format_args!("stride {stride}"));
        }
    }

    #[test]
    fn a_kernel_that_does_not_fit_gives_nothing() {
        let conv = Conv2d { dilation: [3; 2], ..Conv2d::default() };
        assert_eq!(conv.output([6, 7], [3, 3]), [0, 1]);
        let w = Filters::new(&[1.0; 9], [1, 3, 3, 1]).unwrap();
        conv2d(&Pool::new(1), &[0.0; 42], [1, 6, 7], &w, conv, &mut []);
    }

    #[test]
    #[should_panic(expected = "x of [1, 2, 2, 3]")]
    fn another_shape_is_refused() {
        let w = Filters::new(&[1.0; 3], [1, 1, 1, 3]).unwrap();
        conv2d(&Pool::new(1), &[0.0; 11], [1, 2, 2], &w, Conv2d::default(), &mut [0.0; 4]);
    }
}
