//! Which frames of a video are seen.

use crate::{Limits, MediaError, MediaErrorKind};

/// How many frames a second are wanted if nobody says.
pub(super) const FPS: f64 = 2.0;
/// How many frames are taken at most if nobody says.
const MAX_FRAMES: usize = 64;
/// And at least, of short videos.
const MIN_FRAMES: usize = 4;

/// How to choose among a video's frames.
///
/// ```
/// use vllm_media::{Sampling, sample_indices};
///
/// // Three seconds at 10 frames a second.
/// assert_eq!(sample_indices(30, 10.0, &Sampling::default()), [0, 5, 10, 15, 20, 25]);
/// let few = Sampling { max_frames: Some(3), ..Sampling::default() };
/// assert_eq!(sample_indices(30, 10.0, &few), [0, 10, 20]);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Frames to see of each second; 2 if not given.
    pub fps: Option<f64>,
    /// Frames to see at least of videos that are too short for `fps` to give them; 4 if not given.
    pub min_frames: Option<usize>,
    /// Frames to see at most; 64 if not given. More than [`Limits::frames`] are refused.
    pub max_frames: Option<usize>,
    /// Their number is a multiple of this: 2 for models that take frames in pairs. Of videos with fewer frames than this
    /// all are taken.
    pub multiple_of: usize,
    /// Which of them.
    pub spread: Spread,
}

/// How frames are spread over a video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Spread {
    /// The first frame of each of equal parts: frame ⌊i · total / count⌋. As Qwen2-VL has it.
    #[default]
    Starts,
    /// From the first frame to the last: frame i · (total - 1) / (count - 1), rounded, halves to even. As Qwen3-VL has it.
    Ends,
}

impl Default for Sampling {
    fn default() -> Self {
        Self { fps: None, min_frames: None, max_frames: None, multiple_of: 1, spread: Spread::default() }
    }
}

impl Sampling {
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for a rate that isn't above 0, or no frames; [`MediaErrorKind::TooLarge`] for too many.
    pub(super) fn check(&self, limits: &Limits) -> Result<(), MediaError> {
        if let Some(fps) = self.fps
            && !(fps.is_finite() && fps > 0.0)
        {
            return Err(MediaError::new(MediaErrorKind::Invalid, format!("{fps} frames a second can't be sampled")));
        }
        if self.max_frames == Some(0) || self.multiple_of == 0 {
            return Err(MediaError::new(MediaErrorKind::Invalid, "a video of no frames can't be sampled"));
        }
        let most = self.max_frames.unwrap_or(MAX_FRAMES);
        if most > limits.frames {
            let message = format!("{most} frames of a video are too many: {} are allowed", limits.frames);
            return Err(MediaError::new(MediaErrorKind::TooLarge, message));
        }
        Ok(())
    }
}

/// The frames to see of a video of `total` frames, `video_fps` of them a second: their indices, in order, none twice.
///
/// There are `total / video_fps * fps` of them, but at least `min_frames`, unless that is more than `max_frames` or `total`;
/// rounded down to a multiple of `multiple_of`. They are spread evenly, as [`Spread`] says. This is what transformers'
/// `sample_frames` does for Qwen2-VL and Qwen3-VL (`tests/fixtures/sampling.json` has its answers); where Qwen2-VL's comes to
/// no frames at all, we take those that there are. A rate that isn't known (not a number above 0) counts as 24, as there.
#[must_use]
pub fn sample_indices(total: usize, video_fps: f64, sampling: &Sampling) -> Vec<usize> {
    let video_fps = if video_fps.is_finite() && video_fps > 0.0 { video_fps } else { 24.0 };
    let multiple = sampling.multiple_of.max(1);
    let most = sampling.max_frames.unwrap_or(MAX_FRAMES).min(total);
    let wanted = total as f64 / video_fps * sampling.fps.unwrap_or(FPS);
    // A float too large for an integer becomes the greatest; there are not so many frames.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let wanted = wanted as usize;
    let count = wanted.max(sampling.min_frames.unwrap_or(MIN_FRAMES)).min(most);
    let count = if count < multiple { most.min(multiple) } else { count - count % multiple };
    match sampling.spread {
        Spread::Starts => (0..count).map(|i| i * total / count).collect(),
        // In floats as there, where a half may come out a little above or below.
        Spread::Ends if count < 2 => (0..count).collect(),
        Spread::Ends => {
            let step = (total - 1) as f64 / (count - 1) as f64;
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            (0..count).map(|i| ((i as f64 * step).round_ties_even() as usize).min(total - 1)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts() {
        let rate = |fps| Sampling { fps: Some(fps), ..Sampling::default() };
        let most = |max_frames| Sampling { max_frames: Some(max_frames), ..Sampling::default() };
        let pairs = Sampling { multiple_of: 2, ..Sampling::default() };
        let cases: [(&str, usize, f64, Sampling, usize); 14] = [
            ("two a second", 100, 10.0, Sampling::default(), 20),
            ("at least four", 10, 10.0, Sampling::default(), 4),
            ("all of a few", 3, 10.0, Sampling::default(), 3),
            ("at most 64", 10_000, 10.0, Sampling::default(), 64),
            ("another rate", 100, 10.0, rate(0.5), 5),
            ("faster than the video", 100, 10.0, rate(1000.0), 64),
            ("so slow that four remain", 100, 10.0, rate(1e-9), 4),
            ("another maximum", 10_000, 10.0, most(500), 500),
            ("the maximum before the minimum", 100, 10.0, most(1), 1),
            ("pairs", 105, 10.0, pairs, 20),
            ("pairs of an odd few", 3, 10.0, pairs, 2),
            ("no pair", 1, 10.0, pairs, 1),
            ("nothing", 0, 10.0, Sampling::default(), 0),
            ("no rate: 24", 240, f64::NAN, Sampling::default(), 20),
        ];
        for (name, total, fps, sampling, count) in cases {
            for spread in [Spread::Starts, Spread::Ends] {
                let indices = sample_indices(total, fps, &Sampling { spread, ..sampling });
                assert_eq!(indices.len(), count, "{name}");
                assert!(
                    indices.is_sorted_by(|a, b| a < b) && indices.iter().all(|&i| i < total),
                    "{name}: {indices:?}"
                );
            }
        }
    }

    #[test]
    fn spreads() {
        let four = |spread| Sampling { max_frames: Some(4), spread, ..Sampling::default() };
        assert_eq!(sample_indices(10, 1.0, &four(Spread::Starts)), [0, 2, 5, 7]);
        assert_eq!(sample_indices(10, 1.0, &four(Spread::Ends)), [0, 3, 6, 9]);
    }

    #[test]
    fn what_cannot_be_sampled() {
        let limits = Limits { frames: 10, ..Limits::default() };
        let with = |fps, max_frames, multiple_of| Sampling { fps, max_frames, multiple_of, ..Sampling::default() };
        let cases = [
            (with(Some(0.0), Some(4), 1), Some(MediaErrorKind::Invalid)),
            (with(Some(-1.0), Some(4), 1), Some(MediaErrorKind::Invalid)),
            (with(Some(f64::NAN), Some(4), 1), Some(MediaErrorKind::Invalid)),
            (with(Some(f64::INFINITY), Some(4), 1), Some(MediaErrorKind::Invalid)),
            (with(None, Some(0), 1), Some(MediaErrorKind::Invalid)),
            (with(None, Some(4), 0), Some(MediaErrorKind::Invalid)),
            (with(None, Some(11), 1), Some(MediaErrorKind::TooLarge)),
            (with(None, None, 1), Some(MediaErrorKind::TooLarge)),
            (with(Some(0.1), Some(10), 2), None),
        ];
        for (sampling, wanted) in cases {
            assert_eq!(sampling.check(&limits).err().map(|error| error.kind), wanted, "{sampling:?}");
        }
    }
}
