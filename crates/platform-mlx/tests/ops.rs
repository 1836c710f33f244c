//! Our CPU primitives against MLX's own kernels on the same arrays.

mod support;

use std::sync::Arc;

use mlx_rs::{Array, Stream, ops::quantize, with_stream};
use vllm_checkpoint::QuantMode;
use vllm_kernels_cpu::{Activations, PackedMatrix, Pool, QuantMatrix, WeightArena};
use vllm_platform::{Features, KvCacheSpec, KvDtype, KvGroup, MediaSpan, Row, SeqId, SpanGrid, StepPlan};
use vllm_platform_mlx::{
    Activation, Batch, ConvGeometry, ExpertWeights, Inlet, Layout, LstmWeights, Matrix, Nonlinearity, Ops, Outlet,
    Projection, QuantizedMatrix, Result, Routing, Tensor, TransposedGeometry, ffi,
    nn::{MediaFeatures, Rope, RopeConfig},
};

use support::numbers;

fn both(check: impl Fn(&Ops, &Ops) -> Result<()>) {
    let stream = Stream::cpu();
    // What is compared is the arithmetic, not the rounding of activations.
    let cpu = Ops::cpu(Arc::new(Pool::new(2).with_activations(Activations::F32)), stream.clone());
    with_stream(&stream, || check(&cpu, &Ops::mlx())).expect("both evaluate");
}

/// Within `tolerance` of the largest magnitude.
fn assert_close(case: &str, ours: &Array, theirs: &Array, tolerance: f32) {
    assert_eq!(ours.shape(), theirs.shape(), "{case}");
    let theirs = theirs.as_type::<f32>().and_then(|a| a.contiguous()).expect("f32");
    let (ours, theirs) = (ours.as_slice::<f32>(), theirs.as_slice::<f32>());
    let largest = theirs.iter().fold(0f32, |m, v| m.max(v.abs()));
    let worst = ours.iter().zip(theirs).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
    assert!(largest > 0.0 && worst <= tolerance * largest, "{case}: off by {worst} of {largest}");
}

fn affine(w: &Array, group_size: i32, bits: i32) -> Matrix {
    let (packed, scales, biases) = quantize(w, group_size, bits).expect("MLX quantizes");
    Matrix::Quantized(QuantizedMatrix {
        packed,
        scales,
        biases: Some(biases),
        rows: w.dim(0) as usize,
        columns: w.dim(1) as usize,
        bits: bits as u8,
        group_size: group_size as usize,
        mode: QuantMode::Affine,
    })
}

#[test]
fn linear_agrees_in_every_format() {
    both(|cpu, mlx| {
        let w = numbers(1, &[70, 256]);
        let bias = numbers(2, &[70]);
        for tokens in [1, 5, 33] {
            let x = numbers(3, &[tokens, 256]);
            let formats = [
                ("f32", Matrix::Dense(w.clone())),
                ("f16", Matrix::Dense(w.as_type::<half::f16>()?)),
                ("bf16", Matrix::Dense(w.as_type::<half::bf16>()?)),
                ("4 bit group 32", affine(&w, 32, 4)),
                ("4 bit group 128", affine(&w, 128, 4)),
                ("8 bit group 64", affine(&w, 64, 8)),
                ("6 bit group 64", affine(&w, 64, 6)),
                ("3 bit group 32", affine(&w, 32, 3)),
            ];
            for (name, matrix) in formats {
                let plain = Projection::plain(&matrix);
                let layers = [Projection { bias: Some(&bias), ..plain }, Projection { heads: Some(7), ..plain }];
                let ([a, b], [c, d]) = (cpu.linear(&x, layers)?, mlx.linear(&x, layers)?);
                assert_close(&format!("{name}, {tokens} rows, bias"), &a, &c, 1e-5);
                assert_close(&format!("{name}, {tokens} rows"), &b, &d, 1e-5);
            }
        }
        Ok(())
    });
}

/// What the loader makes of it where the CPU has byte dot products.
fn packed(w: &Array, group_size: i32, bits: i32) -> Option<Matrix> {
    let (packed, scales, biases) = quantize(w, group_size, bits).expect("MLX quantizes");
    let (scales, biases) = (scales.as_slice::<f32>().into(), biases.as_slice::<f32>().into());
    let shape = [w.dim(0) as usize, w.dim(1) as usize];
    let w = QuantMatrix::affine(packed.as_slice(), scales, biases, shape, bits as u8, group_size as usize);
    let w = PackedMatrix::pack(&Pool::new(2), &WeightArena::new(), &w.expect("a matrix"))?;
    Some(Matrix::Packed(Arc::new(w)))
}

#[test]
fn packed_weights_agree_alone_beside_others_gated_and_as_rows() {
    let (stream, mlx) = (Stream::cpu(), Ops::mlx());
    let cpu = Ops::cpu(Arc::new(Pool::new(2)), stream.clone());
    let check = || -> Result<()> {
        let (w, v) = (numbers(20, &[70, 256]), numbers(21, &[70, 256]));
        let bias = numbers(22, &[70]);
        let ours = [packed(&w, 32, 4), packed(&v, 64, 8)];
        let [Some(a), Some(b)] = ours else { return Ok(()) };
        let (c, d) = (affine(&w, 32, 4), affine(&v, 64, 8));
        assert_eq!((a.to_string(), a.rows()), (c.to_string(), c.rows()));
        // Rows are filled up to 80.
        assert_eq!(a.nbytes() * 70, c.nbytes() * 80);
        for tokens in [1, 9] {
            let x = numbers(23, &[tokens, 256]);
            let layers = |a, b| {
                [
                    Projection { bias: Some(&bias), ..Projection::plain(a) },
                    Projection { heads: Some(7), ..Projection::plain(b) },
                ]
            };
            let theirs = mlx.linear(&x, layers(&c, &d))?;
            // The second pair is not all packed.
            for matrices in [layers(&a, &b), layers(&a, &d)] {
                let ours = cpu.linear(&x, matrices)?;
                assert_close("with a bias", &ours[0], &theirs[0], 1e-4);
                assert_close("with heads", &ours[1], &theirs[1], 1e-4);
            }
            let theirs = mlx.gated_linear(&x, Projection::plain(&c), Projection::plain(&d), Activation::Silu)?;
            for up in [&b, &d] {
                let ours = cpu.gated_linear(&x, Projection::plain(&a), Projection::plain(up), Activation::Silu)?;
                assert_close("gated", &ours, &theirs, 1e-4);
            }
        }
        let ids = Array::from_slice(&[3u32, 69, 0, 3], &[4]);
        assert_close("rows", &cpu.embed(&ids, &b)?, &mlx.embed(&ids, &d)?, 1e-6);
        let refused = mlx.embed(&ids, &a).map(drop).expect_err("MLX knows no panels").to_string();
        assert!(refused.contains("packed for the CPU's kernels"), "{refused}");
        Ok(())
    };
    with_stream(&stream, check).expect("both evaluate");
}

#[test]
fn mixtures_of_experts_agree() {
    both(|cpu, mlx| {
        let (count, hidden, inner) = (6, 64, 96);
        let [gate, up] = [1, 2].map(|seed| numbers(seed, &[count * inner, hidden]));
        let down = numbers(3, &[count * hidden, inner]);
        let dense = |w: &Array| Matrix::Dense(w.clone());
        let four_bits = |w: &Array| affine(w, 32, 4);
        /// Name, and how weights become a matrix.
        type Format<'a> = (&'a str, &'a dyn Fn(&Array) -> Matrix);
        let formats: [Format<'_>; 2] = [("f32", &dense), ("4 bit", &four_bits)];
        for (name, format) in formats {
            let experts =
                ExpertWeights { gate: format(&gate), up: format(&up), down: format(&down), count: count as usize };
            for tokens in [1, 40] {
                let (x, logits) = (numbers(4, &[tokens, hidden]), numbers(5, &[tokens, count]));
                for (per_token, normalize) in [(1, false), (2, true), (3, false), (6, true)] {
                    let routing = Routing { per_token, normalize };
                    let ours = cpu.moe(&x, &logits, &experts, routing, Activation::Silu)?;
                    let theirs = mlx.moe(&x, &logits, &experts, routing, Activation::Silu)?;
                    assert_close(&format!("{name}, {tokens} tokens, {routing:?}"), &ours, &theirs, 1e-5);
                }
            }
        }
        Ok(())
    });
}

#[test]
fn sums_and_multiples_agree() {
    both(|cpu, mlx| {
        for tokens in [1, 300] {
            let (x, y) = (numbers(1, &[tokens, 576]), numbers(2, &[tokens, 576]));
            assert_close("sum", &cpu.add(&x, &y)?, &mlx.add(&x, &y)?, 0.0);
            assert_close("multiple", &cpu.scale(&x, 0.3)?, &mlx.scale(&x, 0.3)?, 0.0);
            assert!(cpu.add(&x, &numbers(2, &[tokens, 1])).is_err(), "shapes must be the same");
        }
        Ok(())
    });
}

#[test]
fn embedding_agrees_and_refuses_what_is_beyond_the_vocabulary() {
    both(|cpu, mlx| {
        let w = numbers(4, &[20, 64]);
        let ids = Array::from_slice(&[3u32, 19, 0, 3], &[4]);
        for (name, matrix) in [
            ("f32", Matrix::Dense(w.clone())),
            ("bf16", Matrix::Dense(w.as_type::<half::bf16>()?)),
            ("4 bit", affine(&w, 32, 4)),
            ("8 bit", affine(&w, 64, 8)),
        ] {
            assert_close(name, &cpu.embed(&ids, &matrix)?, &mlx.embed(&ids, &matrix)?, 1e-6);
        }
        let beyond = cpu.embed(&Array::from_slice(&[20u32], &[1]), &Matrix::Dense(w))?;
        let message = beyond.eval().expect_err("no such row").what().to_owned();
        assert!(message.contains("token 20 is beyond the vocabulary of 20"), "{message}");
        Ok(())
    });
}

#[test]
fn norms_activations_and_softmax_agree() {
    both(|cpu, mlx| {
        let (x, r) = (numbers(5, &[7, 96]), numbers(6, &[7, 96]));
        let (w, b) = (numbers(7, &[96]), numbers(8, &[96]));
        assert_close("rms_norm", &cpu.rms_norm(&x, &w, 1e-5)?, &mlx.rms_norm(&x, &w, 1e-5)?, 1e-6);
        let ((sum, norm), (their_sum, their_norm)) =
            (cpu.add_rms_norm(&x, &r, &w, 1e-5)?, mlx.add_rms_norm(&x, &r, &w, 1e-5)?);
        assert_close("residual", &sum, &their_sum, 1e-6);
        assert_close("norm of the residual", &norm, &their_norm, 1e-6);
        for bias in [None, Some(&b)] {
            assert_close(
                "layer_norm",
                &cpu.layer_norm(&x, &w, bias, 1e-5)?,
                &mlx.layer_norm(&x, &w, bias, 1e-5)?,
                1e-5,
            );
        }
        for activation in [Activation::Silu, Activation::GeluTanh] {
            let (gate, up) = (Matrix::Dense(numbers(13, &[40, 96])), Matrix::Dense(numbers(14, &[40, 96])));
            let gated = |ops: &Ops| ops.gated_linear(&x, Projection::plain(&gate), Projection::plain(&up), activation);
            let (ours, theirs) = (gated(cpu)?, gated(mlx)?);
            assert_close(&format!("{activation:?}"), &ours, &theirs, 1e-5);
        }
        assert_close("softmax", &cpu.softmax(&x)?, &mlx.softmax(&x)?, 1e-6);
        Ok(())
    });
}

#[test]
fn rope_agrees_on_a_ragged_batch() {
    both(|cpu, mlx| {
        let tables = [vec![0, 1, 2, 3]];
        let row =
            |seq, start, tokens| Row { seq: SeqId(seq), tokens, start, tables: &tables, media: &[], sample: None };
        let rows = vec![row(0, 0, &[1, 2, 3]), row(1, 50, &[4]), row(2, 9, &[5, 6])];
        let group = KvGroup { window: None, num_blocks: 4, block_bytes: 0 };
        let kv = KvCacheSpec { block_size: 16, dtype: KvDtype::F32, groups: vec![group], rewind: None };
        let batch = Batch::new(Layout::new(&StepPlan { rows, ..StepPlan::default() }, &kv)?.into());
        let (x, y) = (numbers(9, &[6, 3, 32]), numbers(15, &[6, 1, 32]));
        for (name, config) in [
            ("whole heads", RopeConfig::plain(32, 10_000.0)),
            ("half of a head", RopeConfig::plain(16, 10_000.0)),
            ("with a magnitude", RopeConfig { magnitude: 1.25, ..RopeConfig::plain(32, 10_000.0) }),
        ] {
            let ours = Rope::new(cpu.clone(), &config)?.forward([&x, &y], &batch)?;
            let theirs = Rope::new(mlx.clone(), &config)?.forward([&x, &y], &batch)?;
            assert_close(name, &ours[0], &theirs[0], 1e-5);
            assert_close(name, &ours[1], &theirs[1], 1e-5);
        }
        Ok(())
    });
}

/// Three tokens of text, a picture of 2 by 3 with a vector of each token's number, one more token; in two sequences.
fn seeing_batch(levels: usize) -> Batch {
    let features = Features::new((0..levels * 6 * 4).map(|i| i as f32).collect(), levels, 4);
    let grid = Some(SpanGrid { columns: 3, time: 0, continues: false });
    let span = MediaSpan { start: 3, len: 6, first: 0, grid, bidirectional: false, features: Some(features.into()) };
    let (tables, media) = ([vec![0, 1, 2, 3]], [span]);
    let row = |seq, start, tokens, media| Row { seq: SeqId(seq), tokens, start, tables: &tables, media, sample: None };
    let tokens = [1; 10];
    // The whole; text alone; the end of the picture and what follows.
    let rows = vec![row(0, 0, &tokens, &media), row(1, 20, &tokens[..2], &[]), row(2, 7, &tokens[..3], &media)];
    let group = KvGroup { window: None, num_blocks: 4, block_bytes: 0 };
    let kv = KvCacheSpec { block_size: 16, dtype: KvDtype::F32, groups: vec![group], rewind: None };
    Batch::new(Layout::new(&StepPlan { rows, ..StepPlan::default() }, &kv).expect("sound").into())
}

#[test]
fn rope_agrees_on_several_axes() {
    both(|cpu, mlx| {
        let batch = seeing_batch(1);
        let x = numbers(9, &[15, 3, 32]);
        for (name, dims, interleaved) in [("sections", 32, false), ("in turns", 32, true), ("half of a head", 16, true)]
        {
            let sections = if dims == 32 { [6, 5, 5] } else { [4, 2, 2] };
            let scaling = serde_json::json!({"mrope_section": sections, "mrope_interleaved": interleaved});
            let config = RopeConfig::new(dims, 10_000.0, Some(&scaling), None)?;
            let [ours] = Rope::new(cpu.clone(), &config)?.forward([&x], &batch)?;
            let [theirs] = Rope::new(mlx.clone(), &config)?.forward([&x], &batch)?;
            assert_close(name, &ours, &theirs, 1e-5);
            let [plain] = Rope::new(cpu.clone(), &RopeConfig::plain(dims, 10_000.0))?.forward([&x], &batch)?;
            let (ours, plain) = (ours.as_slice::<f32>(), plain.as_slice::<f32>());
            assert_eq!(ours[..3 * 96], plain[..3 * 96], "{name}: text before the picture stands where it always does");
            assert_ne!(ours[4 * 96..], plain[4 * 96..], "{name}: the picture has axes of its own");
        }
        Ok(())
    });
}

#[test]
fn features_stand_in_for_the_tokens_that_hold_their_place() {
    both(|cpu, mlx| {
        let x = numbers(9, &[15, 4]);
        let media = |ops: &Ops| MediaFeatures::new(ops.clone(), 2);
        for ops in [cpu, mlx] {
            let batch = seeing_batch(2);
            let placed = media(ops).place(x.clone(), &batch)?;
            let deepened = media(ops).deepen(0, x.clone(), &batch)?;
            assert_eq!(media(ops).deepen(1, x.clone(), &batch)?.as_slice::<f32>(), x.as_slice::<f32>());
            let rows = |x: &Tensor| x.as_slice::<f32>().chunks(4).map(<[f32]>::to_vec).collect::<Vec<_>>();
            let (x, placed, deepened) = (rows(&x), rows(&placed), rows(&deepened));
            let vectors = [None, None, None, Some(0), Some(1), Some(2), Some(3), Some(4), Some(5), None, None, None];
            for (row, vector) in vectors.into_iter().chain([Some(4), Some(5), None]).enumerate() {
                let feature = |level: usize, i: usize| vector.map(|vector| ((level * 6 + vector) * 4 + i) as f32);
                for i in 0..4 {
                    assert_eq!(placed[row][i], feature(0, i).unwrap_or(x[row][i]), "row {row}");
                    assert_eq!(deepened[row][i], x[row][i] + feature(1, i).unwrap_or(0.0), "row {row}");
                }
            }
        }
        let wrong = MediaFeatures::new(cpu.clone(), 1).place(numbers(9, &[15, 8]), &seeing_batch(1))?;
        assert!(wrong.eval().unwrap_err().to_string().contains("the model wants vectors of 8"));
        Ok(())
    });
}

#[test]
fn operands_that_are_views_are_read_as_what_they_show() {
    both(|cpu, mlx| {
        let x = numbers(10, &[64, 6]).t();
        let w = Matrix::Dense(numbers(11, &[8, 64]));
        let ([ours], [theirs]) = (cpu.linear(&x, [Projection::plain(&w)])?, mlx.linear(&x, [Projection::plain(&w)])?);
        assert_close("a transposed operand", &ours, &theirs, 1e-5);
        Ok(())
    });
}

#[test]
fn a_panicking_kernel_is_an_error_of_the_evaluation() {
    let stream = Stream::cpu();
    let x = numbers(12, &[4]);
    let output = ffi::Output::f32(&[4]);
    let [y] = ffi::cpu_primitive(&stream, c"faulty", &[&x], [output], |_, _| panic!("no such luck")).expect("a node");
    let message = y.eval().expect_err("it panics").what().to_owned();
    assert!(message.contains("no such luck"), "{message}");
    let [z] = ffi::cpu_primitive(&stream, c"sound", &[&x], [output], |inputs, outputs| {
        outputs[0].f32().copy_from_slice(inputs[0].f32());
        Ok(())
    })
    .expect("a node");
    assert_eq!(z.as_slice::<f32>(), x.as_slice::<f32>(), "the stream lives on");
}

#[test]
fn convolutions_agree_with_all_that_stands_around_them() {
    both(|cpu, mlx| {
        let (alpha, style) = (numbers(5, &[24]).add(Array::from_f32(2.0))?, numbers(6, &[1, 48]));
        let x = numbers(7, &[30, 24]);
        let maps = [cpu.adaptive_norm(&x, &style, 1e-5)?, mlx.adaptive_norm(&x, &style, 1e-5)?];
        assert_close("adaptive norm's scales", &maps[0].scale, &maps[1].scale, 1e-5);
        assert_close("adaptive norm's shifts", &maps[0].shift, &maps[1].shift, 1e-5);
        let functions = [
            ("identity", Nonlinearity::Identity),
            ("leaky", Nonlinearity::LeakyRelu(0.2)),
            ("snake", Nonlinearity::Snake(&alpha)),
        ];
        for (name, function) in functions {
            let inlet = |i: usize| Inlet { map: Some(&maps[i]), function };
            assert_close(name, &cpu.admit(&x, inlet(0))?, &mlx.admit(&x, inlet(1))?, 1e-5);
        }
        let same = ConvGeometry::same(3, 2);
        let geometries = [
            ("same", 3, same),
            ("strided", 4, ConvGeometry { stride: 3, padding: 1, ..ConvGeometry::default() }),
            ("in groups", 3, ConvGeometry { groups: 4, ..same }),
        ];
        let flat = |array: &Array| array.as_slice::<f32>().to_vec();
        let bias = flat(&numbers(8, &[16]));
        for (name, kernel, geometry) in geometries {
            let inputs = 24 / geometry.groups;
            let weights = flat(&numbers(9, &[16, kernel as i32, inputs as i32]));
            let make = |ops: &Ops| {
                let shape = [16, kernel, inputs];
                ops.conv_weights(&WeightArena::new(), &weights, shape, geometry, Some(&bias))
            };
            let made = [make(cpu)?, make(mlx)?];
            for shape in [&[30, 24][..], &[2, 15, 24]] {
                let x = x.reshape(shape)?;
                let run = |ops: &Ops, i: usize| -> Result<Tensor> {
                    let inlet = Inlet { map: Some(&maps[i]), function: Nonlinearity::Snake(&alpha) };
                    let plain = ops.conv1d(&x, &made[i], inlet, Outlet::default())?;
                    let outlet = Outlet { residual: Some(&plain), factor: 0.5 };
                    ops.conv1d(&x, &made[i], Inlet::default(), outlet)
                };
                assert_close(&format!("{name}, {shape:?}"), &run(cpu, 0)?, &run(mlx, 1)?, 1e-5);
            }
            // Weights of one device are no use on another.
            assert!(cpu.conv1d(&x, &made[1], Inlet::default(), Outlet::default()).is_err());
        }
        let angles = x.multiply(Array::from_f32(1000.0))?;
        assert_close("sine", &cpu.sin(&angles)?, &mlx.sin(&angles)?, 1e-6);
        Ok(())
    });
}

#[test]
fn long_short_term_memory_agrees_both_ways() {
    both(|cpu, mlx| {
        let direction = |seed| LstmWeights {
            input: numbers(seed, &[80, 12]),
            hidden: numbers(seed + 1, &[80, 20]),
            bias: numbers(seed + 2, &[80]),
        };
        let ways = [direction(1), direction(4)];
        for frames in [1, 17] {
            let x = numbers(9, &[frames, 12]);
            for count in [1, 2] {
                let (ours, theirs) = (cpu.lstm(&x, &ways[..count])?, mlx.lstm(&x, &ways[..count])?);
                assert_close(&format!("{frames} frames, {count} directions"), &ours, &theirs, 1e-5);
            }
        }
        Ok(())
    });
}

#[test]
fn transposed_convolutions_agree() {
    both(|cpu, mlx| {
        let x = numbers(1, &[9, 24]);
        let plain = TransposedGeometry { stride: 6, padding: 3, output_padding: 0, depthwise: false };
        let cases = [
            ("twelve wide by six", [24, 12, 16], plain),
            ("more at the end", [24, 5, 16], TransposedGeometry { stride: 3, padding: 1, output_padding: 1, ..plain }),
            (
                "a filter for each channel",
                [24, 3, 1],
                TransposedGeometry { stride: 2, padding: 1, output_padding: 1, depthwise: true },
            ),
        ];
        for (name, shape, geometry) in cases {
            let weights = numbers(2, &shape.map(|n| n as i32)).as_slice::<f32>().to_vec();
            let outputs = if geometry.depthwise { 24 } else { 16 };
            let bias = numbers(3, &[outputs]).as_slice::<f32>().to_vec();
            let run = |ops: &Ops| -> Result<Tensor> {
                let weights =
                    ops.transposed_conv_weights(&WeightArena::new(), &weights, shape, geometry, Some(&bias))?;
                let inlet = Inlet { map: None, function: Nonlinearity::LeakyRelu(0.1) };
                ops.conv_transpose1d(&x, &weights, geometry, inlet)
            };
            assert_close(name, &run(cpu)?, &run(mlx)?, 1e-5);
        }
        Ok(())
    });
}
