//! Every matmul, on every instruction set of this machine, against sums in f64; and the promises about batches and threads.

mod support;

use support::{KINDS, Owned, Quantized, Random, assert_product, bits_of};
use vllm_kernels_cpu::{
    DenseMatrix, FloatKind, Floats, Isa, Pool, QuantMatrix, QuantMode, dequantize_rows, matmul, quantized_matmul,
    widen_rows,
};

fn pools() -> impl Iterator<Item = (Isa, Pool)> {
    Isa::available().into_iter().map(|isa| (isa, Pool::with_isa(2, isa).unwrap()))
}

#[test]
fn affine_matmul_of_every_width_group_and_scale() {
    let mut random = Random(1);
    for bits in [2, 3, 4, 5, 6, 8] {
        for group_size in [32, 64, 128] {
            for kind in KINDS {
                // Odd sizes of out, blocks that end in the middle; m on both sides of the tiles' sizes.
                for (rows, groups, m) in [(1, 1, 1), (7, 3, 2), (37, 5, 5), (18, 2, 67)] {
                    let shape = [rows, groups * group_size];
                    let w = Quantized::new(&mut random, shape, bits, group_size, kind);
                    let x = random.activations(m * shape[1]);
                    let (wanted, sizes) = (w.dequantized(), w.sizes());
                    for (isa, pool) in pools() {
                        let mut y = vec![f32::NAN; m * rows];
                        quantized_matmul(&pool, &x, &w.matrix(), &mut y);
                        let case = format!("{isa}, {bits} bits, group {group_size}, {kind:?}, {shape:?}, m {m}");
                        assert_product(&case, &x, 0.0, &wanted, &sizes, shape, &y);
                    }
                }
            }
        }
    }
}

#[test]
fn affine_matmul_of_every_small_batch() {
    let mut random = Random(2);
    let shape = [101, 576];
    for bits in [4, 8] {
        let w = Quantized::new(&mut random, shape, bits, 32, FloatKind::F16);
        let (wanted, sizes) = (w.dequantized(), w.sizes());
        for (isa, pool) in pools() {
            for m in 1..=67 {
                let x = random.activations(m * shape[1]);
                let mut y = vec![f32::NAN; m * shape[0]];
                quantized_matmul(&pool, &x, &w.matrix(), &mut y);
                // All of it for a few, the last row for each.
                let skip = if m % 16 < 2 { 0 } else { m - 1 };
                let case = format!("{isa}, {bits} bits, m {m}");
                let x = &x[skip * shape[1]..];
                assert_product(&case, x, 0.0, &wanted, &sizes, shape, &y[skip * shape[0]..]);
            }
        }
    }
}

type Multiply<'a> = &'a dyn Fn(&Pool, &[f32], &mut [f32]);

#[test]
fn a_row_is_the_same_in_every_batch_and_on_any_number_of_threads() {
    let mut random = Random(3);
    let (m, rows) = (131, 75);
    for (bits, cols) in [(4, 576), (8, 576), (4, 1536), (6, 256), (4, 128)] {
        let w = Quantized::new(&mut random, [rows, cols], bits, 32, FloatKind::F16);
        let dense: Vec<f32> = w.dequantized().iter().map(|&v| v as f32).collect();
        let dense = DenseMatrix::new(&dense[..], [rows, cols]).unwrap();
        let x = random.activations(m * cols);
        let quantized: Multiply = &|pool, x, y| quantized_matmul(pool, x, &w.matrix(), y);
        let plain: Multiply = &|pool, x, y| matmul(pool, x, &dense, y);
        for isa in Isa::available() {
            for (name, multiply) in [("dense", plain), ("quantized", quantized)] {
                let product = |threads: usize, batch: usize| {
                    let pool = Pool::with_isa(threads, isa).unwrap();
                    let mut y = vec![f32::NAN; m * rows];
                    x.chunks(batch * cols).zip(y.chunks_mut(batch * rows)).for_each(|(x, y)| multiply(&pool, x, y));
                    bits_of(&y)
                };
                let case = format!("{name}, {isa}, {bits} bits, {cols} columns");
                let alone = product(1, 1);
                for (threads, batch) in [(2, 1), (1, 4), (2, 7), (4, 16), (1, 17), (2, 40), (3, m)] {
                    assert!(product(threads, batch) == alone, "{case}: batches of {batch}, {threads} threads");
                }
            }
        }
    }
}

#[test]
fn a_quantized_row_is_the_same_in_batches_of_1_to_40() {
    let mut random = Random(12);
    for bits in [4, 8] {
        // Rows that end within a panel of 16, right after one, and before the first ends; columns that end within a block of 128.
        for (rows, cols, group_size, kind) in [
            (101, 576, 32, FloatKind::F16),
            (49, 192, 64, FloatKind::Bf16),
            (64, 640, 128, FloatKind::F32),
            (3, 32, 32, FloatKind::F16),
            (35, 2208, 32, FloatKind::F16),
        ] {
            let w = Quantized::new(&mut random, [rows, cols], bits, group_size, kind);
            let x = random.activations(40 * cols);
            for (isa, pool) in pools() {
                let product = |m: usize| {
                    let mut y = vec![f32::NAN; m * rows];
                    quantized_matmul(&pool, &x[..m * cols], &w.matrix(), &mut y);
                    bits_of(&y)
                };
                let mut alone = vec![f32::NAN; 40 * rows];
                for (x, y) in x.chunks_exact(cols).zip(alone.chunks_exact_mut(rows)) {
                    quantized_matmul(&pool, x, &w.matrix(), y);
                }
                let alone = bits_of(&alone);
                for m in 1..=40 {
                    assert!(product(m) == alone[..m * rows], "{isa}, {bits} bits, [{rows}, {cols}], m {m}");
                }
            }
        }
    }
}

#[test]
fn dense_matmul_of_every_format_and_ragged_shapes() {
    let mut random = Random(4);
    for kind in KINDS {
        for (rows, cols, m) in
            [(1, 1, 1), (3, 5, 2), (9, 16, 1), (33, 31, 7), (64, 100, 13), (5, 577, 67), (2, 4099, 3), (37, 801, 60)]
        {
            let w = Owned::new(kind, random.activations(rows * cols).into_iter());
            let wide: Vec<f64> = (0..rows * cols).map(|i| f64::from(w.floats().get(i))).collect();
            let x = random.activations(m * cols);
            for (isa, pool) in pools() {
                let mut y = vec![f32::NAN; m * rows];
                matmul(&pool, &x, &DenseMatrix::new(w.floats(), [rows, cols]).unwrap(), &mut y);
                assert_product(
                    &format!("{isa}, {kind:?}, [{rows}, {cols}], m {m}"),
                    &x,
                    0.0,
                    &wide,
                    &wide.iter().map(|w| w.abs()).collect::<Vec<_>>(),
                    [rows, cols],
                    &y,
                );
            }
        }
    }
}

/// Across the batch sizes at which other kernels take over, columns that do and do not fill vectors, ragged edges.
#[test]
fn a_row_of_a_dense_matmul_does_not_depend_on_its_batch() {
    let mut random = Random(12);
    for (rows, cols) in [(101, 900), (49, 768), (130, 1025), (7, 64)] {
        let most = 150;
        for kind in KINDS {
            let w = Owned::new(kind, random.activations(rows * cols).into_iter());
            let w = DenseMatrix::new(w.floats(), [rows, cols]).unwrap();
            let x = random.activations(most * cols);
            for (isa, pool) in pools() {
                let mut alone = vec![f32::NAN; most * rows];
                for (x, y) in x.chunks_exact(cols).zip(alone.chunks_exact_mut(rows)) {
                    matmul(&pool, x, &w, y);
                }
                let alone = bits_of(&alone);
                for m in [5, 47, 48, 49, 96, 101, most] {
                    let mut y = vec![f32::NAN; m * rows];
                    matmul(&pool, &x[..m * cols], &w, &mut y);
                    assert!(bits_of(&y) == alone[..m * rows], "{isa}, {kind:?}, [{rows}, {cols}], m {m}");
                }
            }
        }
    }
}

#[test]
fn dequantized_rows_are_those_of_the_definition() {
    let mut random = Random(5);
    let pool = Pool::new(2);
    for bits in [2, 3, 4, 5, 6, 8] {
        let w = Quantized::new(&mut random, [9, 192], bits, 64, FloatKind::F16);
        let rows = [8, 0, 3, 3];
        let mut y = vec![f32::NAN; rows.len() * 192];
        dequantize_rows(&pool, &w.matrix(), &rows, &mut y);
        for (i, &found) in y.iter().enumerate() {
            let wanted = w.element(rows[i / 192] as usize, i % 192);
            assert!(
                (f64::from(found) - wanted).abs() <= 1e-7 * (wanted.abs() + 0.1),
                "{bits} bits, {i}: {found}, wanted {wanted}"
            );
        }
    }
}

#[test]
fn widened_rows_are_those_of_the_matrix() {
    let mut random = Random(10);
    for kind in KINDS {
        let w = Owned::new(kind, random.activations(5 * 33).into_iter());
        let rows = [4, 4, 0];
        let mut y = vec![f32::NAN; 3 * 33];
        widen_rows(&Pool::new(2), &DenseMatrix::new(w.floats(), [5, 33]).unwrap(), &rows, &mut y);
        for (i, &found) in y.iter().enumerate() {
            assert_eq!(found, w.floats().get(rows[i / 33] as usize * 33 + i % 33), "{kind:?}, {i}");
        }
    }
}

#[test]
#[should_panic(expected = "row 3 of a quantized matrix of 3 rows")]
fn a_row_beyond_the_last_is_refused() {
    let w = Quantized::new(&mut Random(11), [3, 32], 4, 32, FloatKind::F16);
    dequantize_rows(&Pool::new(1), &w.matrix(), &[0, 3], &mut [0.0; 64]);
}

#[test]
fn float_formats_multiply_as_they_dequantize() {
    let mut random = Random(6);
    for (mode, bits, group) in [(QuantMode::Mxfp4, 4, 32), (QuantMode::Mxfp8, 8, 32), (QuantMode::Nvfp4, 4, 16)] {
        let (shape, m) = ([13, 96], 7);
        let packed: Vec<u32> = (0..shape[0] * shape[1] * bits / 32)
            // 0x7f and 0xff are NaN in E4M3.
            .map(|_| u32::from_le_bytes(random.word().to_le_bytes().map(|b| if b & 0x7f == 0x7f { 0 } else { b })))
            .collect();
        let scale = |random: &mut Random| {
            if group == 16 { (random.word() % 0x7f) as u8 } else { 120 + (random.word() % 9) as u8 }
        };
        let scales: Vec<u8> = (0..shape[0] * shape[1] / group).map(|_| scale(&mut random)).collect();
        let w = QuantMatrix::float(mode, &packed, &scales, shape).unwrap();
        let x = random.activations(m * shape[1]);
        for (isa, pool) in pools() {
            let mut rows = vec![f32::NAN; shape[0] * shape[1]];
            dequantize_rows(&pool, &w, &(0..shape[0] as u32).collect::<Vec<_>>(), &mut rows);
            let wide: Vec<f64> = rows.iter().map(|&v| f64::from(v)).collect();
            let mut y = vec![f32::NAN; m * shape[0]];
            quantized_matmul(&pool, &x, &w, &mut y);
            assert_product(
                &format!("{mode:?}, {isa}"),
                &x,
                0.0,
                &wide,
                &wide.iter().map(|w| w.abs()).collect::<Vec<_>>(),
                shape,
                &y,
            );
        }
    }
}

/// What MLX 0.32.2's `mx.dequantize` gives for the same words and scales.
#[test]
fn float_formats_dequantize_as_in_mlx() {
    let pool = Pool::new(1);
    // All sixteen E2M1 codes in order, twice; then the same under another scale.
    let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    let words = [0x76543210, 0xfedcba98, 0x76543210, 0xfedcba98];
    let mut y = [0.0; 32];
    let w = QuantMatrix::float(QuantMode::Mxfp4, &words, &[129], [1, 32]).unwrap();
    dequantize_rows(&pool, &w, &[0], &mut y);
    assert_eq!(y[..16], e2m1.map(|v| 4.0 * v), "mxfp4: scale 129 is 2²");
    assert_eq!(y[16..], e2m1.map(|v| 4.0 * v), "mxfp4");
    // 0x38 is 1 in E4M3, 0x3c 1.5, and 0x01 the smallest subnormal, 2⁻⁹.
    let w = QuantMatrix::float(QuantMode::Nvfp4, &words, &[0x3c, 0x01], [1, 32]).unwrap();
    dequantize_rows(&pool, &w, &[0], &mut y);
    assert_eq!(y[..16], e2m1.map(|v| 1.5 * v), "nvfp4");
    assert_eq!(y[16..], e2m1.map(|v| v / 512.0), "nvfp4, subnormal scale");
    let words = [0x01_40_3c_38, 0x7e_b8_08_07, 0, 0, 0, 0, 0, 0];
    let w = QuantMatrix::float(QuantMode::Mxfp8, &words, &[126], [1, 32]).unwrap();
    dequantize_rows(&pool, &w, &[0], &mut y);
    let wanted = [1.0, 1.5, 2.0, 0.001953125, 0.013671875, 0.015625, -1.0, 448.0].map(|v: f32| v / 2.0);
    assert_eq!(y[..8], wanted, "mxfp8");
}

#[test]
fn odd_activations() {
    let mut random = Random(7);
    let shape = [5, 128];
    for bits in [4, 8] {
        let w = Quantized::new(&mut random, shape, bits, 32, FloatKind::F32);
        let (wide, sizes) = (w.dequantized(), w.sizes());
        for (isa, pool) in pools() {
            for m in [1, 2, 7] {
                let case = format!("{isa}, {bits} bits, m {m}");
                for (name, value) in [("zeros", 0.0), ("tiny", 1e-40), ("huge", 1e34), ("one size", -3.0)] {
                    let x = vec![value; m * 128];
                    let mut y = vec![f32::NAN; m * 5];
                    quantized_matmul(&pool, &x, &w.matrix(), &mut y);
                    // Sums of subnormal numbers may be taken for zeros.
                    let size = sizes.iter().map(|w| w * f64::from(value).abs()).sum::<f64>();
                    for (i, &found) in y.iter().enumerate() {
                        let weights = &wide[i % 5 * 128..][..128];
                        let wanted: f64 = weights.iter().map(|w| f64::from(value) * w).sum();
                        let allowed = 5e-7 * size + 1e-37;
                        assert!(
                            (f64::from(found) - wanted).abs() <= allowed,
                            "{case}, {name}: {found}, wanted {wanted} ± {allowed}"
                        );
                    }
                }
                for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = random.activations((m + 1) * 128);
                    x[77] = value;
                    let mut y = vec![0.0; (m + 1) * 5];
                    quantized_matmul(&pool, &x, &w.matrix(), &mut y);
                    assert!(y[..5].iter().all(|v| !v.is_finite()), "{case}: {value} must show: {y:?}");
                    assert!(y[5..].iter().all(|v| v.is_finite()), "{case}: {value} must not leave its row: {y:?}");
                }
            }
        }
    }
}

#[test]
fn empty_batches_and_matrices_do_nothing() {
    let pool = Pool::new(2);
    matmul(&pool, &[], &DenseMatrix::new(&[1.0f32, 2.0][..], [1, 2]).unwrap(), &mut []);
    matmul(&pool, &[1.0, 2.0], &DenseMatrix::new(&[0.0f32; 0][..], [0, 2]).unwrap(), &mut []);
    let w = Quantized::new(&mut Random(8), [3, 32], 4, 32, FloatKind::F16);
    quantized_matmul(&pool, &[], &w.matrix(), &mut []);
    let mut y = [f32::NAN; 2];
    matmul(&pool, &[], &DenseMatrix::new(&[0.0f32; 0][..], [2, 0]).unwrap(), &mut y);
    assert_eq!(y, [0.0; 2], "a sum of no terms");
}

#[test]
#[should_panic(expected = "x has 33 elements and y 3")]
fn ragged_x_is_refused() {
    let w = Quantized::new(&mut Random(9), [3, 32], 4, 32, FloatKind::F16);
    quantized_matmul(&Pool::new(1), &[0.0; 33], &w.matrix(), &mut [0.0; 3]);
}

#[test]
fn mismatched_parts_are_errors_that_say_which() {
    let (packed, numbers) = ([0u32; 8], [0.0f32; 4]);
    let floats = |n: usize| Floats::F32(&numbers[..n]);
    for (case, result, wanted) in [
        ("bits", QuantMatrix::affine(&packed, floats(2), floats(2), [2, 32], 7, 32), "7 bits"),
        ("group", QuantMatrix::affine(&packed, floats(2), floats(2), [2, 32], 4, 48), "groups of 48"),
        ("columns", QuantMatrix::affine(&packed, floats(2), floats(2), [2, 40], 4, 32), "rows of 40 columns"),
        (
            "packed",
            QuantMatrix::affine(&packed[..7], floats(2), floats(2), [2, 32], 4, 32),
            "packed of a [2, 32] quantized matrix: 7 elements found, 8 wanted",
        ),
        (
            "scales",
            QuantMatrix::affine(&packed, floats(3), floats(2), [2, 32], 4, 32),
            "scales of a [2, 32] quantized matrix: 3",
        ),
        (
            "biases",
            QuantMatrix::affine(&packed, floats(2), floats(1), [2, 32], 4, 32),
            "biases of a [2, 32] quantized matrix: 1",
        ),
        (
            "float scales",
            QuantMatrix::float(QuantMode::Nvfp4, &packed, &[0; 3], [2, 32]),
            "scales of a [2, 32] quantized matrix: 3 elements found, 4 wanted",
        ),
    ] {
        let message = result.unwrap_err().to_string();
        assert!(message.contains(wanted), "{case}: {message}");
    }
}
