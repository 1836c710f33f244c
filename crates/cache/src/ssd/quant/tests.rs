use proptest::prelude::*;

use super::*;

const DTYPES: [KvDtype; 3] = [KvDtype::F32, KvDtype::F16, KvDtype::Bf16];

fn bytes(numbers: &[f32], dtype: KvDtype) -> Vec<u8> {
    let mut raw = vec![0; numbers.len() * dtype.size()];
    for (numbers, raw) in numbers.chunks(GROUP).zip(raw.chunks_mut(GROUP * dtype.size())) {
        narrow(numbers, dtype, raw);
    }
    raw
}

fn numbers(raw: &[u8], dtype: KvDtype) -> Vec<f32> {
    let mut numbers = vec![0.0; raw.len() / dtype.size()];
    for (numbers, raw) in numbers.chunks_mut(GROUP).zip(raw.chunks(GROUP * dtype.size())) {
        widen(raw, dtype, numbers);
    }
    numbers
}

/// As `SsdConfig::quantize` states it, and a last bit for the arithmetic of this test.
fn bound(group: &[f32], dtype: KvDtype) -> f64 {
    let max = group.iter().fold(0.0, |max: f64, number| max.max(f64::from(number.abs())));
    let rounding = match dtype {
        KvDtype::F32 => max * 2f64.powi(-24),
        KvDtype::F16 => (max * 2f64.powi(-11)).max(2f64.powi(-25)),
        KvDtype::Bf16 => max * 2f64.powi(-8),
        KvDtype::Int8 => unreachable!("bytes stay as they are"),
    };
    if max < 2f64.powi(-119) { max } else { (max / 254.0 + rounding) * (1.0 + 1e-6) }
}

fn assert_close(raw: &[u8], dtype: KvDtype) {
    let stored = encode(raw, dtype).expect("all numbers are finite");
    let count = raw.len() / dtype.size();
    assert_eq!(stored.len(), count + 4 * count.div_ceil(64));
    let before = numbers(raw, dtype);
    let after = numbers(&decode(&stored, dtype).unwrap(), dtype);
    assert_eq!(before.len(), after.len());
    for (before, after) in before.chunks(GROUP).zip(after.chunks(GROUP)) {
        let bound = bound(before, dtype);
        for (b, a) in before.iter().zip(after) {
            let error = (f64::from(*b) - f64::from(*a)).abs();
            assert!(error <= bound, "{dtype:?}: {b} became {a}, off by {error}, and {bound} is allowed");
        }
    }
}

proptest! {
    #[test]
    fn the_error_is_bounded(
        parts in prop::collection::vec((any::<f32>(), -1.0f32..1.0), 0..200),
        exponent in -140i32..127,
    ) {
        for dtype in DTYPES {
            // Numbers of one size, and numbers of all sizes; those too large for the type are infinite and left out.
            let alike: Vec<f32> = parts.iter().map(|(_, x)| x * 2f32.powi(exponent)).collect();
            let wild: Vec<f32> = parts.iter().map(|(x, _)| *x).collect();
            for list in [alike, wild] {
                let raw = bytes(&list, dtype);
                let finite: Vec<f32> = numbers(&raw, dtype).into_iter().filter(|x| x.is_finite()).collect();
                assert_close(&bytes(&finite, dtype), dtype);
            }
        }
    }
}

#[test]
fn ends_of_the_range() {
    for (dtype, max) in [(KvDtype::F32, f32::MAX), (KvDtype::F16, 65504.0), (KvDtype::Bf16, bf16::MAX.to_f32())] {
        let list = [max, -max, max / 2.0, 1.0, 0.0];
        assert_close(&bytes(&list, dtype), dtype);
        let back = numbers(&decode(&encode(&bytes(&list, dtype), dtype).unwrap(), dtype).unwrap(), dtype);
        assert!(back.iter().all(|x| x.is_finite()), "{dtype:?}: {back:?}");
    }
    let tiny = bytes(&[2f32.powi(-120), -f32::MIN_POSITIVE, 1e-45], KvDtype::F32);
    assert_eq!(decode(&encode(&tiny, KvDtype::F32).unwrap(), KvDtype::F32).unwrap(), [0; 12]);
}

#[test]
fn multiples_of_the_scale_are_exact() {
    let list: Vec<f32> = (-127..=127).map(|x| x as f32).collect();
    for dtype in DTYPES {
        // Every 64 numbers hold a ±127, so that the scale is one.
        let list: Vec<f32> = list.chunks(63).flat_map(|chunk| [&[127.0], chunk].concat()).collect();
        let raw = bytes(&list, dtype);
        assert_eq!(decode(&encode(&raw, dtype).unwrap(), dtype).unwrap(), raw, "{dtype:?}");
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    for dtype in DTYPES {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [0, 63, 64, 99] {
                let mut list = [1.0; 100];
                list[at] = bad;
                assert_eq!(encode(&bytes(&list, dtype), dtype), None, "{dtype:?} {bad} at {at}");
            }
        }
        assert_eq!(encode(&[0; 7], dtype), None, "{dtype:?}: half a number");
    }
}

#[test]
fn lengths_that_cannot_be_are_refused() {
    for len in 0..300 {
        let count = (0usize..=len).find(|count| count + 4 * count.div_ceil(GROUP) == len);
        for dtype in DTYPES {
            let got = decode(&vec![0; len], dtype).map(|raw| raw.len() / dtype.size());
            assert_eq!(got, count, "{len} bytes");
        }
    }
}

/// They have 8 bits already.
#[test]
fn bytes_stay_as_they_are() {
    assert_eq!(encode(&[7; 128], KvDtype::Int8), None);
    assert_eq!(decode(&[7; 68], KvDtype::Int8), None);
}
