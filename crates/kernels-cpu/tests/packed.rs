//! Packed weights against sums in f64, and against themselves: in batches, on threads, alone and beside others.

mod support;

use support::{KINDS, Quantized, Random, assert_product, bits_of};
use vllm_kernels_cpu::{
    Activation, Activations, FloatKind, Isa, Linear, PackedMatrix, Pool, QuantMatrix, QuantMode, WeightArena,
    activation::gated, dequantize_rows, gated_matmul, packed_matmul,
};

/// How far activations move at most, as a part of the largest of their span: as documented.
fn rounding(activations: Activations) -> f64 {
    match activations {
        Activations::Int16 => 0.5 / (1.99 * 8192.0),
        Activations::Int8 => 0.5001 / 127.0,
        Activations::F32 => 0.0,
    }
}

/// Whether `isa` has kernels for packed weights.
fn packs(isa: Isa) -> bool {
    !matches!(isa, Isa::Scalar | Isa::Neon)
}

/// Pools of so many threads for which weights are packed, of every instruction set; none on other processors.
fn pools(threads: usize) -> Vec<Pool> {
    let wanted = Isa::available().into_iter().filter(|&isa| packs(isa));
    let of = |isa| {
        [Activations::Int16, Activations::Int8]
            .map(|kind| Pool::with_isa(threads, isa).expect("it is available").with_activations(kind))
    };
    wanted.flat_map(of).collect()
}

fn name(pool: &Pool) -> String {
    format!("{}, {}", pool.isa(), pool.activations())
}

fn pack(pool: &Pool, w: &Quantized) -> PackedMatrix {
    PackedMatrix::pack(pool, &WeightArena::new(), &w.matrix()).expect("this pool wants packed weights")
}

fn product(pool: &Pool, x: &[f32], w: &PackedMatrix) -> Vec<f32> {
    let mut y = vec![f32::NAN; x.len() / w.cols() * w.rows()];
    packed_matmul(pool, x, &[Linear::plain(w)], &mut [&mut y]);
    y
}

#[test]
fn matmul_of_every_width_group_and_scale() {
    let mut random = Random(1);
    for (bits, group_size, kind, symmetric) in every_layout() {
        // Rows that end within a panel, with it, and after an odd number of panels.
        for (rows, groups, m) in [(1, 1, 1), (7, 3, 2), (37, 5, 5), (18, 2, 67), (48, 4, 1), (33, 1, 7)] {
            let shape = [rows, groups * group_size];
            let mut w = Quantized::new(&mut random, shape, bits, group_size, kind);
            if symmetric {
                w = w.symmetric(kind);
            }
            let x = random.activations(m * shape[1]);
            for pool in pools(2) {
                let y = product(&pool, &x, &pack(&pool, &w));
                let (pool_name, rounding) = (name(&pool), rounding(pool.activations()));
                let case =
                    format!("{pool_name}, {bits} bits, group {group_size}, {kind:?}, {symmetric}, {shape:?}, m {m}");
                assert_product(&case, &x, rounding, &w.dequantized(), &w.sizes(), shape, &y);
            }
        }
    }
}

/// Bits, group size, kind of scale, and whether symmetric.
fn every_layout() -> impl Iterator<Item = (u8, usize, FloatKind, bool)> {
    [4, 8].into_iter().flat_map(|bits| {
        [32, 64, 128].into_iter().flat_map(move |group_size| {
            KINDS.into_iter().flat_map(move |kind| [false, true].map(|symmetric| (bits, group_size, kind, symmetric)))
        })
    })
}

#[test]
fn matmul_of_every_small_batch_and_a_large_one() {
    let mut random = Random(2);
    let shape = [101, 576];
    for bits in [4, 8] {
        let w = Quantized::new(&mut random, shape, bits, 32, FloatKind::F16);
        let (wanted, sizes) = (w.dequantized(), w.sizes());
        for pool in pools(2) {
            let packed = pack(&pool, &w);
            for m in (1..=40).chain([131]) {
                let x = random.activations(m * shape[1]);
                let y = product(&pool, &x, &packed);
                // All of it for a few, the last row for each.
                let skip = if m % 13 < 2 { 0 } else { m - 1 };
                let case = format!("{}, {bits} bits, m {m}", name(&pool));
                let (x, y) = (&x[skip * shape[1]..], &y[skip * shape[0]..]);
                assert_product(&case, x, rounding(pool.activations()), &wanted, &sizes, shape, y);
            }
        }
    }
}

#[test]
fn a_row_is_the_same_in_every_batch_and_on_any_number_of_threads() {
    let mut random = Random(3);
    let m = 131;
    for (rows, cols, bits, group_size, kind, symmetric) in [
        (101, 576, 4, 32, FloatKind::F16, false),
        (101, 576, 4, 32, FloatKind::F16, true),
        (49, 192, 8, 64, FloatKind::Bf16, false),
        (64, 640, 8, 128, FloatKind::F32, true),
        (3, 32, 4, 32, FloatKind::F16, false),
        (700, 2208, 4, 32, FloatKind::Bf16, false),
    ] {
        let mut w = Quantized::new(&mut random, [rows, cols], bits, group_size, kind);
        if symmetric {
            w = w.symmetric(kind);
        }
        let x = random.activations(m * cols);
        for pool in pools(1) {
            let packed = pack(&pool, &w);
            let alone: Vec<u32> = x.chunks(cols).flat_map(|x| bits_of(&product(&pool, x, &packed))).collect();
            let case = format!("{}, {bits} bits, [{rows}, {cols}], symmetric {symmetric}", name(&pool));
            for batch in (2..=40).chain([m]) {
                let batch = batch * cols;
                let found: Vec<u32> = x.chunks(batch).flat_map(|x| bits_of(&product(&pool, x, &packed))).collect();
                assert!(found == alone, "{case}: batches of {}", batch / cols);
            }
            for threads in 2..=5 {
                let threaded = Pool::with_isa(threads, pool.isa()).unwrap().with_activations(pool.activations());
                let repacked = pack(&threaded, &w);
                assert!(bits_of(&product(&threaded, &x, &repacked)) == alone, "{case}: {threads} threads");
                assert!(
                    bits_of(&product(&threaded, &x[..cols], &packed)) == alone[..rows],
                    "{case}: {threads} threads"
                );
            }
        }
    }
}

#[test]
fn every_instruction_set_and_architecture_gives_the_same_bits() {
    /// Of the bits of all results (FNV-1a), as any processor has computed them.
    const HASHES: [(Activations, u64); 2] =
        [(Activations::Int16, 0x51f4_a3f7_9af0_5828), (Activations::Int8, 0x6a84_2540_1d74_4e20)];
    for pool in pools(2) {
        let mut random = Random(12);
        let mut hash = 0xcbf2_9ce4_8422_2325u64;
        for (bits, group_size, kind, symmetric) in every_layout() {
            let mut w = Quantized::new(&mut random, [37, 256], bits, group_size, kind);
            if symmetric {
                w = w.symmetric(kind);
            }
            let x = random.activations(9 * 256);
            for bits in bits_of(&product(&pool, &x, &pack(&pool, &w))) {
                hash = (hash ^ u64::from(bits)).wrapping_mul(0x0100_0000_01b3);
            }
        }
        let (_, wanted) = HASHES[usize::from(pool.activations() == Activations::Int8)];
        assert_eq!(hash, wanted, "{}: {hash:#x}", name(&pool));
    }
}

#[test]
fn layers_of_one_job_are_what_each_is_alone() {
    let mut random = Random(4);
    let cols = 192;
    for pool in pools(2) {
        let shapes = [(4, 75), (8, 16), (4, 1), (4, 33)];
        let weights = shapes.map(|(bits, rows)| {
            let w = Quantized::new(&mut random, [rows, cols], bits, 64, FloatKind::F16);
            pack(&pool, &if rows == 33 { w.symmetric(FloatKind::F16) } else { w })
        });
        let bias = random.activations(75);
        for m in [1, 2, 9, 40] {
            let x = random.activations(m * cols);
            let mut ys = shapes.map(|(_, rows)| vec![f32::NAN; m * rows]);
            let mut layers = weights.each_ref().map(Linear::plain);
            layers[0].bias = Some(&bias);
            packed_matmul(&pool, &x, &layers, &mut ys.each_mut().map(Vec::as_mut_slice));
            for (i, (w, y)) in weights.iter().zip(&ys).enumerate() {
                let mut wanted = product(&pool, &x, w);
                if i == 0 {
                    wanted.chunks_mut(75).for_each(|row| row.iter_mut().zip(&bias).for_each(|(y, b)| *y += b));
                }
                assert!(bits_of(y) == bits_of(&wanted), "{}, layer {i}, m {m}", name(&pool));
            }
        }
    }
}

#[test]
fn gated_layers_are_their_products_gated() {
    let mut random = Random(5);
    let (rows, cols) = (101, 128);
    for pool in pools(2) {
        let mut weights = |bits| pack(&pool, &Quantized::new(&mut random, [rows, cols], bits, 32, FloatKind::F16));
        let (gate, up) = (weights(4), weights(8));
        let bias = random.activations(rows);
        for m in [1, 3, 20] {
            let x = random.activations(m * cols);
            for bias in [None, Some(&bias[..])] {
                let layer = |w| Linear { w, bias };
                let [mut a, mut b, mut wanted, mut found] = std::array::from_fn(|_| vec![f32::NAN; m * rows]);
                packed_matmul(&pool, &x, &[layer(&gate), layer(&up)], &mut [&mut a, &mut b]);
                gated(&pool, Activation::Silu, &a, &b, &mut wanted);
                gated_matmul(&pool, &x, [layer(&gate), layer(&up)], Activation::Silu, &mut found);
                assert!(bits_of(&found) == bits_of(&wanted), "{}, m {m}", name(&pool));
            }
        }
    }
}

#[test]
fn one_row_takes_one_fork_and_join_for_all_layers() {
    let mut random = Random(12);
    for pool in pools(2) {
        let w = pack(&pool, &Quantized::new(&mut random, [256, 576], 4, 32, FloatKind::F16));
        let x = random.activations(576);
        let [mut a, mut b, mut c] = [(); 3].map(|()| vec![0.0; 256]);
        let before = pool.jobs();
        packed_matmul(&pool, &x, &[Linear::plain(&w); 3], &mut [&mut a, &mut b, &mut c]);
        assert_eq!(pool.jobs() - before, 1, "three layers");
        gated_matmul(&pool, &x, [Linear::plain(&w); 2], Activation::Silu, &mut a);
        assert_eq!(pool.jobs() - before, 2, "a gated pair");
    }
}

#[test]
fn packed_rows_dequantize_as_the_rows_that_were_packed() {
    let mut random = Random(6);
    for pool in pools(2) {
        for (bits, group_size, kind, symmetric) in every_layout() {
            let mut w = Quantized::new(&mut random, [37, 256], bits, group_size, kind);
            if symmetric {
                w = w.symmetric(kind);
            }
            let rows = [36, 0, 16, 16, 15];
            let [mut found, mut wanted] = [(); 2].map(|()| vec![f32::NAN; rows.len() * 256]);
            pack(&pool, &w).dequantize_rows(&pool, &rows, &mut found);
            dequantize_rows(&pool, &w.matrix(), &rows, &mut wanted);
            assert!(bits_of(&found) == bits_of(&wanted), "{bits} bits, group {group_size}, {kind:?}, {symmetric}");
        }
    }
}

#[test]
fn odd_activations() {
    let mut random = Random(7);
    let cols = 128;
    for bits in [4, 8] {
        let w = Quantized::new(&mut random, [5, cols], bits, 32, FloatKind::F32);
        let (wide, sizes) = (w.dequantized(), w.sizes());
        for pool in pools(2) {
            let packed = pack(&pool, &w);
            for m in [1, 2, 7] {
                let case = format!("{}, {bits} bits, m {m}", name(&pool));
                for (name, value) in [("zeros", 0.0), ("tiny", 1e-40), ("huge", 1e34), ("one size", -3.0)] {
                    let y = product(&pool, &vec![value; m * cols], &packed);
                    // Spans of subnormal activations may be taken for zeros; equal ones are rounded all in one direction.
                    let size = sizes.iter().map(|w| w * f64::from(value).abs()).sum::<f64>();
                    for (i, &found) in y.iter().enumerate() {
                        let wanted: f64 = wide[i % 5 * cols..][..cols].iter().map(|w| f64::from(value) * w).sum();
                        let allowed = 5e-7 * size + rounding(pool.activations()) * wanted.abs() + 1e-35;
                        let off = (f64::from(found) - wanted).abs();
                        assert!(off <= allowed, "{case}, {name}: {found}, wanted {wanted} ± {allowed}");
                    }
                }
                for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut x = random.activations((m + 1) * cols);
                    x[77] = value;
                    let y = product(&pool, &x, &packed);
                    assert!(y[..5].iter().all(|v| !v.is_finite()), "{case}: {value} must show: {y:?}");
                    assert!(y[5..].iter().all(|v| v.is_finite()), "{case}: {value} must not leave its row: {y:?}");
                }
            }
        }
    }
}

#[test]
fn only_what_has_a_kernel_is_packed() {
    let mut random = Random(8);
    let packed = |pool: &Pool, w: &QuantMatrix| PackedMatrix::pack(pool, &WeightArena::new(), w).is_some();
    let w = Quantized::new(&mut random, [3, 64], 4, 32, FloatKind::F16);
    let five = Quantized::new(&mut random, [3, 64], 5, 32, FloatKind::F16);
    let (words, scales) = ([0; 24], [127; 6]);
    let float = QuantMatrix::float(QuantMode::Mxfp4, &words, &scales, [3, 64]).unwrap();
    for isa in Isa::available() {
        let pool = Pool::with_isa(1, isa).unwrap();
        assert_eq!(packed(&pool, &w.matrix()), packs(isa), "{isa}");
        assert!(!packed(&pool, &five.matrix()) && !packed(&pool, &float), "{isa}");
        assert!(!packed(&pool.with_activations(Activations::F32), &w.matrix()), "{isa}");
    }
}

#[test]
fn biases_that_follow_from_the_scales_take_no_memory() {
    let mut random = Random(9);
    for pool in pools(1) {
        let w = Quantized::new(&mut random, [32, 64], 4, 32, FloatKind::F16);
        assert_eq!(pack(&pool, &w).nbytes(), 32 * 64 * 5 / 8);
        assert_eq!(pack(&pool, &w.symmetric(FloatKind::F16)).nbytes(), 32 * 64 * 9 / 16);
    }
}

#[test]
fn empty_batches_and_matrices_do_nothing() {
    let mut random = Random(10);
    for pool in pools(2) {
        let w = pack(&pool, &Quantized::new(&mut random, [3, 32], 4, 32, FloatKind::F16));
        assert!(product(&pool, &[], &w).is_empty());
        packed_matmul(&pool, &[1.0; 7], &[], &mut []);
        let none = pack(&pool, &Quantized::new(&mut random, [0, 32], 4, 32, FloatKind::F16));
        assert!(product(&pool, &[1.0; 64], &none).is_empty());
        let narrow = pack(&pool, &Quantized::new(&mut random, [2, 0], 4, 32, FloatKind::F16));
        let mut y = [f32::NAN; 4];
        packed_matmul(&pool, &[], &[Linear { w: &narrow, bias: Some(&[1.0, 2.0]) }], &mut [&mut y]);
        assert_eq!(y, [1.0, 2.0, 1.0, 2.0], "sums of no terms");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    for pool in pools(1) {
        let w = pack(&pool, &Quantized::new(&mut Random(11), [3, 32], 4, 32, FloatKind::F16));
        let message = |x: usize, bias: usize, y: usize| {
            let (x, bias, mut y) = (vec![0.0; x], vec![0.0; bias], vec![0.0; y]);
            let layer = Linear { w: &w, bias: Some(&bias) };
            let call = std::panic::AssertUnwindSafe(|| packed_matmul(&pool, &x, &[layer], &mut [&mut y]));
            *std::panic::catch_unwind(call).unwrap_err().downcast::<String>().unwrap()
        };
        assert!(message(33, 3, 3).contains("x has 33 elements and y 3"));
        assert!(message(32, 2, 3).contains("a bias of 2 for 3 outputs"));
    }
}
