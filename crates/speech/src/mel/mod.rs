//! Log-mel spectrograms: how loud each band of pitch is, a hundred times a second.

mod filters;

use std::f64::consts::PI;
use std::ops::Range;
use std::sync::Arc;

use filters::Filters;
use realfft::{RealFftPlanner, RealToComplex};
use vllm_platform::{Mel, MelScale, MelSettings};

/// Least power that Whisper's logarithm is taken of.
const WHISPER_FLOOR: f32 = 1e-10;
/// Added to the power that NeMo's logarithm is taken of: 2⁻²⁴.
const NEMO_GUARD: f32 = 5.960_464_5e-8;
/// Added to a band's standard deviation before it is divided by it.
const NEMO_DEVIATION: f32 = 1e-5;
/// Fewer frames than this are not worth a thread.
const FRAMES_OF_A_THREAD: usize = 750;

/// Makes spectrograms of one kind.
///
/// ```
/// # use vllm_platform::{MelScale, MelSettings};
/// # use vllm_speech::mel::MelSpectrogram;
/// let settings = MelSettings { sample_rate: 16_000, fft: 400, window: 400, hop: 160, bands: 80, scale: MelScale::Whisper };
/// let second = vec![0.1; 16_000];
/// let mel = MelSpectrogram::new(&settings).log_mel(&second);
/// assert_eq!((mel.frames, mel.numbers.len()), (100, 100 * 80));
/// ```
#[derive(Clone)]
pub struct MelSpectrogram {
    settings: MelSettings,
    threads: usize,
    transform: Arc<dyn RealToComplex<f32>>,
    /// As long as a transform: zeros around the window.
    window: Vec<f32>,
    filters: Filters,
}

impl std::fmt::Debug for MelSpectrogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MelSpectrogram")
            .field("settings", &self.settings)
            .field("threads", &self.threads)
            .finish_non_exhaustive()
    }
}

impl MelSpectrogram {
    /// Prepares filters and transform. Long sounds are shared out to as many threads as there are processors, at most four.
    ///
    /// # Panics
    /// If the settings make no sense: no hop, or a window longer than the transform.
    #[must_use]
    pub fn new(settings: &MelSettings) -> Self {
        assert!(
            settings.hop > 0 && settings.window > 0 && settings.window <= settings.fft,
            "settings of a spectrogram: {settings:?}"
        );
        // Whisper's window is periodic, as spectral analysis has it; NeMo's is symmetric.
        let period = match settings.scale {
            MelScale::Whisper => settings.window,
            MelScale::PerBand { .. } => settings.window - 1,
        };
        let before = (settings.fft - settings.window) / 2;
        let mut window = vec![0.0; settings.fft];
        for (index, weight) in window[before..before + settings.window].iter_mut().enumerate() {
            *weight = (0.5 - 0.5 * (2.0 * PI * index as f64 / period as f64).cos()) as f32;
        }
        Self {
            threads: std::thread::available_parallelism().map_or(1, |threads| threads.get().min(4)),
            transform: RealFftPlanner::new().plan_fft_forward(settings.fft),
            window,
            filters: Filters::new(settings.sample_rate, settings.fft, settings.bands),
            settings: settings.clone(),
        }
    }

    /// Uses at most so many threads.
    #[must_use]
    pub fn with_threads(mut self, threads: usize) -> Self {
        self.threads = threads.max(1);
        self
    }

    /// What it makes.
    #[must_use]
    pub fn settings(&self) -> &MelSettings {
        &self.settings
    }

    /// Frames of the spectrogram of so many samples: what [`log_mel`](Self::log_mel) gives.
    #[must_use]
    pub fn frames(&self, samples: usize) -> usize {
        match self.settings.scale {
            MelScale::Whisper => samples / self.settings.hop,
            MelScale::PerBand { .. } => samples / self.settings.hop + 1,
        }
    }

    /// The spectrogram of a sound, [frames, bands]: a frame around each `hop`th sample, normalised over the whole.
    #[must_use]
    pub fn log_mel(&self, samples: &[f32]) -> Mel {
        self.log_mel_padded(samples, 0)
    }

    /// The spectrogram of a sound and `silence` samples of silence after it. For Whisper a window of silence is put after a sound
    /// before windows are cut out of its spectrogram by [`cut`]; it costs next to nothing.
    #[must_use]
    pub fn log_mel_padded(&self, samples: &[f32], silence: usize) -> Mel {
        let emphasised = match self.settings.scale {
            MelScale::Whisper => None,
            MelScale::PerBand { preemphasis } => Some(emphasise(samples, preemphasis)),
        };
        let sound = Sound {
            samples: emphasised.as_deref().unwrap_or(samples),
            len: samples.len() + silence,
            mirrored: emphasised.is_none(),
        };
        let frames = self.frames(sound.len);
        let bands = self.settings.bands;
        let mut numbers = vec![0.0; frames * bands];
        // After these the frames hear nothing but silence.
        let sounding = frames.min((samples.len() + self.settings.fft / 2).div_ceil(self.settings.hop));
        let (sounding, silent) = numbers.split_at_mut(sounding * bands);
        let greatest = self.power(&sound, sounding);
        match self.settings.scale {
            MelScale::Whisper => {
                silent.fill(WHISPER_FLOOR.log10());
                let greatest = if silent.is_empty() { greatest } else { greatest.max(WHISPER_FLOOR.log10()) };
                for number in &mut numbers {
                    *number = (number.max(greatest - 8.0) + 4.0) / 4.0;
                }
            }
            MelScale::PerBand { .. } => {
                silent.fill(NEMO_GUARD.ln());
                normalise(&mut numbers, bands);
            }
        }
        Mel { numbers, frames }
    }

    /// The logarithms of the power of the sound's first frames, and the greatest of them.
    fn power(&self, sound: &Sound<'_>, numbers: &mut [f32]) -> f32 {
        let bands = self.settings.bands;
        let frames = numbers.len() / bands.max(1);
        let threads = self.threads.min(frames / FRAMES_OF_A_THREAD).max(1);
        let share = frames.div_ceil(threads).max(1);
        if threads == 1 {
            return self.power_of(sound, 0, numbers);
        }
        std::thread::scope(|scope| {
            let mut parts = numbers.chunks_mut(share * bands).enumerate();
            let own = parts.next();
            let others: Vec<_> =
                parts.map(|(index, part)| scope.spawn(move || self.power_of(sound, index * share, part))).collect();
            let own = own.map_or(f32::NEG_INFINITY, |(_, part)| self.power_of(sound, 0, part));
            let others = others.into_iter().map(|thread| match thread.join() {
                Ok(greatest) => greatest,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            others.fold(own, f32::max)
        })
    }

    /// [`power`](Self::power) of the frames from `first` on.
    fn power_of(&self, sound: &Sound<'_>, first: usize, numbers: &mut [f32]) -> f32 {
        let (fft, hop) = (self.settings.fft, self.settings.hop);
        let mut input = self.transform.make_input_vec();
        let mut spectrum = self.transform.make_output_vec();
        let mut scratch = self.transform.make_scratch_vec();
        let mut power = vec![0.0; spectrum.len()];
        let mut greatest = f32::NEG_INFINITY;
        for (index, row) in numbers.chunks_exact_mut(self.settings.bands).enumerate() {
            let centre = (first + index) * hop;
            sound.around(centre, fft, &mut input);
            for (sample, weight) in input.iter_mut().zip(&self.window) {
                *sample *= weight;
            }
            // Fails only if a length is wrong, and it made them itself.
            if self.transform.process_with_scratch(&mut input, &mut spectrum, &mut scratch).is_err() {
                unreachable!("buffers of a transform have its lengths");
            }
            for (power, number) in power.iter_mut().zip(&spectrum) {
                *power = number.norm_sqr();
            }
            self.filters.apply(&power, row);
            match self.settings.scale {
                MelScale::Whisper => row.iter_mut().for_each(|number| *number = number.max(WHISPER_FLOOR).log10()),
                MelScale::PerBand { .. } => row.iter_mut().for_each(|number| *number = (*number + NEMO_GUARD).ln()),
            }
            greatest = row.iter().copied().fold(greatest, f32::max);
        }
        greatest
    }
}

/// Samples, then silence up to a length; beyond both ends mirrored, or silent.
#[derive(Debug, Clone, Copy)]
struct Sound<'a> {
    samples: &'a [f32],
    len: usize,
    mirrored: bool,
}

impl Sound<'_> {
    /// The `into.len()` samples around `centre`.
    fn around(&self, centre: usize, fft: usize, into: &mut [f32]) {
        let half = fft / 2;
        if centre >= half && centre - half + fft <= self.samples.len() {
            into.copy_from_slice(&self.samples[centre - half..centre - half + fft]);
            return;
        }
        for (index, sample) in into.iter_mut().enumerate() {
            *sample = self.at(centre as isize + index as isize - half as isize);
        }
    }

    fn at(&self, place: isize) -> f32 {
        let last = self.len as isize - 1;
        let place = match place {
            _ if (0..=last).contains(&place) => place,
            _ if !self.mirrored => return 0.0,
            _ if place < 0 => -place,
            _ => 2 * last - place,
        };
        // A sound shorter than half a transform has nothing to mirror there.
        usize::try_from(place).ok().and_then(|place| self.samples.get(place)).copied().unwrap_or(0.0)
    }
}

/// Takes from each sample a part of the one before.
fn emphasise(samples: &[f32], preemphasis: f32) -> Vec<f32> {
    let first = samples.first().copied();
    first.into_iter().chain(samples.windows(2).map(|pair| pair[1] - preemphasis * pair[0])).collect()
}

/// Gives each band mean 0 and (nearly) variance 1 over all frames.
fn normalise(numbers: &mut [f32], bands: usize) {
    let frames = numbers.len() / bands.max(1);
    let mut mean = vec![0.0f64; bands];
    for frame in numbers.chunks_exact(bands) {
        mean.iter_mut().zip(frame).for_each(|(mean, number)| *mean += f64::from(*number));
    }
    let mean: Vec<f32> = mean.into_iter().map(|sum| (sum / frames as f64) as f32).collect();
    let mut squares = vec![0.0f64; bands];
    for frame in numbers.chunks_exact(bands) {
        for ((squares, number), mean) in squares.iter_mut().zip(frame).zip(&mean) {
            *squares += f64::from(number - mean).powi(2);
        }
    }
    let deviation = |squares: f64| (squares / frames.saturating_sub(1).max(1) as f64).sqrt() as f32 + NEMO_DEVIATION;
    let deviations: Vec<f32> = squares.into_iter().map(deviation).collect();
    for frame in numbers.chunks_exact_mut(bands) {
        for ((number, mean), deviation) in frame.iter_mut().zip(&mean).zip(&deviations) {
            *number = (*number - mean) / deviation;
        }
    }
}

/// A window out of a spectrogram of `bands`: these of its frames, then zeros up to `window_frames`.
///
/// # Panics
/// If the spectrogram has no such frames, or they are more than a window's.
#[must_use]
pub fn cut(mel: &Mel, bands: usize, frames: Range<usize>, window_frames: usize) -> Mel {
    assert!(frames.len() <= window_frames, "{} frames in a window of {window_frames}", frames.len());
    let mut numbers = Vec::with_capacity(window_frames * bands);
    numbers.extend_from_slice(&mel.numbers[frames.start * bands..frames.end * bands]);
    numbers.resize(window_frames * bands, 0.0);
    Mel { numbers, frames: window_frames }
}
