//! Bands of pitch, as the ear tells them apart.

/// Hertz a band is wide up to [`LOG_FROM`] (Slaney's scale: linear up to there).
const LINEAR: f64 = 200.0 / 3.0;
/// From here on, in hertz, pitch goes by the logarithm.
const LOG_FROM: f64 = 1000.0;
/// By how much the logarithm of the frequency grows from one band to the next.
const LOG_STEP: f64 = 0.068_751_777_420_949_12; // ln(6.4) / 27

fn mel_of(hertz: f64) -> f64 {
    if hertz < LOG_FROM { hertz / LINEAR } else { LOG_FROM / LINEAR + (hertz / LOG_FROM).ln() / LOG_STEP }
}

fn hertz_of(mel: f64) -> f64 {
    let log_from = LOG_FROM / LINEAR;
    if mel < log_from { mel * LINEAR } else { LOG_FROM * ((mel - log_from) * LOG_STEP).exp() }
}

/// Triangles of the same area over the frequencies of a spectrum, evenly spaced in pitch: librosa's `filters.mel` with its defaults.
#[derive(Debug, Clone)]
pub(super) struct Filters {
    bands: Vec<Band>,
}

/// A triangle: only where it is not 0.
#[derive(Debug, Clone)]
struct Band {
    first: usize,
    weights: Vec<f32>,
}

impl Filters {
    /// `bands` triangles up to half of `sample_rate`, over a spectrum of `fft / 2 + 1` numbers.
    pub fn new(sample_rate: u32, fft: usize, bands: usize) -> Self {
        let highest = f64::from(sample_rate) / 2.0;
        let corner = |index: usize| hertz_of(mel_of(highest) * index as f64 / (bands + 1) as f64);
        let frequency = |bin: usize| bin as f64 * f64::from(sample_rate) / fft as f64;
        let band = |index: usize| {
            let (low, middle, high) = (corner(index), corner(index + 1), corner(index + 2));
            let weight = |bin: usize| {
                let rising = (frequency(bin) - low) / (middle - low);
                let falling = (high - frequency(bin)) / (high - middle);
                (rising.min(falling).max(0.0) * 2.0 / (high - low)) as f32
            };
            let within: Vec<usize> = (0..=fft / 2).filter(|&bin| weight(bin) > 0.0).collect();
            Band { first: within.first().copied().unwrap_or(0), weights: within.into_iter().map(weight).collect() }
        };
        Self { bands: (0..bands).map(band).collect() }
    }

    /// Adds the power of a spectrum up into bands.
    pub fn apply(&self, power: &[f32], into: &mut [f32]) {
        for (band, sum) in self.bands.iter().zip(into) {
            let power = &power[band.first..band.first + band.weights.len()];
            *sum = band.weights.iter().zip(power).map(|(weight, power)| weight * power).sum();
        }
    }
}
