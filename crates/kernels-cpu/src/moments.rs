//! Mean and variance of each channel over all frames, and the affine map that a norm over frames is.

use crate::{Pool, SharedMut, with_scratch};

/// Frames that are summed by themselves, in f32 about their own mean; such sums are added in f64.
const CHUNK: usize = 64;
/// Channels of a task.
const CHANNELS: usize = 64;

/// The affine map that normalizes each channel of `x` `[frames, channels]` over its frames (instance norm) and then applies
/// `gain · x + offset` to it: scales and shifts, `[channels]` each, such that the whole is `scale · x + shift`. The variance is the
/// biased one, `eps` is added to it.
///
/// # Panics
/// If `x` isn't whole frames, or there are none, or a list has another length than there are channels.
#[allow(clippy::too_many_arguments)]
pub fn instance_affine(
    pool: &Pool,
    x: &[f32],
    gain: &[f32],
    offset: &[f32],
    eps: f32,
    scale: &mut [f32],
    shift: &mut [f32],
) {
    let channels = gain.len();
    assert!(channels > 0 && x.len().is_multiple_of(channels), "{} numbers are not frames of {channels}", x.len());
    assert!(!x.is_empty(), "a norm over no frames");
    for (name, len) in [("offset", offset.len()), ("scale", scale.len()), ("shift", shift.len())] {
        assert_eq!(len, channels, "{name} of {len} numbers for {channels} channels");
    }
    let frames = x.len() / channels;
    let chunks = frames.div_ceil(CHUNK);
    let mut parts = vec![0.0f64; chunks * 2 * channels];
    pool.run_chunks(&mut parts, 2 * channels, |first, part| {
        let chunk = first / (2 * channels);
        let rows = &x[chunk * CHUNK * channels..frames.min((chunk + 1) * CHUNK) * channels];
        let (mean, squares) = part.split_at_mut(channels);
        chunk_moments(rows, mean, squares);
    });
    let (scale, shift) = (SharedMut::new(scale), SharedMut::new(shift));
    pool.run(channels.div_ceil(CHANNELS), |task| {
        let range = task * CHANNELS..channels.min((task + 1) * CHANNELS);
        // SAFETY: the ranges do not overlap.
        let (scale, shift) = unsafe { (scale.slice(range.clone()), shift.slice(range.clone())) };
        let mut means = [0.0f64; CHANNELS];
        let mut squares = [0.0f64; CHANNELS];
        let count = |chunk: usize| (frames - chunk * CHUNK).min(CHUNK) as f64;
        let each = |row: usize| parts[row * channels..][range.clone()].iter().copied();
        for chunk in 0..chunks {
            means.iter_mut().zip(each(2 * chunk)).for_each(|(sum, mean)| *sum += count(chunk) * mean);
        }
        means.iter_mut().for_each(|mean| *mean /= frames as f64);
        for chunk in 0..chunks {
            let numbers = each(2 * chunk).zip(each(2 * chunk + 1));
            for ((sum, mean), (part, own)) in squares.iter_mut().zip(&means).zip(numbers) {
                *sum += own + count(chunk) * (part - mean) * (part - mean);
            }
        }
        for (i, channel) in range.enumerate() {
            let factor = f64::from(gain[channel]) / (squares[i] / frames as f64 + f64::from(eps)).sqrt();
            scale[i] = factor as f32;
            shift[i] = (f64::from(offset[channel]) - means[i] * factor) as f32;
        }
    });
}

/// Of a few frames each channel's mean, and the sum of its squares about that mean.
fn chunk_moments(rows: &[f32], mean: &mut [f64], squares: &mut [f64]) {
    let channels = mean.len();
    let count = (rows.len() / channels) as f64;
    with_scratch(2 * channels, |room| {
        let (about, sums) = room.split_at_mut(channels);
        // About the first frame, so that numbers far from zero keep their digits.
        about.copy_from_slice(&rows[..channels]);
        sums.fill(0.0);
        for row in rows.chunks_exact(channels) {
            sums.iter_mut().zip(row.iter().zip(&*about)).for_each(|(sum, (v, about))| *sum += v - about);
        }
        for ((mean, about), sum) in mean.iter_mut().zip(about).zip(&mut *sums) {
            *mean = f64::from(*about) + f64::from(*sum) / count;
            (*about, *sum) = (*mean as f32, 0.0);
        }
        let (about, sums) = room.split_at_mut(channels);
        for row in rows.chunks_exact(channels) {
            sums.iter_mut()
                .zip(row.iter().zip(&*about))
                .for_each(|(sum, (v, about))| *sum += (v - about) * (v - about));
        }
        squares.iter_mut().zip(sums).for_each(|(squares, sum)| *squares = f64::from(*sum));
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{assert_close, every_isa, random};

    #[test]
    fn maps_match_f64_even_far_from_zero() {
        for (frames, channels, centre) in [(1, 3, 0.0), (63, 70, 1.0), (64, 16, -5.0), (1000, 130, 1000.0)] {
            let x: Vec<f32> = random(frames * channels, 1).iter().map(|v| centre + v).collect();
            let (gain, offset) = (random(channels, 2), random(channels, 3));
            let (mut scales, mut shifts) = (vec![], vec![]);
            for c in 0..channels {
                let column = || (0..frames).map(|t| f64::from(x[t * channels + c]));
                let mean = column().sum::<f64>() / frames as f64;
                let variance = column().map(|v| (v - mean).powi(2)).sum::<f64>() / frames as f64;
                let scale = f64::from(gain[c]) / (variance + 1e-5f64).sqrt();
                scales.push(scale);
                shifts.push(f64::from(offset[c]) - mean * scale);
            }
            for pool in every_isa() {
                let (mut scale, mut shift) = (vec![f32::NAN; channels], vec![f32::NAN; channels]);
                instance_affine(&pool, &x, &gain, &offset, 1e-5, &mut scale, &mut shift);
                let what = format!("{:?}, {frames} frames about {centre}", pool.isa());
                assert_close(&scale, scales.iter().copied(), 1e-6, &what);
                assert_close(&shift, shifts.iter().copied(), 1e-6, &what);
            }
        }
    }

    #[test]
    #[should_panic(expected = "a norm over no frames")]
    fn no_frames_are_refused() {
        instance_affine(&Pool::new(1), &[], &[1.0], &[0.0], 1e-5, &mut [0.0], &mut [0.0]);
    }
}
