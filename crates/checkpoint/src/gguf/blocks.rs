//! GGML's quantized blocks, one row at a time: their codes in MLX's order, their scales and biases as they are.
//!
//! Block layouts: `ggml-common.h` and `ggml-quants.c` of llama.cpp (as facts). Every kind here computes
//! `w = scale · code + bias` over groups of 32, which is MLX's affine form too; no code changes its value:
//!
//! | kind | code | scale | bias |
//! |---|---|---|---|
//! | Q4_0, Q5_0 | 0 … 2ᵇ−1 | d | −2ᵇ⁻¹·d |
//! | Q8_0 | q + 128 | d | −128·d |
//! | Q4_1, Q5_1 | 0 … 2ᵇ−1 | d | m |
//! | Q4_K, Q5_K | 0 … 2ᵇ−1 | d·sc | −dmin·mn |
//!
//! `d`, `m`, `dmin` are halves. The bias of the symmetric kinds is the scale times a power of two: a half again, unless
//! it overflows, in which case the tensor's scales and biases are made f32. The K-quants' products of a half with a
//! 6-bit number are exact in f32.

use half::f16;

use super::kind::Kind;

/// Where a row's codes, scales and biases go.
pub(super) struct AffineRow<'a> {
    /// `columns * bits / 8` bytes.
    pub(super) packed: &'a mut [u8],
    /// One per group: 4 bytes each when `wide`, else 2.
    pub(super) scales: &'a mut [u8],
    /// As `scales`.
    pub(super) biases: &'a mut [u8],
    /// f32 scales and biases instead of f16.
    pub(super) wide: bool,
}

/// Repacks a row of blocks. `false`: a bias does not fit a half, and `wide` was not set; the row is then unfinished.
pub(super) fn repack_row(kind: Kind, blocks: &[u8], row: &mut AffineRow<'_>) -> bool {
    match kind {
        Kind::Q4_0 => {
            simple::<18, 16>(blocks, row, |b| (half_at(b, 0), Bias::Times(3)), |b, out| nibbles(&b[2..], out))
        }
        Kind::Q4_1 => simple::<20, 16>(
            blocks,
            row,
            |b| (half_at(b, 0), Bias::Given(half_at(b, 2))),
            |b, out| nibbles(&b[4..], out),
        ),
        Kind::Q5_0 => simple::<22, 20>(blocks, row, |b| (half_at(b, 0), Bias::Times(4)), |b, out| fives(&b[2..], out)),
        Kind::Q5_1 => {
            simple::<24, 20>(blocks, row, |b| (half_at(b, 0), Bias::Given(half_at(b, 2))), |b, out| fives(&b[4..], out))
        }
        Kind::Q8_0 => simple::<34, 32>(
            blocks,
            row,
            |b| (half_at(b, 0), Bias::Times(7)),
            |b, out| {
                for (code, q) in out.iter_mut().zip(&b[2..]) {
                    *code = q ^ 0x80; // two's complement + 128
                }
            },
        ),
        Kind::Q4_K => k_quant::<144, 16>(blocks, row, |block, sub, out| {
            let codes = &block[16 + 32 * (sub / 2)..][..32];
            for (out, eight) in out.chunks_exact_mut(4).zip(codes.chunks_exact(8)) {
                out.copy_from_slice(&squeeze_nibbles(word(eight) >> (4 * (sub % 2))).to_le_bytes());
            }
        }),
        Kind::Q5_K => k_quant::<176, 20>(blocks, row, |block, sub, out| {
            let low = &block[48 + 32 * (sub / 2)..][..32];
            let high = &block[16..48];
            for ((out, low), high) in out.chunks_exact_mut(5).zip(low.chunks_exact(8)).zip(high.chunks_exact(8)) {
                let low = word(low) >> (4 * (sub % 2)) & LOW_NIBBLES;
                let high = word(high) >> sub & LOW_BITS;
                out.copy_from_slice(&squeeze_fives(low | high << 4));
            }
        }),
        Kind::F32 | Kind::F16 | Kind::Bf16 | Kind::Q6_K => unreachable!("{kind:?} is not affine"),
    }
}

/// Numbers of one row of Q6_K: `d · sc · (q − 32)` over groups of 16, rounded once to f32.
pub(super) fn dequantize_q6_k_row(blocks: &[u8], out: &mut [f32]) {
    for (block, out) in blocks.chunks_exact(210).zip(out.chunks_exact_mut(256)) {
        let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
        let d = half_at(block, 208).to_f32();
        for (i, out) in out.iter_mut().enumerate() {
            // Two halves of 128; in each, four runs of 32 that share their bytes: runs 0 and 2, and 1 and 3, the two
            // nibbles of `low`; all four the bit pairs of `high`.
            let (half, run, l) = (i / 128, i / 32 % 4, i % 32);
            let nibble = low[64 * half + 32 * (run % 2) + l] >> (4 * (run / 2)) & 0x0f;
            let pair = high[32 * half + l] >> (2 * run) & 0x03;
            let scale = d * f32::from(scales[i / 16] as i8);
            *out = scale * (f32::from(nibble | pair << 4) - 32.0);
        }
    }
}

/// The bias of a block.
enum Bias {
    /// `−2ⁿ · scale`.
    Times(u16),
    Given(f16),
}

/// Blocks of one group with a half for a scale; `BYTES` a block, `CODES` bytes of codes out.
#[inline(always)]
fn simple<const BYTES: usize, const CODES: usize>(
    blocks: &[u8],
    row: &mut AffineRow<'_>,
    numbers: impl Fn(&[u8; BYTES]) -> (f16, Bias),
    codes: impl Fn(&[u8; BYTES], &mut [u8; CODES]),
) -> bool {
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    let (packed, _) = row.packed.as_chunks_mut::<CODES>();
    for (i, (block, out)) in blocks.iter().zip(packed).enumerate() {
        codes(block, out);
        let (scale, bias) = numbers(block);
        if row.wide {
            let bias = match bias {
                Bias::Times(n) => -scale.to_f32() * f32::from(1u16 << n),
                Bias::Given(bias) => bias.to_f32(),
            };
            row.scales[4 * i..][..4].copy_from_slice(&scale.to_f32().to_le_bytes());
            row.biases[4 * i..][..4].copy_from_slice(&bias.to_le_bytes());
        } else {
            let bias = match bias {
                Bias::Times(n) => minus_times_power_of_two(scale, n),
                Bias::Given(bias) => Some(bias),
            };
            let Some(bias) = bias else { return false };
            row.scales[2 * i..][..2].copy_from_slice(&scale.to_le_bytes());
            row.biases[2 * i..][..2].copy_from_slice(&bias.to_le_bytes());
        }
    }
    true
}

/// Superblocks of eight groups with 6-bit scales and minima; scales and biases are f32.
#[inline(always)]
fn k_quant<const BYTES: usize, const CODES: usize>(
    blocks: &[u8],
    row: &mut AffineRow<'_>,
    codes: impl Fn(&[u8; BYTES], usize, &mut [u8; CODES]),
) -> bool {
    debug_assert!(row.wide, "a half cannot hold the scales of K-quants");
    let (blocks, _) = blocks.as_chunks::<BYTES>();
    let (packed, _) = row.packed.as_chunks_mut::<CODES>();
    for (i, (block, packed)) in blocks.iter().zip(packed.chunks_exact_mut(8)).enumerate() {
        let (d, dmin) = (half_at(block, 0).to_f32(), half_at(block, 2).to_f32());
        for (sub, out) in packed.iter_mut().enumerate() {
            let (scale, minimum) = k_scale(&block[4..16], sub);
            let at = 4 * (8 * i + sub);
            row.scales[at..][..4].copy_from_slice(&(d * f32::from(scale)).to_le_bytes());
            row.biases[at..][..4].copy_from_slice(&(-(dmin * f32::from(minimum))).to_le_bytes());
            codes(block, sub, out);
        }
    }
    true
}

/// 6-bit scale and minimum of group `sub`. The first four of each are the low bits of bytes 0–3 and 4–7; of the last
/// four, bytes 8–11 hold the low nibbles and the top bits of bytes 0–7 the rest.
fn k_scale(packed: &[u8], sub: usize) -> (u8, u8) {
    if sub < 4 {
        return (packed[sub] & 63, packed[sub + 4] & 63);
    }
    let (scale, minimum, low) = (packed[sub - 4] >> 6, packed[sub] >> 6, packed[sub + 4]);
    (low & 0x0f | scale << 4, low >> 4 | minimum << 4)
}

/// Thirty-two 4-bit codes: the first sixteen are the low nibbles of `codes`, the others the high ones.
#[inline(always)]
fn nibbles(codes: &[u8], out: &mut [u8; 16]) {
    let (first, second) = (word(&codes[..8]), word(&codes[8..16]));
    for (i, eight) in [first, second, first >> 4, second >> 4].into_iter().enumerate() {
        out[4 * i..][..4].copy_from_slice(&squeeze_nibbles(eight).to_le_bytes());
    }
}

/// Thirty-two 5-bit codes: a word of top bits, then nibbles as in [`nibbles`].
#[inline(always)]
fn fives(codes: &[u8], out: &mut [u8; 20]) {
    let high = u32::from_le_bytes([codes[0], codes[1], codes[2], codes[3]]);
    let (first, second) = (word(&codes[4..12]), word(&codes[12..20]));
    for (i, eight) in [first, second, first >> 4, second >> 4].into_iter().enumerate() {
        let top = spread_bits((high >> (8 * i)) as u8);
        out[5 * i..][..5].copy_from_slice(&squeeze_fives(eight & LOW_NIBBLES | top << 4));
    }
}

const LOW_NIBBLES: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const LOW_BITS: u64 = 0x0101_0101_0101_0101;

/// The low nibbles of eight bytes, side by side.
#[inline(always)]
fn squeeze_nibbles(eight: u64) -> u32 {
    let x = eight & LOW_NIBBLES;
    let x = (x | x >> 4) & 0x00ff_00ff_00ff_00ff;
    let x = (x | x >> 8) & 0x0000_ffff_0000_ffff;
    (x | x >> 16) as u32
}

/// The low five bits of eight bytes (the others being zero), side by side.
#[inline(always)]
fn squeeze_fives(eight: u64) -> [u8; 5] {
    let x = eight & 0x001f_001f_001f_001f | (eight >> 8 & 0x001f_001f_001f_001f) << 5;
    let x = x & 0x0000_03ff_0000_03ff | (x >> 16 & 0x0000_03ff_0000_03ff) << 10;
    let x = x & 0x000f_ffff | (x >> 32) << 20;
    let [a, b, c, d, e, ..] = x.to_le_bytes();
    [a, b, c, d, e]
}

/// Bit `i` of `bits` in the lowest bit of byte `i`.
#[inline(always)]
fn spread_bits(bits: u8) -> u64 {
    // Eight copies; keep bit i in byte i; then move whatever is left of each byte to its lowest bit.
    let kept = (u64::from(bits) * LOW_BITS) & 0x8040_2010_0804_0201;
    (kept + 0x7f7f_7f7f_7f7f_7f7f) >> 7 & LOW_BITS
}

#[inline(always)]
fn word(eight: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(eight);
    u64::from_le_bytes(bytes)
}

#[inline(always)]
fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// `−2ⁿ · x`, or `None` where that is not a finite half.
fn minus_times_power_of_two(x: f16, n: u16) -> Option<f16> {
    let exponent = x.to_bits() >> 10 & 0x1f;
    match exponent {
        // Zero and subnormals: still exact, the significand moves up.
        0 => Some(f16::from_f32(-x.to_f32() * f32::from(1u16 << n))),
        _ if exponent + n >= 0x1f => None,
        _ => Some(f16::from_bits((x.to_bits() ^ 0x8000) + (n << 10))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_bits_puts_bit_i_into_byte_i() {
        for bits in 0..=255u8 {
            let wanted = std::array::from_fn(|i| bits >> i & 1);
            assert_eq!(spread_bits(bits).to_le_bytes(), wanted, "{bits:08b}");
        }
    }

    #[test]
    fn squeezing_keeps_every_code_in_order() {
        for seed in 0..1000u64 {
            let random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(17).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let nibbles = squeeze_nibbles(random);
            let fives = squeeze_fives(random & 0x1f1f_1f1f_1f1f_1f1f);
            let mut stream = [0; 8];
            stream[..5].copy_from_slice(&fives);
            let stream = u64::from_le_bytes(stream);
            for (i, byte) in random.to_le_bytes().into_iter().enumerate() {
                assert_eq!(nibbles >> (4 * i) & 0x0f, u32::from(byte & 0x0f), "nibble {i} of {random:x}");
                assert_eq!(stream >> (5 * i) & 0x1f, u64::from(byte & 0x1f), "five {i} of {random:x}");
            }
        }
    }

    #[test]
    fn minus_times_power_of_two_is_exact_or_nothing() {
        for bits in 0..=u16::MAX {
            let x = f16::from_bits(bits);
            for n in [3, 4, 7] {
                let exact = -x.to_f32() * f32::from(1u16 << n);
                let fits = x.is_finite() && exact.abs() <= f16::MAX.to_f32();
                let found = minus_times_power_of_two(x, n);
                assert_eq!(found.map(f16::to_f32), fits.then_some(exact), "-2^{n} * {x}");
            }
        }
    }
}
