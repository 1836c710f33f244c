//! Short spectra: of a few samples each, so few that the transform by its definition is as fast as any.

use std::f64::consts::TAU;

/// Fourier transforms of `len` samples under a periodic Hann window, every `hop` samples.
pub(super) struct Fourier {
    len: usize,
    hop: usize,
    window: Vec<f32>,
    /// Samples to real and imaginary parts, window and all: [len][bins, real and then imaginary].
    forward: Vec<f32>,
    /// Real and imaginary parts to samples, window and all: [bins, real and then imaginary][len].
    backward: Vec<f32>,
}

impl Fourier {
    /// `len` is even.
    pub fn new(len: usize, hop: usize) -> Self {
        let bins = len / 2 + 1;
        let window: Vec<f64> = (0..len).map(|n| 0.5 - 0.5 * (TAU * n as f64 / len as f64).cos()).collect();
        let mut forward = vec![0.0; len * 2 * bins];
        let mut backward = vec![0.0; len * 2 * bins];
        for (n, window) in window.iter().enumerate() {
            for bin in 0..bins {
                let (sine, cosine) = (TAU * (n * bin % len) as f64 / len as f64).sin_cos();
                // Each bin between the ends stands for two; at the ends there is no imaginary part.
                let end = bin == 0 || bin == bins - 1;
                let share = if end { 1.0 } else { 2.0 } / len as f64;
                let sine = if end { 0.0 } else { sine };
                #[allow(clippy::cast_possible_truncation)]
                {
                    forward[n * 2 * bins + bin] = (window * cosine) as f32;
                    forward[n * 2 * bins + bins + bin] = (-window * sine) as f32;
                    backward[bin * len + n] = (window * share * cosine) as f32;
                    backward[(bins + bin) * len + n] = (-window * share * sine) as f32;
                }
            }
        }
        #[allow(clippy::cast_possible_truncation)]
        let window = window.into_iter().map(|w| w as f32).collect();
        Self { len, hop, window, forward, backward }
    }

    /// Numbers of a spectrum.
    pub fn spectrum_len(&self) -> usize {
        2 * self.bins()
    }

    fn bins(&self) -> usize {
        self.len / 2 + 1
    }

    /// Samples, reflected at both ends → [samples / hop + 1, bins of magnitudes and then of phases]. More than half of `len`
    /// samples.
    pub fn polar(&self, samples: &[f32]) -> Vec<f32> {
        let (pad, bins) = (self.len / 2, self.bins());
        let before = samples[1..=pad].iter().rev();
        let after = samples[samples.len() - pad - 1..samples.len() - 1].iter().rev();
        let padded: Vec<f32> = before.chain(samples).chain(after).copied().collect();
        let mut out = vec![0.0; (samples.len() / self.hop + 1) * 2 * bins];
        for (frame, out) in out.chunks_exact_mut(2 * bins).enumerate() {
            multiply(&padded[frame * self.hop..][..self.len], &self.forward, out);
            let (real, imaginary) = out.split_at_mut(bins);
            for (bin, (re, im)) in real.iter_mut().zip(imaginary).enumerate() {
                // Of real samples the ends are real; of samples reflected in the middle of a frame, the first, all are. Sums of
                // rounded numbers need not be.
                let sine = if frame == 0 || bin == 0 || bin == bins - 1 { 0.0 } else { *im };
                (*re, *im) = (re.hypot(sine), sine.atan2(*re));
            }
        }
        out
    }

    /// [frames, bins of logarithms of magnitudes and then of what the phases are the sines of] → `[(frames − 1) · hop]` samples.
    pub fn samples(&self, spectra: &[f32]) -> Vec<f32> {
        let bins = self.bins();
        let frames = spectra.len() / (2 * bins);
        let mut sum = vec![0.0; (frames.max(1) - 1) * self.hop + self.len];
        let mut windows = vec![0.0; sum.len()];
        let (mut parts, mut frame) = (vec![0.0; 2 * bins], vec![0.0; self.len]);
        for (i, spectrum) in spectra.chunks_exact(2 * bins).enumerate() {
            let (real, imaginary) = parts.split_at_mut(bins);
            for (bin, (re, im)) in real.iter_mut().zip(imaginary).enumerate() {
                let (sine, cosine) = spectrum[bins + bin].sin().sin_cos();
                let magnitude = spectrum[bin].exp();
                (*re, *im) = (magnitude * cosine, magnitude * sine);
            }
            frame.fill(0.0);
            multiply(&parts, &self.backward, &mut frame);
            let at = i * self.hop..i * self.hop + self.len;
            sum[at.clone()].iter_mut().zip(&frame).for_each(|(sum, x)| *sum += x);
            windows[at].iter_mut().zip(&self.window).for_each(|(sum, w)| *sum += w * w);
        }
        let pad = self.len / 2;
        let end = sum.len() - pad;
        sum[pad..end].iter().zip(&windows[pad..end]).map(|(x, w)| x / w.max(1e-10)).collect()
    }
}

/// `y += x · matrix` of [x's length, y's length].
fn multiply(x: &[f32], matrix: &[f32], y: &mut [f32]) {
    for (x, row) in x.iter().zip(matrix.chunks_exact(y.len())) {
        y.iter_mut().zip(row).for_each(|(y, m)| *y += x * m);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cosine in the middle of a bin: half its amplitude times the window's sum there, and its phase.
    #[test]
    fn a_tone_is_found_in_its_bin() {
        let fourier = Fourier::new(20, 5);
        let phase = |n: usize| TAU * 3.0 * n as f64 / 20.0 + 0.4;
        #[allow(clippy::cast_possible_truncation)]
        let tone: Vec<f32> = (0..100).map(|n| (2.0 * phase(n).cos()) as f32).collect();
        let spectra = fourier.polar(&tone);
        assert_eq!(spectra.len(), 21 * 22);
        // Frame 8 begins at sample 8 · 5 − 10.
        let frame = &spectra[8 * 22..9 * 22];
        assert!((frame[3] - 10.0).abs() < 1e-4, "{}", frame[3]);
        let wanted = phase(30).sin().atan2(phase(30).cos());
        assert!((f64::from(frame[11 + 3]) - wanted).abs() < 1e-5, "{}", frame[14]);
        assert!(frame[6] < 1e-4 && frame[0] < 1e-4, "{frame:?}");
    }

    /// By the definition of the inverse transform, windowed again and divided by the sum of the windows' squares.
    #[test]
    fn samples_match_the_definition() {
        let (len, hop, frames) = (20usize, 5usize, 9usize);
        let fourier = Fourier::new(len, hop);
        let spectra: Vec<f32> = (0..frames * 22).map(|n| ((n * 37 % 101) as f32 / 50.0 - 1.0) * 1.7).collect();
        let window = |n: usize| 0.5 - 0.5 * (TAU * n as f64 / len as f64).cos();
        let mut sums = vec![[0.0f64; 2]; (frames - 1) * hop + len];
        for (frame, spectrum) in spectra.chunks_exact(22).enumerate() {
            for n in 0..len {
                let mut sample = 0.0;
                // The other half of the bins is this one's mirror image.
                for bin in 0..len {
                    let (mirrored, sign) = if bin > len / 2 { (len - bin, -1.0) } else { (bin, 1.0) };
                    let ends = mirrored == 0 || mirrored == len / 2;
                    let magnitude = f64::from(spectrum[mirrored]).exp() / len as f64;
                    let phase = f64::from(spectrum[11 + mirrored]).sin() * sign;
                    let turn = TAU * (bin * n) as f64 / len as f64;
                    // Of the ends' numbers the real part is all that counts.
                    let real = if ends { phase.cos() * turn.cos() } else { (phase + turn).cos() };
                    sample += magnitude * real;
                }
                let [sum, squares] = &mut sums[frame * hop + n];
                *sum += sample * window(n);
                *squares += window(n) * window(n);
            }
        }
        let found = fourier.samples(&spectra);
        assert_eq!(found.len(), (frames - 1) * hop);
        for (i, (found, [sum, squares])) in found.iter().zip(&sums[len / 2..]).enumerate() {
            assert!((f64::from(*found) - sum / squares).abs() < 2e-6, "sample {i}: {found} for {}", sum / squares);
        }
    }
}
