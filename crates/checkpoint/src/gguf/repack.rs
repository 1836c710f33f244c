//! Whole tensors out of GGML blocks, rows spread over threads.

use std::sync::atomic::{AtomicBool, Ordering};

use half::f16;
use half::slice::HalfFloatSliceExt;

use super::blocks::{AffineRow, dequantize_q6_k_row, repack_row};
use super::kind::{GROUP, Kind};
use crate::tensor::{DenseTensor, Dtype, QuantParams, QuantizedTensor};

/// Bytes of source below which another thread costs more than it saves.
const BYTES_PER_THREAD: usize = 256 << 10;
/// Rearranging is bound by memory soon.
const MAX_THREADS: usize = 8;

/// Rows of blocks in a file.
pub(super) struct Source<'a> {
    pub(super) kind: Kind,
    /// `[.., out, in]`.
    pub(super) shape: &'a [usize],
    pub(super) bytes: &'a [u8],
    pub(super) order: RowOrder,
}

/// Which row of the file is row `r` of the tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowOrder {
    AsInFile,
    /// llama.cpp stores the two halves of each attention head interleaved, so that rotary pairs are neighbours; Hugging
    /// Face's order has the first half first.
    Rope {
        /// Rows of a head; even.
        head: usize,
    },
}

impl RowOrder {
    fn in_file(self, row: usize) -> usize {
        match self {
            Self::AsInFile => row,
            Self::Rope { head } => {
                let within = row % head;
                row - within + within % (head / 2) * 2 + within / (head / 2)
            }
        }
    }
}

impl Source<'_> {
    fn columns(&self) -> usize {
        self.shape.last().copied().unwrap_or(1)
    }

    fn rows(&self) -> usize {
        self.shape.iter().rev().skip(1).product()
    }

    /// Bytes of tensor row `row`.
    fn row(&self, row: usize) -> &[u8] {
        let (block, block_bytes) = self.kind.block();
        let bytes = self.columns() / block * block_bytes;
        &self.bytes[self.order.in_file(row) * bytes..][..bytes]
    }

    fn per_row(&self, last: usize) -> Vec<usize> {
        let mut shape = self.shape.to_vec();
        if let Some(columns) = shape.last_mut() {
            *columns = last;
        }
        shape
    }

    /// The same codes in MLX's layout. Scales and biases are f16 where that is exact for the whole tensor, else f32.
    pub(super) fn affine(&self, params: QuantParams) -> QuantizedTensor<'static> {
        let narrow = if self.kind.has_wide_scales() { None } else { self.try_affine(params, false) };
        narrow.or_else(|| self.try_affine(params, true)).expect("f32 scales always fit")
    }

    fn try_affine(&self, params: QuantParams, wide: bool) -> Option<QuantizedTensor<'static>> {
        let (rows, columns, groups) = (self.rows(), self.columns(), self.columns() / GROUP);
        let dtype = if wide { Dtype::F32 } else { Dtype::F16 };
        let (packed_row, scales_row) = (columns * usize::from(params.bits) / 8, groups * dtype.size());
        let mut packed = vec![0; rows * packed_row];
        let mut scales = vec![0; rows * scales_row];
        let mut biases = vec![0; rows * scales_row];
        let overflow = AtomicBool::new(false);
        let outputs = [(&mut packed[..], packed_row), (&mut scales[..], scales_row), (&mut biases[..], scales_row)];
        for_each_row(rows, self.bytes.len(), outputs, |row, [packed, scales, biases]| {
            if !repack_row(self.kind, self.row(row), &mut AffineRow { packed, scales, biases, wide }) {
                overflow.store(true, Ordering::Relaxed);
            }
        });
        if overflow.into_inner() {
            return None;
        }
        Some(QuantizedTensor {
            mode: params.mode,
            bits: params.bits,
            group_size: params.group_size,
            shape: self.shape.to_vec(),
            packed: DenseTensor::new(Dtype::U32, self.per_row(packed_row / 4), packed),
            scales: DenseTensor::new(dtype, self.per_row(groups), scales),
            biases: Some(DenseTensor::new(dtype, self.per_row(groups), biases)),
        })
    }

    /// Q6_K as numbers: f16, or f32 when one of them is too large for a half.
    pub(super) fn half(&self) -> DenseTensor<'static> {
        self.numbers(Dtype::F16).or_else(|| self.numbers(Dtype::F32)).expect("f32 always fits")
    }

    fn numbers(&self, dtype: Dtype) -> Option<DenseTensor<'static>> {
        let (rows, columns) = (self.rows(), self.columns());
        let mut numbers = vec![0; rows * columns * dtype.size()];
        let overflow = AtomicBool::new(false);
        let outputs = [(&mut numbers[..], columns * dtype.size())];
        for_each_row(rows, self.bytes.len(), outputs, |row, [out]| {
            let (mut block, mut halves) = ([0f32; 256], [f16::ZERO; 256]);
            for (bytes, out) in self.row(row).chunks_exact(210).zip(out.chunks_exact_mut(256 * dtype.size())) {
                dequantize_q6_k_row(bytes, &mut block);
                if dtype == Dtype::F32 {
                    for (out, x) in out.chunks_exact_mut(4).zip(block) {
                        out.copy_from_slice(&x.to_le_bytes());
                    }
                    continue;
                }
                halves.convert_from_f32_slice(&block);
                for (out, x) in out.chunks_exact_mut(2).zip(halves) {
                    if !x.is_finite() {
                        overflow.store(true, Ordering::Relaxed);
                    }
                    out.copy_from_slice(&x.to_le_bytes());
                }
            }
        });
        (!overflow.into_inner()).then(|| DenseTensor::new(dtype, self.shape.to_vec(), numbers))
    }

    /// Plain numbers in another row order.
    pub(super) fn reordered(&self, dtype: Dtype) -> DenseTensor<'static> {
        // A bias vector's "rows" are its elements.
        let vector = [self.shape, &[1]].concat();
        let source = Source { shape: if self.shape.len() == 1 { &vector } else { self.shape }, ..*self };
        let mut bytes = Vec::with_capacity(self.bytes.len());
        for row in 0..source.rows() {
            bytes.extend_from_slice(source.row(row));
        }
        DenseTensor::new(dtype, self.shape.to_vec(), bytes)
    }
}

/// Calls `work` once for every row with that row's part of each output (`(all rows, bytes of one row)`), from as many
/// threads as `source_bytes` are worth.
fn for_each_row<const N: usize>(
    rows: usize,
    source_bytes: usize,
    mut outputs: [(&mut [u8], usize); N],
    work: impl Fn(usize, [&mut [u8]; N]) + Sync,
) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let threads = source_bytes.div_ceil(BYTES_PER_THREAD).clamp(1, cores);
    let chunk = rows.div_ceil(threads).max(1);
    let run = |first: usize, count: usize, mut outputs: [(&mut [u8], usize); N]| {
        for row in first..first + count {
            work(row, outputs.each_mut().map(|(rest, bytes)| split_front(rest, *bytes)));
        }
    };
    std::thread::scope(|scope| {
        for first in (0..rows).step_by(chunk) {
            let count = chunk.min(rows - first);
            let part = outputs.each_mut().map(|(rest, bytes)| (split_front(rest, count * *bytes), *bytes));
            if first + count == rows {
                run(first, count, part); // the last part is ours
            } else {
                scope.spawn(move || run(first, count, part));
            }
        }
    });
}

/// Takes the first `n` bytes off `rest`.
fn split_front<'a>(rest: &mut &'a mut [u8], n: usize) -> &'a mut [u8] {
    rest.split_off_mut(..n).expect("outputs hold every row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rope_order_is_hugging_faces() {
        // A head of 6 rows: the file has a0 b0 a1 b1 a2 b2, the tensor a0 a1 a2 b0 b1 b2.
        let order = RowOrder::Rope { head: 6 };
        let found: Vec<usize> = (0..12).map(|row| order.in_file(row)).collect();
        assert_eq!(found, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }

    #[test]
    fn every_row_is_visited_once_whatever_the_threads() {
        for (rows, source_bytes) in [(0, 0), (1, 1), (7, 1 << 30), (64, 1 << 20), (3, 300 << 10)] {
            let (mut a, mut b) = (vec![0u8; rows * 2], vec![0u8; rows]);
            for_each_row(rows, source_bytes, [(&mut a, 2), (&mut b, 1)], |row, [a, b]| {
                a.iter_mut().for_each(|x| *x += row as u8 + 1);
                b[0] += 1;
            });
            let wanted: Vec<u8> = (0..rows).flat_map(|row| [row as u8 + 1; 2]).collect();
            assert_eq!((a, b), (wanted, vec![1; rows]), "{rows} rows");
        }
    }
}
