//! Dot products of AVX2, AVX-512 and their VNNI.
//!
//! `vpmaddwd` and an addition, or `vpdpwssd` alone, take two products of i16 a lane; `vpdpbusd` takes four of bytes. (Without VNNI,
//! `vpmaddubsw` saturates under weights of eight bits: there activations of one byte are taken as two.)

use std::arch::x86_64::*;

use super::{
    kernel::{Kernel, Numbers, Reads, Tile},
    tile::{Dots, tile},
};
use crate::simd::{Avx2, Avx512, Simd};

struct Pairs;
struct AvxVnniPairs;
struct AvxVnniBytes;
struct WidePairs;
struct VnniPairs;
struct VnniBytes;

/// Implements [`Dots`] by these intrinsics.
macro_rules! dots {
    (
        $name:ident, $simd:ident, $vector:ty, $head:literal,
        [$zero:ident, $load:ident, $splat:ident, $float:ident],
        |$sums:ident, $w:ident, $x:ident| $add:expr
    ) => {
        // SAFETY: as the trait asks.
        unsafe impl Dots for $name {
            type S = $simd;
            type I = $vector;
            const HEAD: bool = $head;

            #[inline(always)]
            unsafe fn zero() -> $vector {
                // SAFETY: by the caller's promise.
                unsafe { $zero() }
            }
            #[inline(always)]
            unsafe fn load(p: *const u32) -> $vector {
                // SAFETY: by the caller's promise; at any alignment.
                unsafe { $load(p.cast()) }
            }
            #[inline(always)]
            unsafe fn broadcast(p: *const u32) -> $vector {
                // SAFETY: by the caller's promise.
                unsafe { $splat(*p as i32) }
            }
            #[inline(always)]
            unsafe fn add($sums: $vector, $w: $vector, $x: $vector) -> $vector {
                // SAFETY: by the caller's promise.
                unsafe { $add }
            }
            #[inline(always)]
            unsafe fn float(sums: $vector) -> <$simd as Simd>::V {
                // SAFETY: by the caller's promise.
                unsafe { $float(sums) }
            }
        }
    };
}

/// The kernel of `$name` with tiles of so many rows and vectors, in functions that enable `$features`.
macro_rules! kernel {
    ($kernel:ident, $name:ident, $numbers:ident, $features:literal, $panels:literal, $vectors:literal, [$($rows:literal),*]) => {
        pub(super) static $kernel: Kernel = {
            #[target_feature(enable = $features)]
            unsafe fn rows<const M: usize>(reads: &Reads, out: &mut Tile) {
                // SAFETY: by the caller's promise.
                unsafe { tile::<$name, M, $vectors>(reads, out) }
            }
            Kernel { numbers: Numbers::$numbers, panels: $panels, tiles: &[$(($rows, rows::<$rows>)),*] }
        };
    };
}

dots!(
    Pairs,
    Avx2,
    __m256i,
    false,
    [_mm256_setzero_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_cvtepi32_ps],
    |sums, w, x| _mm256_add_epi32(sums, _mm256_madd_epi16(w, x))
);
dots!(
    AvxVnniPairs,
    Avx2,
    __m256i,
    false,
    [_mm256_setzero_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_cvtepi32_ps],
    |sums, w, x| _mm256_dpwssd_avx_epi32(sums, w, x)
);
dots!(
    AvxVnniBytes,
    Avx2,
    __m256i,
    true,
    [_mm256_setzero_si256, _mm256_loadu_si256, _mm256_set1_epi32, _mm256_cvtepi32_ps],
    |sums, w, x| _mm256_dpbusd_avx_epi32(sums, x, w)
);
dots!(
    WidePairs,
    Avx512,
    __m512i,
    false,
    [_mm512_setzero_si512, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_cvtepi32_ps],
    |sums, w, x| _mm512_add_epi32(sums, _mm512_madd_epi16(w, x))
);
dots!(
    VnniPairs,
    Avx512,
    __m512i,
    false,
    [_mm512_setzero_si512, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_cvtepi32_ps],
    |sums, w, x| _mm512_dpwssd_epi32(sums, w, x)
);
dots!(
    VnniBytes,
    Avx512,
    __m512i,
    true,
    [_mm512_setzero_si512, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_cvtepi32_ps],
    |sums, w, x| _mm512_dpbusd_epi32(sums, x, w)
);

kernel!(PAIRS, Pairs, Pairs, "avx2,fma,f16c", 1, 2, [6, 3, 1]);
kernel!(AVX_VNNI_PAIRS, AvxVnniPairs, Pairs, "avx2,fma,f16c,avxvnni", 1, 2, [6, 3, 1]);
kernel!(AVX_VNNI_BYTES, AvxVnniBytes, Unsigned, "avx2,fma,f16c,avxvnni", 1, 2, [6, 3, 1]);
kernel!(WIDE_PAIRS, WidePairs, Pairs, "avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c", 2, 2, [12, 6, 3, 1]);
kernel!(
    VNNI_PAIRS,
    VnniPairs,
    Pairs,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
    2,
    2,
    [12, 6, 3, 1]
);
kernel!(
    VNNI_BYTES,
    VnniBytes,
    Unsigned,
    "avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma,f16c",
    2,
    2,
    [12, 6, 3, 1]
);
