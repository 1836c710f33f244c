//! What the vocoder makes sound of: a buzz of harmonics where there is a pitch, and noise.
//!
//! Source: the neural source filter of Wang et al., arXiv:1904.12088, as in hexgrad's Kokoro. There, each harmonic has noise of its
//! own and all are merged by one linear layer: the sum is one noise, as loud as the layer's weights are long. And the random
//! phases with which the harmonics begin there are lost when the phases are taken at the middle of frames: there are none here.

use std::f64::consts::TAU;

use super::noise::Noise;

/// Amplitude of a harmonic.
const AMPLITUDE: f64 = 0.1;
/// Deviation of the noise beside the harmonics.
const NOISE: f32 = 0.003;
/// Lowest pitch that is one, in Hz.
const VOICED: f32 = 10.0;

/// The layer that merges the harmonics.
pub(super) struct Source {
    /// Of the fundamental and its harmonics.
    pub weights: Vec<f32>,
    pub bias: f32,
    pub sample_rate: f64,
    /// Samples of a frame of pitch.
    pub hop: usize,
}

impl Source {
    /// Pitch `[frames]`, in Hz → `[frames · hop]`.
    ///
    /// A frame's pitch is reached in its middle; from there to the next one's middle the phase goes on at the next one's pitch.
    pub fn excite(&self, pitch: &[f32], noise: &Noise) -> Vec<f32> {
        let loudness = self.weights.iter().map(|w| w * w).sum::<f32>().sqrt();
        let noise = noise.numbers(pitch.len() * self.hop);
        let turns: Vec<f64> = pitch.iter().map(|&f| (f64::from(f) / self.sample_rate).rem_euclid(1.0)).collect();
        let mut out = vec![0.0; pitch.len() * self.hop];
        // The phase in the middle of the frame, in turns.
        let mut phase = 0.0;
        for (frame, (out, noise)) in out.chunks_exact_mut(self.hop).zip(noise.chunks_exact(self.hop)).enumerate() {
            let before = phase;
            phase = (phase + turns[frame] * self.hop as f64).fract();
            let voiced = pitch[frame] > VOICED;
            if voiced {
                self.buzz([before, phase], pitch, &turns, frame, out);
            } else {
                out.fill(self.bias);
            }
            let amplitude = loudness * if voiced { NOISE } else { AMPLITUDE as f32 / 3.0 };
            out.iter_mut().zip(noise).for_each(|(sample, noise)| *sample = (*sample + amplitude * noise).tanh());
        }
        out
    }

    /// The harmonics of a frame, merged. `phases`: in the middle of the frame before, and of this one.
    fn buzz(&self, phases: [f64; 2], pitch: &[f32], turns: &[f64], frame: usize, out: &mut [f32]) {
        let middle = self.hop as f64 / 2.0;
        let signs = |frame: usize| self.signs(pitch[frame]);
        // Which phase a half of the frame sets out from, how far before its first sample, and how fast.
        let (first, second) = out.split_at_mut(self.hop / 2 + self.hop % 2);
        let start = if frame == 0 { (phases[1], 0.0, None) } else { (phases[0], middle, Some(frame)) };
        let end = (phases[1], first.len() as f64 - middle, Some(frame + 1).filter(|&next| next < turns.len()));
        for ((from, ahead, towards), out) in [(start, first), (end, second)] {
            let (speed, signs) = towards.map_or((0.0, vec![1.0; self.weights.len()]), |f| (turns[f], signs(f)));
            for (i, sample) in out.iter_mut().enumerate() {
                let phase = from + (i as f64 + 0.5 + ahead) * speed;
                *sample = self.merged(phase, &signs);
            }
        }
    }

    /// Turns a sample are taken modulo 1 for each harmonic. A whole number of turns more a sample is none, but for the half a
    /// sample by which samples lie off the middle of a frame: an odd one is half a turn.
    fn signs(&self, pitch: f32) -> Vec<f64> {
        let turns = f64::from(pitch) / self.sample_rate;
        let whole = turns.floor();
        (1..=self.weights.len())
            .map(|h| {
                // Beyond what the fundamental has been relieved of.
                let more = (h as f64 * turns).floor() - h as f64 * whole;
                if self.hop.is_multiple_of(2) && more.rem_euclid(2.0) == 1.0 { -1.0 } else { 1.0 }
            })
            .collect()
    }

    /// `Σ wₕ · sin(2π h phase) + b`, by the angle addition formula from one harmonic to the next.
    fn merged(&self, phase: f64, signs: &[f64]) -> f32 {
        let (sine, cosine) = (TAU * phase.fract()).sin_cos();
        let (mut before, mut now, mut sum) = (0.0, sine, 0.0);
        for (weight, sign) in self.weights.iter().zip(signs) {
            sum += f64::from(*weight) * sign * now;
            (before, now) = (now, 2.0 * cosine * now - before);
        }
        #[allow(clippy::cast_possible_truncation)]
        {
            (AMPLITUDE * sum) as f32 + self.bias
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the definition has it: each harmonic's turns modulo 1, summed up, times the hop, interpolated between frames' middles.
    fn reference(source: &Source, pitch: &[f32], noise: &[f32]) -> Vec<f64> {
        let (hop, last) = (source.hop as f64, pitch.len() - 1);
        let loudness = source.weights.iter().map(|w| f64::from(w * w)).sum::<f64>().sqrt();
        let phases: Vec<Vec<f64>> = (1..=source.weights.len())
            .map(|h| {
                let turns = |f: &f32| (f64::from(*f) * h as f64 / source.sample_rate).rem_euclid(1.0);
                let sums = pitch.iter().scan(0.0, |sum, f| {
                    *sum += turns(f) * hop;
                    Some(*sum)
                });
                sums.collect()
            })
            .collect();
        let sample = |i: usize| {
            let at = ((i as f64 + 0.5) / hop - 0.5).max(0.0);
            let (low, part) = (at as usize, at.fract());
            let mut sum = f64::from(source.bias);
            let voiced = pitch[i / source.hop] > VOICED;
            if voiced {
                for (weight, phases) in source.weights.iter().zip(&phases) {
                    let phase = phases[low] * (1.0 - part) + phases[(low + 1).min(last)] * part;
                    sum += f64::from(*weight) * AMPLITUDE * (TAU * phase).sin();
                }
            }
            let amplitude = if voiced { f64::from(NOISE) } else { AMPLITUDE / 3.0 };
            (sum + amplitude * loudness * f64::from(noise[i])).tanh()
        };
        (0..pitch.len() * source.hop).map(sample).collect()
    }

    #[test]
    fn harmonics_match_the_definition() {
        let pitches: [(&str, &[f32]); 5] = [
            ("one frame", &[200.0]),
            ("steady", &[123.4; 7]),
            ("rising out of nothing", &[0.0, 3.0, 60.0, 180.0, 240.0, 0.5]),
            ("below zero between voiced frames", &[-80.0, 95.0, -3.5, 110.0, 111.0, -7000.0, 130.0]),
            ("harmonics beyond a turn a sample", &[2500.0, 3000.0, 100.0, 9000.0, 30_000.0]),
        ];
        for hop in [16, 15, 300] {
            let weights = vec![0.9, -0.5, 0.4, 0.3, -0.2, 0.1, 0.1, 0.05, 0.3];
            let source = Source { weights, bias: 0.01, sample_rate: 24_000.0, hop };
            for (name, pitch) in pitches {
                let noise = Noise::new(5);
                let wanted = reference(&source, pitch, &noise.numbers(pitch.len() * hop));
                let found = source.excite(pitch, &noise);
                assert_eq!(found.len(), wanted.len());
                for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
                    assert!((f64::from(*a) - b).abs() < 1e-6, "{name}, hop {hop}, sample {i}: {a} for {b}");
                }
            }
        }
    }
}
