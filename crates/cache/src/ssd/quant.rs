//! Numbers in 8 bits: a scale for every 64 of them, and for each number the nearest of 255 multiples of it.
//!
//! Stored: all scales (f32), then a signed byte for each number. [`SsdConfig::quantize`](super::SsdConfig::quantize)
//! states the error.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use vllm_platform::KvDtype;

/// Numbers that share a scale.
const GROUP: usize = 64;
/// 1.5·2²³: a number under 2²² added to this is rounded to a whole one, and the sum's low byte is that one's. Unlike
/// `f32::round` it needs no instruction that only some targets have.
const ROUND: f32 = (3 << 22) as f32;

/// `raw`, little-endian numbers of `dtype`, in 8 bits; `None` if that is what they are already, one of them is not finite,
/// or `raw` doesn't hold whole numbers.
pub(super) fn encode(raw: &[u8], dtype: KvDtype) -> Option<Vec<u8>> {
    let size = dtype.size();
    if dtype == KvDtype::Int8 || !raw.len().is_multiple_of(size) {
        return None;
    }
    let count = raw.len() / size;
    let mut stored = vec![0; count.div_ceil(GROUP) * size_of::<f32>() + count];
    let (scales, codes) = stored.split_at_mut(count.div_ceil(GROUP) * size_of::<f32>());
    let mut numbers = [0.0; GROUP];
    let groups = raw.chunks(GROUP * size).zip(codes.chunks_mut(GROUP)).zip(scales.as_chunks_mut().0);
    for ((raw, codes), scale) in groups {
        let numbers = &mut numbers[..codes.len()];
        widen(raw, dtype, numbers);
        *scale = encode_group(numbers, codes)?.to_le_bytes();
    }
    Some(stored)
}

/// Codes for `numbers`, and their scale.
fn encode_group(numbers: &[f32], codes: &mut [u8]) -> Option<f32> {
    // Magnitudes are ordered as their bits are, infinities and NaNs last.
    let max = numbers.iter().fold(0, |max, number| max.max(number.abs().to_bits()));
    let max = f32::from_bits(max);
    if !max.is_finite() {
        return None;
    }
    let scale = max / 127.0;
    if !scale.is_normal() {
        return Some(0.0); // `codes` are zero already
    }
    for (code, number) in codes.iter_mut().zip(numbers) {
        *code = (number / scale + ROUND).to_bits() as u8;
    }
    Some(scale)
}

/// The numbers that [`encode`] stored, or `None` if it never stores this many bytes.
pub(super) fn decode(stored: &[u8], dtype: KvDtype) -> Option<Vec<u8>> {
    if dtype == KvDtype::Int8 {
        return None;
    }
    // count + 4·⌈count / 64⌉ bytes: 68 for every whole group, and 4 more than numbers for the rest.
    let whole = stored.len() / (GROUP + size_of::<f32>());
    let rest = stored.len() % (GROUP + size_of::<f32>());
    if (1..=size_of::<f32>()).contains(&rest) {
        return None;
    }
    let count = whole * GROUP + rest.saturating_sub(size_of::<f32>());
    let (scales, codes) = stored.split_at(count.div_ceil(GROUP) * size_of::<f32>());
    let mut raw = vec![0; count * dtype.size()];
    let mut numbers = [0.0; GROUP];
    for ((raw, codes), scale) in raw.chunks_mut(GROUP * dtype.size()).zip(codes.chunks(GROUP)).zip(scales.as_chunks().0)
    {
        let scale = f32::from_le_bytes(*scale);
        let numbers = &mut numbers[..codes.len()];
        for (number, code) in numbers.iter_mut().zip(codes) {
            // 127 times a rounded 127th of the largest f32 may be infinite.
            *number = (f32::from(*code as i8) * scale).clamp(f32::MIN, f32::MAX);
        }
        narrow(numbers, dtype, raw);
    }
    Some(raw)
}

fn widen(raw: &[u8], dtype: KvDtype, numbers: &mut [f32]) {
    match dtype {
        KvDtype::Int8 => unreachable!("bytes stay as they are"),
        KvDtype::F32 => {
            for (number, bytes) in numbers.iter_mut().zip(raw.as_chunks().0) {
                *number = f32::from_le_bytes(*bytes);
            }
        }
        KvDtype::F16 => {
            let mut halves = [f16::ZERO; GROUP];
            let halves = &mut halves[..numbers.len()];
            for (half, bytes) in halves.iter_mut().zip(raw.as_chunks().0) {
                *half = f16::from_le_bytes(*bytes);
            }
            halves.convert_to_f32_slice(numbers);
        }
        KvDtype::Bf16 => {
            for (number, bytes) in numbers.iter_mut().zip(raw.as_chunks().0) {
                *number = f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16);
            }
        }
    }
}

fn narrow(numbers: &[f32], dtype: KvDtype, raw: &mut [u8]) {
    match dtype {
        KvDtype::Int8 => unreachable!("bytes stay as they are"),
        KvDtype::F32 => {
            for (bytes, number) in raw.as_chunks_mut().0.iter_mut().zip(numbers) {
                *bytes = number.to_le_bytes();
            }
        }
        KvDtype::F16 => {
            let mut halves = [f16::ZERO; GROUP];
            let halves = &mut halves[..numbers.len()];
            halves.convert_from_f32_slice(numbers);
            for (bytes, half) in raw.as_chunks_mut().0.iter_mut().zip(halves) {
                *bytes = half.to_le_bytes();
            }
        }
        KvDtype::Bf16 => {
            for (bytes, number) in raw.as_chunks_mut().0.iter_mut().zip(numbers) {
                *bytes = bf16::from_f32(*number).to_le_bytes();
            }
        }
    }
}

#[cfg(test)]
mod tests;
