//! Custom CPU primitives among MLX's own operations.

mod graph;

use std::slice;

use graph::{Ctx, Spec, Stream, array, bytes_of, custom, floats, managed};
use mlx_sys::*;

/// Multiplies by a constant; the plainest kernel there is.
fn scale(factor: f32) -> Ctx {
    Ctx::new(move |inputs, outputs| {
        for (to, from) in outputs[0].floats_mut().iter_mut().zip(inputs[0].floats()) {
            *to = from * factor;
        }
        Ok(())
    })
}

/// Copies bytes: what arrives is what a kernel sees of its input.
fn identity() -> Ctx {
    Ctx::new(|inputs, outputs| {
        outputs[0].bytes_mut().copy_from_slice(inputs[0].bytes());
        Ok(())
    })
}

#[test]
fn stands_between_mlx_operations() {
    let s = Stream::cpu();
    let a = array(&[1.0, 2.0, 3.0, 4.0], &[2, 2]);
    let sum = s.add(&a, &a);
    let scaled = custom(&s, "scale", &[&sum], &[Spec::f32(&[2, 2])], scale(10.0)).unwrap().remove(0);
    let back = s.add(&scaled, &a);
    assert_eq!(floats(&back).unwrap(), [21.0, 42.0, 63.0, 84.0]);
}

#[test]
fn inputs_of_every_layout_arrive_row_major() {
    let s = Stream::cpu();
    let base: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let a = array(&base, &[2, 3, 4]);
    let cases = [
        ("as it is", a.clone()),
        ("transposed", s.transpose(&a)),
        ("sliced rows", s.slice(&a, &[1, 0, 0], &[2, 3, 4], &[1, 1, 1])),
        ("sliced columns", s.slice(&a, &[0, 0, 1], &[2, 3, 3], &[1, 1, 1])),
        ("every other element", s.slice(&a, &[0, 0, 0], &[2, 3, 4], &[1, 2, 2])),
        ("transposed slice", s.transpose(&s.slice(&a, &[0, 1, 0], &[2, 3, 4], &[1, 1, 3]))),
        ("broadcast", s.broadcast(&array(&[1.0, 2.0, 3.0], &[3, 1]), &[2, 3, 4])),
        ("scalar", array(&[7.0], &[])),
        ("broadcast scalar", s.broadcast(&array(&[7.0], &[]), &[2, 2])),
        ("empty", s.slice(&a, &[0, 0, 0], &[0, 3, 4], &[1, 1, 1])),
    ];
    for (name, input) in cases {
        let wanted = bytes_of(&s.contiguous(&input)).unwrap();
        let spec = Spec { shape: input.shape(), dtype: input.dtype(), alias: -1 };
        let out = custom(&s, "identity", &[&input], &[spec], identity()).unwrap().remove(0);
        assert_eq!(bytes_of(&out).unwrap(), wanted, "{name}");
    }
}

#[test]
fn elements_of_every_size_are_gathered() {
    let s = Stream::cpu();
    let a = array(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], &[2, 3]);
    let dtypes = [
        ("uint8", mlx_dtype__MLX_UINT8),
        ("float16", mlx_dtype__MLX_FLOAT16),
        ("bfloat16", mlx_dtype__MLX_BFLOAT16),
        ("int32", mlx_dtype__MLX_INT32),
        ("int64", mlx_dtype__MLX_INT64),
        ("complex64", mlx_dtype__MLX_COMPLEX64),
    ];
    for (name, dtype) in dtypes {
        let input = s.transpose(&s.astype(&a, dtype));
        let wanted = bytes_of(&s.contiguous(&input)).unwrap();
        let out = custom(&s, "identity", &[&input], &[Spec { shape: vec![3, 2], dtype, alias: -1 }], identity())
            .unwrap()
            .remove(0);
        assert_eq!(bytes_of(&out).unwrap(), wanted, "{name}");
    }
}

#[test]
fn a_kernel_sees_shapes_and_dtypes_and_fills_several_outputs() {
    let s = Stream::cpu();
    let a = array(&[3.0, 1.0, 2.0], &[3]);
    let b = array(&[5.0], &[1, 1]);
    let split = Ctx::new(|inputs, outputs| {
        assert_eq!((inputs.len(), outputs.len()), (2, 2));
        assert_eq!((inputs[0].shape(), inputs[1].shape()), (&[3][..], &[1, 1][..]));
        assert_eq!((outputs[0].shape(), outputs[1].shape()), (&[2][..], &[][..]));
        assert_eq!(outputs[1].dtype(), mlx_dtype__MLX_UINT32);
        outputs[0].floats_mut().copy_from_slice(&inputs[0].floats()[1..]);
        outputs[1].bytes_mut().copy_from_slice(&(inputs[1].floats()[0] as u32).to_ne_bytes());
        Ok(())
    });
    let specs = [Spec::f32(&[2]), Spec { shape: vec![], dtype: mlx_dtype__MLX_UINT32, alias: -1 }];
    let outs = custom(&s, "split", &[&a, &b], &specs, split).unwrap();
    assert_eq!(floats(&outs[0]).unwrap(), [1.0, 2.0]);
    assert_eq!(bytes_of(&outs[1]).unwrap(), 5u32.to_ne_bytes());
}

#[test]
fn the_context_is_dropped_exactly_once() {
    let s = Stream::cpu();
    let a = array(&[1.0], &[1]);

    let ctx = scale(2.0);
    let drops = ctx.drops();
    let out = custom(&s, "evaluated", &[&a], &[Spec::f32(&[1])], ctx).unwrap().remove(0);
    assert_eq!(drops.get(), 0, "before evaluation");
    assert_eq!(floats(&out).unwrap(), [2.0]);
    s.synchronize();
    drop(out);
    assert_eq!(drops.get(), 1, "after evaluation");

    let ctx = scale(2.0);
    let drops = ctx.drops();
    let out = custom(&s, "never evaluated", &[&a], &[Spec::f32(&[1])], ctx).unwrap().remove(0);
    drop(out);
    assert_eq!(drops.get(), 1, "never evaluated");

    let ctx = scale(2.0);
    let drops = ctx.drops();
    let refused = custom(&s, "refused", &[&a], &[Spec { alias: 1, ..Spec::f32(&[1]) }], ctx);
    let message = refused.err().expect("there is no input 1");
    assert!(message.contains("[refused] output 0 aliases input 1 of 1"), "{message}");
    assert_eq!(drops.get(), 1, "refused");
}

#[test]
fn a_failing_kernel_fails_the_evaluation_and_nothing_else() {
    let s = Stream::cpu();
    let a = array(&[1.0], &[1]);
    let cases = [
        ("with a message", "row 7 of 3: 100% out of range", "[broken] row 7 of 3: 100% out of range"),
        ("with a code only", "", "[broken] kernel failed with code 1"),
    ];
    for (name, said, wanted) in cases {
        let out = custom(&s, "broken", &[&a], &[Spec::f32(&[1])], Ctx::new(move |_, _| Err(said.to_owned())))
            .unwrap()
            .remove(0);
        let later = s.add(&out, &a);
        let message = floats(&later).unwrap_err();
        assert!(message.contains(wanted), "{name}: {message}");
        // The stream goes on.
        let healthy = custom(&s, "scale", &[&a], &[Spec::f32(&[1])], scale(3.0)).unwrap().remove(0);
        assert_eq!(floats(&s.add(&healthy, &a)).unwrap(), [4.0], "{name}");
    }
}

#[test]
fn a_buffer_is_taken_over_only_when_nobody_else_holds_it() {
    let s = Stream::cpu();
    let a = array(&[1.0, 2.0], &[2]);
    let spec = Spec { alias: 0, ..Spec::f32(&[2]) };
    for (name, keep) in [("held", true), ("not held", false)] {
        let sum = s.add(&a, &a);
        let kept = keep.then(|| sum.clone());
        let increment = Ctx::new(move |inputs, outputs| {
            let same = inputs[0].bytes().as_ptr() == outputs[0].bytes().as_ptr();
            if same == keep {
                return Err(format!("in place: {same}"));
            }
            if !same {
                outputs[0].bytes_mut().copy_from_slice(inputs[0].bytes());
            }
            outputs[0].floats_mut().iter_mut().for_each(|x| *x += 1.0);
            Ok(())
        });
        let out = custom(&s, "increment", &[&sum], slice::from_ref(&spec), increment).unwrap().remove(0);
        drop(sum);
        assert_eq!(floats(&out), Ok(vec![3.0, 5.0]), "{name}");
        if let Some(kept) = kept {
            assert_eq!(floats(&kept).unwrap(), [2.0, 4.0], "{name}");
        }
    }
}

#[test]
fn many_in_flight_keep_their_inputs_alive() {
    let s = Stream::cpu();
    let mut x = array(&[0.0; 1000], &[1000]);
    let one = array(&[1.0], &[1]);
    for i in 0..500 {
        // Every step's input is a temporary that only the graph holds.
        let shifted = s.add(&x, &one);
        x = custom(&s, "scale", &[&shifted], &[Spec::f32(&[1000])], scale(1.0)).unwrap().remove(0);
        if i % 50 == 49 {
            s.async_eval(&x);
        }
    }
    assert_eq!(floats(&x).unwrap(), [500.0; 1000]);
}

#[test]
fn host_memory_is_used_in_place_and_given_back_once() {
    let s = Stream::cpu();
    let ctx = identity();
    let drops = ctx.drops();
    let host = vec![1.0f32, 2.0, 3.0];
    let at = host.as_ptr();
    let a = managed(host, &[3], ctx);
    let out = custom(
        &s,
        "where",
        &[&a],
        &[Spec::f32(&[3])],
        Ctx::new({
            let at = at as usize;
            move |inputs, outputs| {
                outputs[0].floats_mut().copy_from_slice(inputs[0].floats());
                (inputs[0].bytes().as_ptr() as usize == at).then_some(()).ok_or_else(|| "copied".to_owned())
            }
        }),
    )
    .unwrap()
    .remove(0);
    drop(a);
    assert_eq!(drops.get(), 0, "the graph still reads it");
    assert_eq!(floats(&out), Ok(vec![1.0, 2.0, 3.0]));
    s.synchronize();
    assert_eq!(drops.get(), 1);
}
